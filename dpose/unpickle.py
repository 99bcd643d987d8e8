"""Pickles read as data: arrays, plain containers and nothing that could run.

The licensed body models and several data sets come as pickles, many written by Python 2 and full of objects
of `chumpy`, which today's Python cannot install. A pickle is a program: opened the usual way it calls what it
names. Here no name in the file is ever looked up. The few that numpy's arrays, scipy's sparse matrices,
chumpy's containers and plain Python containers need stand for small makers in this module; any other name
ends the reading before anything was done with it. Arrays are made from bytes whose number is checked, not by
numpy's own unpickling, which trusts the file.

A hostile file can therefore waste time, but not run code, and not fill the memory: what it makes of its
bytes, however often it names the same ones, is counted.
"""

from __future__ import annotations

import math
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np

__all__ = ["NotRead", "read_pickle"]

MOST_TUPLES = 16  # one within the other
MOST_BYTES = 16  # of arrays and copies, for each byte of the file
LONGEST_NAME = 80  # characters, also of what a message quotes


class NotRead(NamedTuple):
    """In place of an object of chumpy that is an expression, as `chumpy.ch_ops.add`, and not a container."""

    name: str


def read_pickle(path: str | os.PathLike[str]) -> Any:
    """The content of a pickle of any protocol and of Python 2 or 3 (whose byte strings are read as Latin-1).

    Arrays come as `numpy.ndarray` in the machine's byte order, sparse matrices as those of `scipy.sparse`,
    `chumpy.ch.Ch` and chumpy's `Select`, `Reshape` and `transpose` as the array that they hold, other objects
    of chumpy as `NotRead`.

    Raises:
        ValueError: the file asks for anything else (the message names it; nothing of the file was run), or is
            damaged, cut off or no pickle.
        OSError: it cannot be opened.
    """
    with open(path, "rb") as file:
        try:
            reader = _Reader(_Bounded(file))
            return _plain(reader.load(), {}, reader.spend)
        except _Refused as refused:
            asked = str(refused)[: 2 * LONGEST_NAME]
            raise ValueError(
                f"{path}: refused. Its pickle asks for {asked}, but a file of arrays needs nothing except "
                "numpy, scipy.sparse, chumpy and plain containers. Nothing of it was run; take the file from "
                "its makers' own site"
            ) from None
        except Exception as error:  # a damaged pickle fails in a dozen ways
            reason = f"{type(error).__name__}: {error}".splitlines()[0][: 2 * LONGEST_NAME]
            raise ValueError(f"{path}: no pickle, or damaged or cut off ({reason})") from None


class _Refused(Exception):
    """The name of what a pickle must not have."""


class _Known:
    """What a name in the file stands for, until it is called."""

    def __init__(self, name: str, make: Callable[..., Any]) -> None:
        self.name, self.make = name, make


def _call(function: Any, arguments: tuple) -> Any:
    if not isinstance(function, _Known):
        raise _Refused(f"a call of {type(function).__name__!r}")
    return function.make(*arguments)


class _Bounded:
    """A file that never reads beyond its end: a length given in a pickle is only a claim."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.left = file, os.fstat(file.fileno()).st_size

    def read(self, size: int) -> bytes:
        if size > self.left:
            raise EOFError("the file ends early")
        self.left -= size
        return self.file.read(size)

    def readline(self) -> bytes:
        line = self.file.readline()
        self.left -= len(line)
        return line


def _shallow(load: Callable[[_Reader], None]) -> Callable[[_Reader], None]:
    """A loader of tuples that keeps them shallow, and small also where they repeat their parts.

    As a key a tuple is hashed to its bottom, by recursion in C that nothing stops before the stack overflows.
    """

    def run(self: _Reader) -> None:
        load(self)
        made = self.stack[-1]
        inner = [self.tuples[id(item)] for item in made if type(item) is tuple and item]
        depth = 1 + max((depth for _, depth, _ in inner), default=0)
        items = len(made) + sum(items for _, _, items in inner)
        if depth > MOST_TUPLES or items > self.most_items:
            raise ValueError("tuples in tuples, and so on")
        if made:
            self.tuples[id(made)] = made, depth, items

    return run


class _Reader(pickle._Unpickler):
    """Python's own reader of the format (the one in Python: C's trusts sizes), with every call replaced."""

    dispatch = {
        opcode: load
        for opcode, load in pickle._Unpickler.dispatch.items()
        if opcode not in b"".join((pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEWOBJ_EX))
    }  # extension codes reach classes without naming them
    for _opcode in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
        dispatch[_opcode[0]] = _shallow(dispatch[_opcode[0]])

    def __init__(self, file: _Bounded) -> None:
        super().__init__(file, encoding="latin1")
        self.most_items, self.bytes_left = file.left, MOST_BYTES * file.left + 2**20
        self.tuples: dict[int, tuple[tuple, int, int]] = {}  # by id: itself, depth, items at all depths

    def spend(self, made: Any) -> Any:
        """`made`, whose bytes are counted: a text in the file can be named again and again, and copied."""
        if isinstance(made, _Array):
            self.bytes_left -= made.value.nbytes
        elif isinstance(made, np.ndarray | np.generic):
            self.bytes_left -= made.nbytes
        elif isinstance(made, bytes | set | frozenset | dict):
            self.bytes_left -= (1 if isinstance(made, bytes) else 8) * len(made)
        if self.bytes_left < 0:
            raise _Refused(f"more than {MOST_BYTES} times its own size of memory")
        return made

    def find_class(self, module: str, name: str) -> _Known:
        full = f"{module}.{name}"
        if "." in name or len(full) > LONGEST_NAME:  # an attribute of an attribute, or none of those below
            raise _Refused(repr(full[:LONGEST_NAME]))
        key = full.replace("__builtin__.", "builtins.").replace("copy_reg.", "copyreg.")
        key = key.replace("numpy._core.", "numpy.core.")
        if make := _MAKERS.get(key):
            return _Known(full, make)
        if re.fullmatch(
            r"chumpy\.\w+\.\w+|scipy\.sparse(\._?(csc|csr|coo))?\.(csc|csr|coo)_(matrix|array)", key
        ):
            return _Known(full, lambda *arguments: _Object(full, *arguments))
        raise _Refused(repr(full))

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("an object kept outside the file")

    def _instantiate(self, cls: Any, arguments: list) -> None:
        self.append(self.spend(_call(cls, arguments)))

    def load_call(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self.spend(_call(self.stack[-1], arguments))

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _DType | _Array | _Object):
            raise _Refused(f"a change of {type(self.stack[-1]).__name__!r}")
        self.stack[-1].build(state)
        self.spend(self.stack[-1])

    def load_bytearray8(self) -> None:
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    dispatch[pickle.REDUCE[0]] = dispatch[pickle.NEWOBJ[0]] = load_call
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


class _DType:
    """A numpy dtype: numbers, text or objects; no structures, whose description could lie about pointers."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not re.fullmatch(r"[<>=|]?([biufcSU]\d+|O\d*)", code):
            raise _Refused(f"an array of type {code!r}")
        self.value = np.dtype(re.sub(r"O\d+", "O", code))

    def build(self, state: tuple) -> None:
        _, order, *description = state
        if any(part is not None for part in description[:3]):
            raise _Refused("an array of structures")
        if order in ("<", ">"):
            self.value = self.value.newbyteorder(order)


class _Array:
    """A numpy array, empty until its state arrives."""

    value = np.empty(0)

    def __init__(self, *unused: Any) -> None:
        pass

    def build(self, state: tuple) -> None:
        *_, shape, dtype, fortran, data = state
        self.value = _array(data, dtype, shape, "F" if fortran else "C")


class _Object:
    """An object of chumpy or a sparse matrix: its class's name and its attributes."""

    def __init__(self, name: str, *unused: Any) -> None:
        self.name, self.state = name, {}

    def build(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise ValueError(f"{self.name} without attributes")
        self.state = state


def _array(data: Any, dtype: _DType, shape: tuple[int, ...], order: str) -> np.ndarray:
    if not isinstance(dtype, _DType):
        raise ValueError(f"an array of type {type(dtype).__name__}")
    if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise ValueError("an array whose shape is none")
    if len(shape) > 64:
        raise ValueError(f"an array of {len(shape)} dimensions")
    size, kind = math.prod(shape), dtype.value
    if kind.hasobject:
        if not isinstance(data, list) or len(data) != size:
            raise ValueError(f"an array of shape {shape} with another number of objects")
        array = np.empty(size, kind)
        for i, item in enumerate(data):  # not at once: numpy would look into lists
            array[i] = item
        return array.reshape(shape, order=order)
    if not isinstance(data, str | bytes | bytearray):
        raise ValueError(f"an array of {kind} made of {type(data).__name__}")
    if len(data) != size * kind.itemsize or (size and not data):
        raise ValueError(f"an array of shape {shape} and type {kind} with {len(data)} bytes")
    data = bytearray(data, "latin1") if isinstance(data, str) else bytearray(data)
    array = np.frombuffer(data, kind) if data else np.empty(0, kind)
    return array.astype(kind.newbyteorder("="), copy=False).reshape(shape, order=order)


def _scalar(dtype: _DType, data: Any) -> np.generic:
    return _array(data, dtype, (1,), "C")[0]


def _frombuffer(data: Any, dtype: _DType, shape: tuple[int, ...], order: str) -> _Array:
    made = _Array()
    made.value = _array(data, dtype, shape, order)
    return made


def _reconstructor(cls: _Known, base: Any, state: Any) -> Any:
    return _call(cls, ())


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise _Refused(f"the encoding {encoding!r}" if isinstance(encoding, str) else "another encoding")
    return text.encode("latin1")


def _not_callable(*arguments: Any) -> Any:
    raise _Refused("a call of a bare type")


_MAKERS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _DType,
    "numpy.ndarray": _not_callable,
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _frombuffer,
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.bytes": lambda: b"",  # how protocols before 3 write an empty one
    "builtins.object": _not_callable,
    "copyreg._reconstructor": _reconstructor,
    "_codecs.encode": _encode,
}


def _plain(value: Any, done: dict[int, Any], spend: Callable[[Any], Any]) -> Any:
    """`value` with the stand-ins inside it replaced; what is shared in the file stays shared.

    spend: counts the bytes of what is computed, and ends it when they are too many.
    """
    if isinstance(value, _DType):
        return value.value
    if not isinstance(value, dict | list | tuple | set | frozenset | _Array | _Object | _Known):
        return value
    if id(value) in done:
        if done[id(value)] is None:
            raise ValueError("it contains itself")
        return done[id(value)]
    done[id(value)] = None
    if isinstance(value, dict):
        made = type(value)(
            (_plain(key, done, spend), _plain(item, done, spend)) for key, item in value.items()
        )
    elif isinstance(value, list | tuple | set | frozenset):
        made = type(value)(_plain(item, done, spend) for item in value)
    elif isinstance(value, _Array):
        made = value.value
        if made.dtype.hasobject:
            made = np.empty(made.shape, object)
            for i, item in enumerate(value.value.flat):
                made[np.unravel_index(i, made.shape)] = _plain(item, done, spend)
    elif isinstance(value, _Object):
        evaluate = _chumpy if value.name.startswith("chumpy") else _sparse
        made = evaluate(value.name, _plain(value.state, done, spend), spend)
    else:
        raise ValueError(f"{value.name} stands where data should")
    done[id(value)] = made
    return made


def _chumpy(name: str, state: dict[str, Any], spend: Callable[[Any], Any]) -> np.ndarray | NotRead:
    """The array of one of chumpy's containers: `Ch` holds it, the others rearrange that of another."""
    kind = name.rpartition(".")[2]
    source = state.get("x" if kind == "Ch" else "a")
    if kind not in ("Ch", "Select", "Reshape", "transpose") or isinstance(source, NotRead):
        return NotRead(name)
    if not isinstance(source, np.ndarray | np.number | float | int):
        raise ValueError(f"{name} without its array")
    source = np.asarray(source)
    if kind == "Select":
        if source.dtype.kind not in "biufc" or getattr(state["idxs"], "dtype", source.dtype).kind not in "iu":
            raise ValueError(f"{name} of {source.dtype} by other than whole numbers")
        chosen = spend(source.ravel()[state["idxs"]])
        return chosen.reshape(state.get("preferred_shape", chosen.shape))
    if kind == "Reshape":
        return spend(source.reshape(state["newshape"]))
    return source.transpose(state.get("axes")) if kind == "transpose" else source


def _sparse(name: str, state: dict[str, Any], spend: Callable[[Any], Any]) -> Any:
    """A matrix of scipy, every index of it checked: scipy's compiled code would follow them anywhere."""
    import scipy.sparse

    kind = name.rpartition(".")[2][:3]
    rows, columns = (int(n) for n in state.get("_shape", state.get("shape")))
    if kind == "coo":
        indices = state["coords"] if "coords" in state else (state["row"], state["col"])
        arrays = (state["data"], *indices)
    else:
        arrays = (state["data"], state["indices"], state["indptr"])
    if not all(isinstance(array, np.ndarray) and array.ndim == 1 for array in arrays):
        raise ValueError(f"{name} without its arrays")
    data, *indices = map(spend, arrays)  # which scipy may copy
    if data.dtype.kind not in "biufc" or any(array.dtype.kind not in "iu" for array in indices):
        raise ValueError(f"{name} of {data.dtype} with indices of {indices[0].dtype}")
    if kind == "coo":
        return scipy.sparse.coo_matrix((data, tuple(indices)), shape=(rows, columns))
    make = scipy.sparse.csc_matrix if kind == "csc" else scipy.sparse.csr_matrix
    made = make((data, *indices), shape=(rows, columns))
    made.check_format(full_check=True)
    return made
