from __future__ import annotations

import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlm_tune.data.unpickling import read_pickle
from vlm_tune.errors import DataError


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


class Runs:
    """What unpickling turns into a call."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_gives_the_same(tmp_path: Path, protocol: int) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(4, 6)
    batch = {b"data": array, b"turned": np.asfortranarray(array), "labels": [1, 2], b"text": b"\xff\x00", "n": 3}
    found = read_pickle(written(tmp_path / "b", pickle.dumps(batch, protocol)))
    assert list(found) == ["data", "turned", "labels", "text", "n"]
    assert np.array_equal(found["data"], array)
    assert np.array_equal(found["turned"], array)
    assert (found["labels"], found["text"], found["n"]) == ([1, 2], b"\xff\x00", 3)


def test_a_pickle_of_python_2(tmp_path: Path) -> None:
    # As Python 2 wrote them: byte strings, numpy's function under its old name.
    content = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b"
        b"\x87Rq\x05(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x06abcdeftbU\x06labelsq\x08]q\x09(K\x05K\x06eu."
    )
    found = read_pickle(written(tmp_path / "b", content))
    assert found["data"].tolist() == [[97, 98, 99], [100, 101, 102]]
    assert found["labels"] == [5, 6]


@pytest.mark.parametrize(
    "value, asked",
    [
        (Runs(os.system, "touch {}"), "system"),
        (Runs(eval, "open('{}', 'w')"), "eval"),
        (Runs(getattr, "text", "upper"), "getattr"),
        (OrderedDict(), "OrderedDict"),
        (np.random.default_rng, "default_rng"),
        (Path("x"), "Path"),
    ],
)
def test_everything_else_is_refused(tmp_path: Path, value: Any, asked: str) -> None:
    mark = tmp_path / "ran"
    if isinstance(value, Runs):
        value.call = tuple(part.format(mark) if isinstance(part, str) else part for part in value.call)
    with pytest.raises(DataError, match=f"refused: the pickle asks for .*{asked}"):
        read_pickle(written(tmp_path / "b", pickle.dumps({"data": value})))
    assert not mark.exists()


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="an array of type 'O8'"):
        read_pickle(written(tmp_path / "b", pickle.dumps({"data": np.array([{}, []], dtype=object)})))


def test_a_shape_that_lies_is_refused(tmp_path: Path) -> None:
    honest = pickle.dumps({"data": np.zeros((7, 11), np.uint8)}, 2)
    lying = honest.replace(b"K\x07K\x0b\x86", b"K\x7fK\x0b\x86")
    assert lying != honest
    with pytest.raises(DataError, match="numbers do not fill it"):
        read_pickle(written(tmp_path / "b", lying))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        pickle.dumps({"data": np.zeros((100, 3072), np.uint8)})[:-1000],
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
        # Setting attributes of the stand-ins themselves, and making bytes with a decompressor.
        b"\x80\x02cnumpy\ndtype\n}U\x04codeU\x01Osb.",
        b"\x80\x02cnumpy\nndarray\n(}U\x01aU\x01bs\x86b.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(N}U\x01aU\x01bs\x86b.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86R.",
        b"\x80\x02cnumpy\nndarray\nK\x05\x85R.",
    ],
)
def test_broken_and_hostile_bytes(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError):
        read_pickle(written(tmp_path / "b", content))
    good = pickle.dumps({"data": np.zeros(3, np.uint8)}, 2)
    assert read_pickle(written(tmp_path / "b", good))["data"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("value, kind", [([1], "list"), (3, "int"), ({"data": 1.5}, "float"), ({"a": {}}, "dict")])
def test_what_is_no_batch(tmp_path: Path, value: Any, kind: str) -> None:
    with pytest.raises(DataError, match=f"holds a {kind}"):
        read_pickle(written(tmp_path / "b", pickle.dumps(value)))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_pickle(tmp_path / "gone")
