"""Reads pickles as data: nothing in a pickle is imported or called.

A pickle is a program for a small stack machine. This implementation has only the instructions for containers, numbers
and text. A class or function becomes a name, and a call becomes an inert object. PyTorch's representation of a tensor
becomes a `TensorRecord`, which describes where the values of the tensor are, and NumPy's representation of an array an
`ArrayRecord`.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from faceswap_diffusion.weights.registry import ModelFileError


@dataclass(frozen=True)
class Name:
    """A class or function named in a pickle. It is never looked up."""

    name: str


@dataclass(frozen=True, eq=False)
class Inert:
    """Placeholder for an object that a pickle would have created with a call."""

    called: Any


@dataclass(frozen=True)
class StorageRecord:
    """A storage of tensor values: its key, type and number of values."""

    key: str
    dtype: torch.dtype
    num_elements: int

    @property
    def num_bytes(self) -> int:
        """Size of the values."""
        return self.num_elements * self.dtype.itemsize


@dataclass(frozen=True)
class TensorRecord:
    """A tensor: a strided view into a storage."""

    storage: StorageRecord
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(eq=False)
class DtypeRecord:
    """The type of an array's values: kind and size as "f4", and their byte order."""

    code: str
    order: str = "|"

    def build(self, state: Any) -> None:
        """Takes what `numpy.dtype.__setstate__` takes."""
        self.order = state[1]


@dataclass(eq=False)
class ArrayRecord:
    """An array: the shape, the type and the bytes of its values, in rows or in Fortran's order."""

    shape: tuple[int, ...] = ()
    dtype: DtypeRecord | None = None
    in_columns: bool = False
    values: bytes = b""

    def build(self, state: Any) -> None:
        """Takes what `numpy.ndarray.__setstate__` takes."""
        _, self.shape, self.dtype, self.in_columns, self.values = state

    def array(self) -> np.ndarray:
        """The array, of numbers only.

        Raises:
            ValueError: If it is of anything else, or its bytes are not as many as its shape says.
        """
        if self.dtype is None or self.dtype.code[:1] not in "biufc" or self.dtype.order not in "<>=|":
            raise ValueError("an array holds something else than numbers")
        values = np.frombuffer(self.values, np.dtype(self.dtype.order + self.dtype.code))
        return values.reshape(self.shape, order="F" if self.in_columns else "C")


STORAGE_DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
}
"""Supported storage types; tensors with other types stay inert."""


def _make_tensor(storage: Any, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Any:
    return TensorRecord(storage, offset, shape, stride) if isinstance(storage, StorageRecord) else Inert(storage)


CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": dict,
    "torch._utils._rebuild_tensor": _make_tensor,
    "torch._utils._rebuild_tensor_v2": _make_tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "numpy.dtype": lambda code, *_: DtypeRecord(code),
    "numpy.core.multiarray._reconstruct": lambda *_: ArrayRecord(),
    "numpy._core.multiarray._reconstruct": lambda *_: ArrayRecord(),
}
"""Replacements for the only supported calls. They only build data."""


LITERALS = {
    "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT",
    "BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE", "UNICODE", "BINSTRING", "SHORT_BINSTRING", "STRING",
    "BINBYTES", "BINBYTES8", "SHORT_BINBYTES", "BYTEARRAY8",
}  # fmt: skip
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": set}
FIXED_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
IGNORED = {"PROTO", "FRAME", "STOP"}

Stack: TypeAlias = list[Any]


class PickleReader:
    """Runs one pickle on a stack of plain data; `storages` are all storages that it refers to."""

    def __init__(self):
        self.stack: Stack = []
        self.below: list[Stack] = []  # what is under each mark
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, StorageRecord] = {}

    def read(self, stream: Any) -> Any:
        """Reads one pickle from the current position of a stream.

        Args:
            stream (`BinaryIO`, `mmap.mmap` or `bytes`): The pickle.

        Returns:
            `Any`: Containers, numbers, text, `TensorRecord`, `Name` and `Inert`.

        Raises:
            ValueError: If it is not a pickle, truncated, or has instructions that no checkpoint needs.
        """
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                self._step(opcode.name, argument)
            return self.stack.pop()
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"it is no pickle of a checkpoint, or a damaged one ({error})") from error

    def _step(self, instruction: str, argument: Any) -> None:
        if instruction in LITERALS:
            self.stack.append(argument)
        elif instruction in CONSTANTS:
            self.stack.append(CONSTANTS[instruction])
        elif instruction in EMPTY:
            self.stack.append(EMPTY[instruction]())
        elif instruction in FIXED_TUPLES:
            self._push(tuple(self._take(FIXED_TUPLES[instruction])))
        elif instruction not in IGNORED:
            step = getattr(self, f"_{instruction.lower()}", None)
            if step is None:
                raise ValueError(f"instruction {instruction}")
            step(argument)

    def _push(self, value: Any) -> None:
        self.stack.append(value)  # looked up after `value` was made, which may exchange the stack

    def _take(self, count: int) -> Stack:
        values = [self.stack.pop() for _ in range(count)]
        return values[::-1]

    def _pop_to_mark(self) -> Stack:
        values, self.stack = self.stack, self.below.pop()
        return values

    def _mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def _pop(self, _: Any) -> None:
        self.stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self._pop_to_mark()

    # Containers

    def _tuple(self, _: Any) -> None:
        self._push(tuple(self._pop_to_mark()))

    def _list(self, _: Any) -> None:
        self._push(self._pop_to_mark())

    def _dict(self, _: Any) -> None:
        values = self._pop_to_mark()
        self._push(dict(zip(values[::2], values[1::2], strict=True)))

    def _frozenset(self, _: Any) -> None:
        self._push(frozenset(self._pop_to_mark()))

    def _append(self, _: Any) -> None:
        self._extend(self._take(1))

    def _appends(self, _: Any) -> None:
        self._extend(self._pop_to_mark())

    def _setitem(self, _: Any) -> None:
        self._update(self._take(2))

    def _setitems(self, _: Any) -> None:
        self._update(self._pop_to_mark())

    def _additems(self, _: Any) -> None:
        values = self._pop_to_mark()
        if not isinstance(self.stack[-1], Inert):
            self.stack[-1].update(values)

    def _extend(self, values: Stack) -> None:
        if not isinstance(self.stack[-1], Inert):
            self.stack[-1].extend(values)

    def _update(self, values: Stack) -> None:
        if not isinstance(self.stack[-1], Inert):
            self.stack[-1].update(zip(values[::2], values[1::2], strict=True))

    # The memo, for what occurs again

    def _binput(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    _long_binput = _put = _binput

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _binget(self, index: int) -> None:
        self._push(self.memo[index])

    _long_binget = _get = _binget

    # Names and calls

    def _global(self, names: str) -> None:
        self._push(Name(names.replace(" ", ".")))

    def _stack_global(self, _: Any) -> None:
        self._push(Name(".".join(self._take(2))))

    def _reduce(self, _: Any) -> None:
        called, arguments = self._take(2)
        known = CALLS.get(called.name) if isinstance(called, Name) else None
        self._push(Inert(called) if known is None else known(*arguments))

    def _newobj(self, _: Any) -> None:
        made, _ = self._take(2)
        self._push(Inert(made))

    def _newobj_ex(self, _: Any) -> None:
        made, _, _ = self._take(3)
        self._push(Inert(made))

    def _obj(self, _: Any) -> None:
        made, *_ = self._pop_to_mark()
        self._push(Inert(made))

    def _inst(self, names: str) -> None:
        self._pop_to_mark()
        self._push(Inert(Name(names.replace(" ", "."))))

    def _build(self, _: Any) -> None:
        state = self.stack.pop()  # an object's attributes, of which plain data has none
        if isinstance(self.stack[-1], DtypeRecord | ArrayRecord):
            self.stack[-1].build(state)

    def _binpersid(self, _: Any) -> None:
        _, kind, key, _, num_elements, *_ = self.stack.pop()  # "storage", type, key, location, number of elements
        if kind.name in STORAGE_DTYPES:
            self.storages[key] = StorageRecord(key, STORAGE_DTYPES[kind.name], num_elements)
        self._push(self.storages.get(key, Inert(kind)))


def read_arrays(path: Path) -> dict[str, Any]:
    """Reads a pickled dictionary of NumPy arrays, or of such dictionaries.

    Args:
        path (`Path`): The file.

    Returns:
        `dict[str, Any]`: Arrays, read-only, and dictionaries by name.

    Raises:
        ModelFileError: If there is anything else in it.
    """
    try:
        return _arrays(PickleReader().read(path.read_bytes()))
    except ModelFileError:
        raise
    except ValueError as error:
        raise ModelFileError(f"{path} cannot be read: {error}") from error


def _arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _arrays(part) for name, part in value.items()}
    if isinstance(value, ArrayRecord):
        return value.array()
    named = value.called if isinstance(value, Inert) else value
    what = f"names {named.name}" if isinstance(named, Name) else f"holds a {type(value).__name__}"
    raise ModelFileError(f"the file {what}: only NumPy arrays are read")
