"""What all settings of a training have in common: what is wrong with them is said in one line."""

from __future__ import annotations

from typing import Any, Self

from pydantic import ModelWrapValidatorHandler, ValidationError, model_validator

from vlm_tune.errors import TrainingError, nearest
from vlm_tune.records import Record

__all__ = ["Settings"]


class Settings(Record):
    """Settings that are checked as they are made.

    Raises:
        TrainingError: A value is out of range or a field is unknown; the message names the field.
    """

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            raise cls._refused(error) from error

    @classmethod
    def _refused(cls, error: ValidationError) -> TrainingError:
        # Of a field that may be several things, the last complaint is about the one that comes nearest.
        *_, last = [one for one in error.errors() if one["loc"][:1] == error.errors()[0]["loc"][:1]]
        where = ".".join(str(part) for part in last["loc"] if not str(part).startswith(("dict[", "literal[")))
        close = nearest(where, cls.model_fields) if last["type"] == "extra_forbidden" else ()
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        return TrainingError(f"{cls.__name__}.{where}: {last['msg']}, got {last['input']!r}{hint}")
