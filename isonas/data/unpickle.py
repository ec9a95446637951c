"""Pickles of NumPy arrays and plain containers, read without running anything that they name.

A pickle is a program: it names callables and has them called. Here each of the few names that NumPy's
arrays are pickled under stands for a function of this file, which checks what it is given and only
ever makes arrays of numbers. Every other name is refused before it is looked up.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_LONGEST_REASON = 300


class RefusedPickle(Exception):
    """A pickle that holds something else than arrays of numbers and plain containers, or is damaged."""

    def __init__(self, reason: str) -> None:
        # The names in it are the pickle's, and may be any text.
        printable = "".join(sign if sign.isprintable() else " " for sign in reason)
        super().__init__(" ".join(printable.split())[:_LONGEST_REASON])


def unpickle_dict(stream: BinaryIO) -> dict[str, Any]:
    """The dict that a stream's pickle holds.

    Of any protocol, by Python 2 or 3 and NumPy 1 or 2; keys may be text or bytes. Arrays share the
    memory of the bytes that were read. Raises RefusedPickle, with the reason and no full stop.
    """
    try:
        found = _Restricted(stream).load()
        if not isinstance(found, dict):
            raise RefusedPickle("holds no dict")
        return {
            _text(key): value.array if isinstance(value, _Array) else value for key, value in found.items()
        }
    except RefusedPickle:
        raise
    except MemoryError:
        raise RefusedPickle("asks for more memory than there is") from None
    except EOFError:
        raise RefusedPickle("is damaged or no pickle (it ends too soon)") from None
    except Exception as error:
        # Damaged pickles raise nearly anything: EOFError, UnpicklingError, IndexError, KeyError, …
        raise RefusedPickle(f"is damaged or no pickle ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError) and isinstance(error.args[0], int) and error.args[0] < 256:
        return f"no instruction of a pickle is byte {error.args[0]:#04x}, {chr(error.args[0])!r}"
    text = str(error).rstrip(".")
    return text if " " in text else f"{type(error).__name__} {text}".rstrip()


# The C unpickler sets aside as much memory as the largest memo index asks for, gigabytes where a damaged
# file names one; the one in Python does not.
class _Restricted(pickle._Unpickler):
    def __init__(self, stream: BinaryIO) -> None:
        # Python 2 pickled bytes and text alike; as bytes an array's content is not decoded in vain.
        super().__init__(stream, encoding="bytes")

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        stand_in = _STAND_INS.get((module.replace("numpy.core.", "numpy._core."), name))
        if stand_in is None:
            raise RefusedPickle(f"asks for {module}.{name}, which is neither an array nor a plain container")
        # One of its own each time: a pickle can set attributes of what it is handed.
        return lambda *arguments: stand_in(*arguments)


class _DType:
    """`numpy.dtype` of plain numbers, whose byte order comes after it."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        code = _text(code)
        if re.fullmatch(r"b1|[iu][1248]|f[248]", code) is None:
            raise RefusedPickle(f"holds an array of {code!r}, not of numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if (order := _text(state[1])) in ("<", ">"):
            self.dtype = np.dtype(order + self.dtype.str[1:])


class _Array:
    """`numpy.ndarray`, whose content comes after it."""

    array: Array

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran_order, content = state
        self.array = _array(content, dtype, shape, "F" if fortran_order else "C")


def _array(content: Any, dtype: Any, shape: Any, order: str | bytes = "C") -> Array:
    if isinstance(content, str):
        content = content.encode("latin1")
    if not isinstance(dtype, _DType) or not isinstance(content, bytes | bytearray):
        raise RefusedPickle("holds an array of objects, not of numbers")
    return np.frombuffer(content, dtype.dtype).reshape(shape, order="F" if _text(order) == "F" else "C")


def _from_buffer(content: Any, dtype: Any, shape: Any, order: str | bytes) -> _Array:
    whole = _Array()
    whole.array = _array(content, dtype, shape, order)
    return whole


def _number(dtype: Any, content: Any) -> Any:
    return _array(content, dtype, (1,))[0].item()


def _encoded(text: Any, encoding: Any) -> bytes:
    """Bytes as Python 3 writes them in the protocols of Python 2."""
    if not isinstance(text, str) or _text(encoding) != "latin1":
        raise RefusedPickle("holds text in an encoding that arrays do not have")
    return text.encode("latin1")


def _refuse(*_: object) -> None:
    raise RefusedPickle("makes an array in a way that NumPy does not")


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _refuse,  # named as an argument of the next, which has no use for it
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy._core.multiarray", "scalar"): _number,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encoded,
    ("__builtin__", "bytes"): lambda: b"",  # how the same protocols write no bytes at all
}


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
