"""Pickles of plain data are read, whoever wrote them; anything else is refused and not executed."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimdet.errors import DataError
from slimdet.original.data.unpickle import unpickle

PLAIN: list[Any] = [
    [{"a": (1, 2.5, "x", b"y", None, True)}],
    [np.arange(10, dtype=np.float32).reshape(2, 5), np.zeros((0, 5))],
    np.asfortranarray(np.ones((2, 3))),
    (np.float32(3.5), np.int64(4), np.array(["ab", "c"]), b""),
]


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def dump(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("value", PLAIN, ids=range(len(PLAIN)))
def test_plain_data_comes_back(tmp_path: Path, value: Any, protocol: int) -> None:
    found = unpickle(dump(tmp_path / "x.pkl", value, protocol))
    assert repr(found) == repr(value)
    assert type(found) is type(value)


def test_python_2_and_old_numpy(tmp_path: Path) -> None:
    written = pickle.dumps([np.arange(3)], 2).replace(b"numpy._core.", b"numpy.core.")
    (tmp_path / "x.pkl").write_bytes(written)
    assert unpickle(tmp_path / "x.pkl")[0].tolist() == [0, 1, 2]
    (tmp_path / "y.pkl").write_bytes(b"(lp0\nS'caf\\xe9'\np1\na.")  # a str with a byte above 127
    assert unpickle(tmp_path / "y.pkl") == ["caf\xe9"]


@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "system"), (eval, "builtins.eval"), (bytearray, "builtins.bytearray"), (Path, "Path")],
)
def test_other_globals_are_named_and_refused(tmp_path: Path, function: Any, name: str) -> None:
    path = dump(tmp_path / "x.pkl", [Call(function, "touch made")])
    with pytest.raises(DataError, match="not plain data") as caught:
        unpickle(path)
    assert name in str(caught.value)
    assert not (tmp_path / "made").exists()


def test_codecs_that_unpack_without_bound_are_refused(tmp_path: Path) -> None:
    import _codecs

    with pytest.raises(DataError, match="zip"):
        unpickle(dump(tmp_path / "x.pkl", Call(_codecs.encode, "x", "zip")))


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps([1, 2, 3])[:-4], b"\x80\x04."])
def test_no_pickle(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.pkl"):
        unpickle(tmp_path / "x.pkl")
    with pytest.raises(DataError, match="cannot be read"):
        unpickle(tmp_path / "absent.pkl")
