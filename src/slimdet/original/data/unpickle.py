"""Pickles of plain data: lists, tuples, dicts, strings, numbers and numpy arrays, nothing that executes."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from slimdet.errors import DataError


def _encode(text: str, encoding: str) -> bytes:
    # How protocol 2 writes bytes. Other codecs (zip, bz2) could unpack without bound.
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"codec {encoding!r}")
    return text.encode("latin1")


def _reconstruct(kind: type, shape: tuple[int, ...], code: bytes) -> np.ndarray:
    if kind is not np.ndarray or tuple(shape) != (0,):  # numpy itself always writes these, the state follows
        raise pickle.UnpicklingError("an array that numpy did not write")
    return np.ndarray((0,), np.uint8)


def _scalar(dtype: np.dtype, data: bytes) -> Any:
    if dtype.hasobject or len(data) != dtype.itemsize:
        raise pickle.UnpicklingError("a numpy scalar of objects")
    return np.frombuffer(data, dtype)[0]


def _frombuffer(data: bytes, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")


def _no_bytes() -> bytes:
    return b""  # how protocol 2 writes empty bytes


_ALLOWED: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
for _package in ("numpy.core", "numpy._core"):  # before and since numpy 2
    _ALLOWED[f"{_package}.multiarray", "_reconstruct"] = _reconstruct
    _ALLOWED[f"{_package}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_package}.numeric", "_frombuffer"] = _frombuffer


class _Restricted(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise DataError(f"it names the global {module_name}.{global_name}, which is not plain data") from None


def unpickle(path: str | Path) -> Any:
    """Read a pickle of lists, tuples, dicts, strings, numbers and numpy arrays (also one written by Python 2).

    Raises:
        DataError: the file names any other global (which one), or is not a whole pickle. Nothing of it is executed.
    """
    try:
        with Path(path).open("rb") as file:
            return _Restricted(file, encoding="latin1").load()
    except DataError as error:
        raise DataError(f"{path} is refused: {error}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a pickle can fail in any way: KeyError, AttributeError, EOFError ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} is not a pickle of plain data: {reason}") from None
