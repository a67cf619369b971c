"""Reading the pickles in which CIFAR is published without letting them do anything.

A pickle is a program. Here every class or function that it may name is a stand-in of this file, which takes
what numpy would have taken and does nothing but check and copy numbers; every other name is refused. Not even
numpy's own unpickling runs, which trusts shapes and types as it finds them.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_tune.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["read_pickle"]


def read_pickle(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of arrays, bytes, lists, dictionaries, numbers and text.

    Returns:
        The dictionary, with the byte strings of Python 2 among its keys as text.

    Raises:
        DataError: The file is missing, truncated, holds anything else, or is no dictionary.
    """
    try:
        with path.open("rb") as file:
            value = _Reader(file, encoding="bytes").load()
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # hostile bytes make the reader raise almost anything
        raise DataError(f"{path} is no pickle, or was cut off: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} holds a {type(value).__name__}, not the dictionary of a CIFAR batch")
    return {_text(key): _plain(item, path) for key, item in value.items()}


def _text(key: Any) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


def _plain(value: Any, path: Path) -> Any:
    if isinstance(value, _Array):
        return value.numbers(path)
    if isinstance(value, int | str | bytes | list):
        return value
    raise DataError(f"{path} holds a {type(value).__name__} where a CIFAR batch has an array or a list")


class _Refusing:
    """A stand-in whose state a pickle cannot set."""

    def __setstate__(self, state: object) -> None:
        raise DataError("a pickle sets the state of something that has none")


class _Kind(_Refusing):
    """What a pickle takes for `numpy.ndarray`: a name to pass on."""

    def __new__(cls, *_: object) -> _Kind:
        raise DataError("a pickle makes an array in a way that CIFAR does not")


class _Type(_Refusing):
    """What a pickle takes for `numpy.dtype`."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        text = code.decode("latin1") if isinstance(code, bytes) else code
        if text.lstrip("|<") not in ("u1", "i1", "i4", "i8"):
            raise DataError(f"a pickle holds an array of type {text!r:.40}; CIFAR has whole numbers")
        self.code = "<" + text.lstrip("|<")

    def __setstate__(self, state: object) -> None:
        """Pass over the byte order and alignment, which these types leave no choice in."""


class _Array:
    """What a pickle takes for numpy's function that makes an empty array, to be filled by its state."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, Any, Any, Any] | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise DataError("a pickle holds an array with a state that is not numpy's")
        _, shape, kind, fortran, data = state
        self.state = (data, kind, shape, "F" if fortran else "C")

    def numbers(self, path: Path) -> NDArray[np.integer[Any]]:
        """Return the array.

        Raises:
            DataError: Its shape, type and bytes do not fit together.
        """
        import numpy as np

        data, kind, shape, order = self.state or (None, None, None, "C")
        if not isinstance(data, bytes | bytearray) or not isinstance(kind, _Type) or not isinstance(shape, tuple):
            raise DataError(f"{path} holds an array without numbers")
        try:
            return np.frombuffer(data, np.dtype(kind.code)).reshape(shape, order="F" if order == "F" else "C")
        except (TypeError, ValueError) as error:
            raise DataError(f"{path} holds an array whose numbers do not fill it: {error}") from error


class _Buffered(_Array):
    """What a pickle of protocol 5 takes for numpy's function that wraps a buffer."""

    def __init__(self, data: object, kind: object, shape: object, order: object) -> None:
        self.state = (data, kind, shape, order)


class _Bytes(_Refusing):
    """What Python 3 takes for `codecs.encode`, by which old protocols write bytes."""

    def __new__(cls, text: str, encoding: str) -> bytes:  # type: ignore[misc]
        if encoding not in ("latin1", b"latin1"):
            raise DataError(f"a pickle encodes text as {encoding!r:.40}")
        return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): _Kind,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _Bytes,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Buffered for core in ("core", "_core")},
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        """Return the stand-in for a name.

        Raises:
            DataError: It is any other name.
        """
        stand_in = _STAND_INS.get((module, name))
        if stand_in is None:
            raise DataError(
                f"refused: the pickle asks for {module}.{name}; only arrays, bytes, lists, dictionaries, numbers "
                "and text are read"
            )
        return stand_in
