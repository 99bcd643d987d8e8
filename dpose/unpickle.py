"""Pickles read as data: arrays, plain containers and nothing that could run.

The licensed body models and several data sets are pickles, many written by Python 2 and full of objects of
`chumpy`, which cannot be installed with current versions of Python. Unpickling calls the functions that the
file names. Here no name in the file is imported. The names that numpy arrays, scipy sparse matrices, chumpy
containers and plain Python containers need stand for small constructors in this module; any other name ends
the reading. Arrays are made from bytes whose number is checked, not by numpy's own unpickling, which trusts
the file.

A hostile file can waste time or memory, but it cannot run code or crash the interpreter.
"""

from __future__ import annotations

import mmap
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

MAX_TUPLE_DEPTH = 16
MAX_NAME = 80  # characters, also of what a message quotes


class NotRead(NamedTuple):
    """In place of a chumpy object that is an expression, such as `chumpy.ch_ops.add`, and not a container."""

    name: str


def read_pickle(path: str | os.PathLike[str]) -> Any:
    """The content of a pickle of any protocol, of Python 2 (whose byte strings are read as Latin-1) or 3.

    Arrays come as `numpy.ndarray` in the machine's byte order, sparse matrices as `scipy.sparse` matrices,
    chumpy's `Ch`, `Select`, `Reshape` and `transpose` as the array that they hold, other chumpy objects as
    `NotRead`.

    Raises:
        ValueError: the file contains code or other objects (the message names it; nothing was run), or it
            is damaged, cut off or not a pickle.
        OSError: it cannot be opened.
    """
    with open(path, "rb") as file:
        try:
            # Reads from a map end with the file: a length that the pickle claims allocates nothing.
            return _plain(_Reader(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)).load(), {})
        except _Refused as refused:
            raise ValueError(
                f"{path}: refused. Its pickle contains {str(refused)[: 2 * MAX_NAME]}, not only numpy, "
                "scipy.sparse, chumpy and plain containers. Nothing of it was run. Take the original file "
                "from its makers, or, if you saved it yourself, save numpy arrays"
            ) from None
        except Exception as error:  # a damaged pickle fails in many ways
            reason = f"{type(error).__name__}: {error}".splitlines()[0][: 2 * MAX_NAME]
            raise ValueError(f"{path}: no pickle, or damaged or cut off ({reason})") from None


class _Refused(Exception):
    """The name of what a pickle must not contain."""


class _Known:
    """What a name in the file stands for, until it is called."""

    def __init__(self, name: str, make: Callable[..., Any]) -> None:
        self.name, self.make = name, make


def _call(function: Any, arguments: tuple) -> Any:
    if not isinstance(function, _Known):
        raise _Refused(f"a call of {type(function).__name__!r}")
    return function.make(*arguments)


def _shallow(load: Callable[[_Reader], None]) -> Callable[[_Reader], None]:
    """A loader of tuples that limits how deeply they are nested, and their items at all levels.

    A tuple that is a key is hashed to its bottom, by a recursion in C that nothing interrupts, not even the
    end of the stack. Tuples that repeat one another have more items than the file has bytes.
    """

    def run(self: _Reader) -> None:
        load(self)
        made = self.stack[-1]
        inner = [self.tuples[id(item)] for item in made if type(item) is tuple and item]
        depth = 1 + max((depth for depth, _, _ in inner), default=0)
        items = len(made) + sum(items for _, items, _ in inner)
        if depth > MAX_TUPLE_DEPTH or items > self.size:
            raise ValueError("tuples are nested too deeply")
        if made:
            self.tuples[id(made)] = depth, items, made  # kept, so that no other object gets its id

    return run


class _Reader(pickle._Unpickler):
    """Python's own reader, the one written in Python (C's trusts sizes), with every call replaced."""

    dispatch = {
        opcode: load
        for opcode, load in pickle._Unpickler.dispatch.items()
        if opcode not in b"".join((pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEWOBJ_EX))
    }  # extension codes reach classes without naming them
    for _opcode in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
        dispatch[_opcode[0]] = _shallow(dispatch[_opcode[0]])

    def __init__(self, file: mmap.mmap) -> None:
        super().__init__(file, encoding="latin1")
        self.size = len(file)
        self.tuples: dict[int, tuple[int, int, tuple]] = {}  # by id: depth, items at all levels, itself

    def find_class(self, module: str, name: str) -> _Known:
        full = f"{module}.{name}"
        if "." in name or len(full) > MAX_NAME:  # an attribute of an attribute, or none of those below
            raise _Refused(repr(full[:MAX_NAME]))
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
        self.append(_call(cls, arguments))

    def load_call(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = _call(self.stack[-1], arguments)

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _DType | _Array | _Object):
            raise _Refused(f"a change of {type(self.stack[-1]).__name__!r}")
        self.stack[-1].build(state)

    def load_bytearray8(self) -> None:
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    dispatch[pickle.REDUCE[0]] = dispatch[pickle.NEWOBJ[0]] = load_call
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


class _DType:
    """A numpy dtype: numbers, text or objects; no structured dtypes (they could hold false offsets)."""

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
    """A numpy array, empty until its state is read."""

    def __init__(self, *unused: Any) -> None:
        self.value = np.empty(0)

    def build(self, state: tuple) -> None:
        *_, shape, dtype, fortran, data = state
        self.value = _array(data, dtype, shape, "F" if fortran else "C")


class _Object:
    """A chumpy object or a sparse matrix: the name of its class and its attributes."""

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
        raise ValueError("an array with an impossible shape")
    kind = dtype.value
    if kind.hasobject:
        array = np.empty(len(data), kind)
        for i, item in enumerate(data):  # one by one, as numpy would look into lists
            array[i] = item
        return array.reshape(shape, order=order)
    if not isinstance(data, str | bytes | bytearray):
        raise ValueError(f"an array of {kind} made of {type(data).__name__}")
    data = bytearray(data, "latin1") if isinstance(data, str) else bytearray(data)
    array = np.frombuffer(data, kind) if data else np.empty(0, kind)  # both check the number of bytes
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


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """`value` with the stand-ins inside it replaced; what is shared in the file stays shared."""
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
        made = type(value)((_plain(key, done), _plain(item, done)) for key, item in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        made = type(value)(_plain(item, done) for item in value)
    elif isinstance(value, _Array):
        made = value.value
        if made.dtype.hasobject:
            made = np.empty(made.shape, object)
            for i, item in enumerate(value.value.flat):
                made[np.unravel_index(i, made.shape)] = _plain(item, done)
    elif isinstance(value, _Object):
        evaluate = _chumpy if value.name.startswith("chumpy") else _sparse
        made = evaluate(value.name, _plain(value.state, done))
    else:
        raise ValueError(f"{value.name} stands where data should")
    done[id(value)] = made
    return made


def _chumpy(name: str, state: dict[str, Any]) -> np.ndarray | NotRead:
    """The array of a chumpy container: `Ch` holds it, the others rearrange that of another container."""
    kind = name.rpartition(".")[2]
    source = state.get("x" if kind == "Ch" else "a")
    if kind not in ("Ch", "Select", "Reshape", "transpose") or isinstance(source, NotRead):
        return NotRead(name)
    if not isinstance(source, np.ndarray | np.number | float | int):
        raise ValueError(f"{name} without its array")
    source = np.asarray(source)
    if kind == "Select":
        chosen = source.ravel()[np.asarray(state["idxs"])]
        return chosen.reshape(state.get("preferred_shape", chosen.shape))
    if kind == "Reshape":
        return source.reshape(state["newshape"])
    return source.transpose(state.get("axes")) if kind == "transpose" else source


def _sparse(name: str, state: dict[str, Any]) -> Any:
    """A scipy matrix, every index of it checked: scipy's compiled code would follow them anywhere."""
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
    data, *indices = arrays
    if data.dtype.kind not in "biufc" or any(array.dtype.kind not in "iu" for array in indices):
        raise ValueError(f"{name} of {data.dtype} with indices of {indices[0].dtype}")
    if kind == "coo":
        return scipy.sparse.coo_matrix((data, tuple(indices)), shape=(rows, columns))
    make = scipy.sparse.csc_matrix if kind == "csc" else scipy.sparse.csr_matrix
    made = make((data, *indices), shape=(rows, columns))
    made.check_format(full_check=True)
    return made
