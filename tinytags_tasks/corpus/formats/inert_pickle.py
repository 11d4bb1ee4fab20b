"""Reads Python pickles without running any of their code: plain values and numpy arrays, nothing else.

A pickle is a program: it names functions that the unpickler calls. Here the few names that numpy's arrays need are
bound to objects that only store their arguments; every other name is refused. An array is then made from stored bytes
whose type and shape have been checked, never by numpy's own reconstruction.
"""

import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np
import numpy.typing as npt

from tinytags_tasks.errors import BadInputError, joined_lines, one_line

# What Python's unpickler and its disassembler raise on damaged bytes.
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RecursionError,
    NotImplementedError,
)

_NUMBER_TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")


class _StandIn:
    """Replaces a function or type; a pickle can neither change it nor reach the original."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it changes a function that it may only call")


class InertArray:
    """What a pickle says about an array."""

    __slots__ = ("state",)

    def __init__(self, state: object = None) -> None:
        self.state = state

    def __setstate__(self, state: object) -> None:
        """Store version, shape, type, whether it is column-major, and bytes, unchecked."""
        self.state = state


class _InertType:
    """What a pickle says about the type of an array."""

    __slots__ = ("name", "state")

    def __init__(self, name: object) -> None:
        self.name = name
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Reconstruct(_StandIn):
    __slots__ = ()

    def __call__(self, *arguments: object) -> InertArray:
        return InertArray()


class _FromBuffer(_StandIn):
    __slots__ = ()

    def __call__(self, buffer: object, kind: object, shape: object, order: object) -> InertArray:
        return InertArray((1, shape, kind, order != "C", buffer))


class _Type(_StandIn):
    __slots__ = ()

    def __call__(self, name: object, *arguments: object) -> _InertType:
        return _InertType(name)


class _Encode(_StandIn):
    """How Python 3 writes bytes in the protocols of Python 2."""

    __slots__ = ()

    def __call__(self, text: object, encoding: object) -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("it encodes something other than bytes")
        return text.encode("latin-1")


_KNOWN: dict[tuple[str, str], object] = {
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy._core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy.core.numeric", "_frombuffer"): _FromBuffer(),
    ("numpy._core.numeric", "_frombuffer"): _FromBuffer(),
    ("numpy", "ndarray"): _StandIn(),
    ("numpy", "dtype"): _Type(),
    ("_codecs", "encode"): _Encode(),
}


class _InertUnpickler(pickle.Unpickler):
    def __init__(self, content: bytes, where: str) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._where = where

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 (as the base class has it)
        if (module, name) not in _KNOWN:
            raise BadInputError(
                f"{self._where}: this pickle asks for {module}.{name}, which could run any code, so it was not "
                "read; write it again with only plain values and numpy arrays of integers"
            )
        return _KNOWN[module, name]


def load_inert(content: bytes, where: str) -> object:
    """Return what a pickle holds, with :class:`InertArray` where it has arrays; Python 2's strings are bytes.

    Parameters
    ----------
    content
        The pickle; any protocol.
    where
        Its file, for error messages.

    Raises
    ------
    BadInputError
        If it asks for anything other than numpy arrays, or is damaged.
    """
    try:
        _check_memo(content)
        return _InertUnpickler(content, where).load()
    except _DAMAGE as error:
        raise BadInputError(
            f"{where}: not a readable pickle, of {len(content):,} bytes ({type(error).__name__}: "
            f"{one_line(joined_lines(error))}); download it again"
        ) from error


def _check_memo(content: bytes) -> None:
    """Refuse memo numbers that no writer uses: the unpickler allocates memory for all numbers below them."""
    for count, (opcode, argument, at) in enumerate(pickletools.genops(content)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= (argument or 0) <= count:
            raise pickle.UnpicklingError(f"value {argument:,} of {count:,} at offset {at:,}")


def array_numbers(value: object, where: str) -> npt.NDArray[Any]:
    """Return an array of integers, read-only.

    Parameters
    ----------
    value
        An :class:`InertArray`.
    where
        Its file and name, for error messages.

    Raises
    ------
    BadInputError
        If it is not a row-major array of integers, or its bytes do not match its shape.
    """
    state = value.state if isinstance(value, InertArray) else None
    if not isinstance(state, tuple) or len(state) != 5:
        raise BadInputError(f"{where} is not a numpy array; give a file of the corpus' format")
    _, shape, kind, is_column_major, content = state
    name = _text(kind.name) if isinstance(kind, _InertType) else ""
    order = _text(kind.state[1]) if name and isinstance(kind.state, tuple) and len(kind.state) > 1 else "|"
    if name not in _NUMBER_TYPES or order not in ("|", "<", ">", "="):
        raise BadInputError(f"{where} is not an array of integers; give a file of the corpus' format")
    dtype = np.dtype(f"{order}{name}")
    if not isinstance(shape, tuple) or len(shape) not in (1, 2) or not all(map(_is_length, shape)):
        raise BadInputError(
            f"{where} has the shape {str(shape)[:100]}, not one or two lengths; download the file again"
        )
    size_bytes = math.prod(shape) * dtype.itemsize
    if is_column_major and len(shape) > 1:
        raise BadInputError(f"{where} is column-major; write it again as a row-major array")
    if not isinstance(content, bytes | bytearray) or len(content) != size_bytes:
        held = f"{len(content):,} bytes" if isinstance(content, bytes | bytearray) else "no bytes"
        raise BadInputError(f"{where} has the shape {shape} and {held}, not {size_bytes:,}; download the file again")
    return np.frombuffer(bytes(content), dtype=dtype).reshape(shape)


def _is_length(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 40


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value if isinstance(value, str) else ""
