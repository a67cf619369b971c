"""Importing optional packages with an error that says how to install them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from vlm_tune.errors import MissingExtraError

__all__ = ["require"]


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional module.

    Raises:
        MissingExtraError: It is not installed; the message holds the pip line.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] == module.split(".")[0]:
            raise MissingExtraError(module, extra=extra, purpose=purpose) from error
        raise
