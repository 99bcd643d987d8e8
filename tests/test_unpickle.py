"""Pickles are read as data: what Python's own unpickling gives comes out, and nothing hostile ever runs."""

import os
import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from licensed_files import fake_chumpy, python2_pickle

from dpose.unpickle import NotRead, read_pickle


@pytest.fixture
def read(tmp_path):
    """Reads the bytes of a pickle by way of a file."""

    def read(data: bytes):
        file = tmp_path / "body.pkl"
        file.write_bytes(data)
        return read_pickle(file)

    return read


def same(ours, theirs) -> bool:
    if isinstance(theirs, np.ndarray) and theirs.dtype != object:
        theirs = theirs.astype(theirs.dtype.newbyteorder("="))
        return (
            ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()
        )
    if isinstance(theirs, np.ndarray):
        return ours.shape == theirs.shape and all(
            same(*pair) for pair in zip(ours.flat, theirs.flat, strict=True)
        )
    if isinstance(theirs, dict):
        return (
            type(ours) is type(theirs)
            and list(ours) == list(theirs)
            and all(same(ours[k], theirs[k]) for k in ours)
        )
    if isinstance(theirs, list | tuple):
        return type(ours) is type(theirs) and all(same(*pair) for pair in zip(ours, theirs, strict=True))
    if scipy.sparse.issparse(theirs):
        return ours.format == theirs.format and same(ours.toarray(), theirs.toarray())
    return type(ours) is type(theirs) and ours == theirs


def everything() -> dict:
    objects = np.empty((2, 2), object)
    objects.flat = [None, [1, 2], np.arange(3), {"a": (1.5, "b")}]
    return {
        "floats": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "big endian": np.arange(3, dtype=">u4"),
        "flags": np.array([True, False]),
        "complex": np.array([1 + 2j], dtype=np.complex64),
        "text": np.array(["ab", "c\xe9"]),
        "bytes": np.array([b"ab\xff", b""]),
        "none": np.zeros((0, 3), np.float32),
        "zero-dimensional": np.array(2.5),
        "objects": objects,
        "scalar": np.float32(0.5),
        "ordered": OrderedDict(b=1, a=[True, None, 2**70]),
        "set": {1, 2},
        "frozen": frozenset("xy"),
        "type": np.dtype("<f4"),
        "csc": scipy.sparse.csc_matrix(np.eye(3)),
        "csr": scipy.sparse.csr_matrix(np.array([[0, 2], [3, 0]])),
        "coo": scipy.sparse.coo_matrix(np.array([[0, 2], [3, 0.5]])),
    }


@pytest.mark.parametrize("protocol", range(6))
def test_what_python_3_wrote_comes_back(read, protocol):
    data = pickle.dumps(everything(), protocol)
    assert same(read(data), pickle.loads(data))


@pytest.mark.filterwarnings("ignore:Please import")  # Python's own unpickling follows scipy's old names
@pytest.mark.parametrize("protocol", range(3))
def test_what_python_2_wrote_comes_back_as_pythons_own_unpickling_has_it(read, protocol):
    content = {k: v for k, v in everything().items() if k != "frozen"} | {
        "a name": "M\xfcller",
        "blob": b"\x00\xff",
    }
    data = python2_pickle(content, protocol)
    assert b"__builtin__" in data and b"numpy.core.multiarray" in data and b"builtins\n" not in data
    assert same(read(data), pickle.loads(data, encoding="latin1"))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    array=st_numpy.arrays(
        st.one_of(st_numpy.integer_dtypes(), st_numpy.unsigned_integer_dtypes(), st_numpy.floating_dtypes()),
        st_numpy.array_shapes(min_dims=0, min_side=0, max_side=4),
    ),
    protocol=st.integers(0, 5),
)
def test_arrays_come_back_bit_for_bit(read, array, protocol):
    data = pickle.dumps(array, protocol)
    assert same(read(data), pickle.loads(data))


def test_shared_objects_stay_shared(read):
    array = np.arange(3.0)
    first, second = read(pickle.dumps([array, array]))
    assert first is second


@pytest.mark.parametrize("protocol", range(3))
def test_chumpys_containers_are_their_arrays(read, protocol):
    values = np.arange(24.0).reshape(2, 3, 4)
    indices = np.array([5, 0, 23, 1])
    with fake_chumpy() as make:
        held = make("ch.Ch", x=values)
        content = {
            "held": held,
            "nested": make("ch.Ch", x=held),
            "chosen": make("reordering.Select", a=held, idxs=indices, preferred_shape=(2, 2)),
            "flat": make("reordering.Select", a=held, idxs=indices),
            "shaped": make("reordering.Reshape", a=held, newshape=(6, -1)),
            "turned": make("reordering.transpose", a=held, axes=(2, 0, 1)),
            "sum": make("ch_ops.add", a=held, b=held),
            "of a sum": make("reordering.Reshape", a=make("ch_ops.add", a=held, b=held), newshape=3),
        }
        data = python2_pickle(content, protocol)
    got = read(data)
    assert same(got["held"], values) and same(got["nested"], values)
    assert got["chosen"].tolist() == [[5, 0], [23, 1]] and got["flat"].tolist() == [5, 0, 23, 1]
    assert same(got["shaped"], values.reshape(6, 4))
    assert (got["turned"] == values.transpose(2, 0, 1)).all()
    assert got["sum"] == NotRead("chumpy.ch_ops.add")
    assert got["of a sum"] == NotRead("chumpy.reordering.Reshape")


class Asks:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments, state)

    def __reduce__(self):
        return self.reduced


def by_name(module: str, name: str, *arguments, protocol: int = 2) -> bytes:
    """A pickle that calls `module.name(*arguments)`."""
    if protocol == 4:
        text = b"".join(pickle.SHORT_BINUNICODE + bytes([len(t)]) + t.encode() for t in (module, name))
        function = text + pickle.STACK_GLOBAL
    else:
        function = pickle.GLOBAL + f"{module}\n{name}\n".encode()
    packed = pickle.dumps(tuple(arguments), 2)[2:-1]
    return pickle.PROTO + bytes([protocol]) + function + packed + pickle.REDUCE + pickle.STOP


MARKER = "DPOSE_TEST_HOSTILE_PICKLE"
SETS_MARKER = f"import os; os.environ['{MARKER}'] = '1'"
HOSTILE = {
    "posix.system": by_name("posix", "system", f"touch {MARKER}"),
    "os.system": by_name("os", "system", f"touch {MARKER}", protocol=4),
    "subprocess.Popen": by_name("subprocess", "Popen", ["touch", MARKER]),
    "__builtin__.eval": by_name("__builtin__", "eval", f"exec({SETS_MARKER!r})"),
    "builtins.exec": by_name("builtins", "exec", SETS_MARKER, protocol=4),
    "builtins.getattr": by_name("builtins", "getattr", "", "format"),
    "builtins.__import__": by_name("builtins", "__import__", "antigravity"),
    "numpy.load": by_name("numpy", "load", "other.npy"),
    "numpy.lib.npyio.load": by_name("numpy.lib.npyio", "load", "other.npy"),
    "numpy.lib.format.open_memmap": by_name("numpy.lib.format", "open_memmap", MARKER, "w+"),
    "numpy.f2py.compile": by_name("numpy.f2py", "compile", "end"),
    "numpy.testing._private.utils.runstring": by_name(
        "numpy.testing._private.utils", "runstring", SETS_MARKER, {}
    ),
    "numpy.core.multiarray.fromfile": by_name("numpy.core.multiarray", "fromfile", "/etc/passwd"),
    "scipy.sparse.load_npz": by_name("scipy.sparse", "load_npz", "x.npz"),
    "numpy.dtype.__reduce__": by_name("numpy", "dtype.__reduce__", protocol=4),
    "chumpy.os.system": by_name("chumpy", "os.system", f"touch {MARKER}", protocol=4),
    "functools.partial": by_name("functools", "partial", print),
    "types.CodeType": by_name("types", "CodeType"),
    "operator.attrgetter": by_name("operator", "attrgetter", "__class__"),
    "pickle.loads": by_name("pickle", "loads", pickle.dumps(Asks(exec, SETS_MARKER))),
    "instance of os.system": b"(S'touch " + MARKER.encode() + b"'\nios\nsystem\n.",
    "object of os.system": b"(cos\nsystem\nS'touch " + MARKER.encode() + b"'\no.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_runs_nothing_and_the_message_names_what_it_asked_for(
    read, name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="refused") as refused:
        read(HOSTILE[name])
    message = str(refused.value)
    assert name.split()[-1] in message and "body.pkl" in message and "Nothing of it was run" in message
    assert not (tmp_path / MARKER).exists() and MARKER not in os.environ


def test_the_hostile_files_of_these_tests_would_run(tmp_path, monkeypatch):
    monkeypatch.setenv(MARKER, "0")
    pickle.loads(pickle.dumps(Asks(exec, SETS_MARKER)))
    assert os.environ[MARKER] == "1"


@pytest.mark.parametrize(
    "hide",
    [
        lambda bad: {"v_template": np.zeros(3), "f": [bad]},
        lambda bad: np.array([bad, 1], dtype=object),
        lambda bad: OrderedDict(a={"b": (bad,)}),
        lambda bad: Asks(np.dtype, bad),
        lambda bad: {bad: 1},
    ],
)
def test_a_hostile_object_is_refused_wherever_it_hides(read, hide):
    with pytest.raises(ValueError, match=r"refused.*builtins\.exec"):
        read(pickle.dumps(hide(Asks(exec, SETS_MARKER)), 4))
    assert MARKER not in os.environ


def global_(module, name):
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


NONE, TUPLE1, EMPTY = pickle.NONE, pickle.TUPLE1, pickle.EMPTY_TUPLE


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"Phandle\n.", "an object kept outside the file"),
        (NONE + pickle.BINPERSID + b".", "an object kept outside the file"),
        (
            global_("numpy", "ndarray") + pickle.BININT + b"\xff\xff\xff\x7f" + TUPLE1 + pickle.REDUCE + b".",
            "bare type",
        ),
        (global_("numpy", "dtype") + pickle.EMPTY_DICT + pickle.BUILD + b".", "a change of '_Known'"),
        (pickle.EMPTY_LIST + pickle.EMPTY_DICT + pickle.BUILD + b".", "a change of 'list'"),
        (NONE + EMPTY + pickle.REDUCE + b".", "a call of 'NoneType'"),
        (NONE + EMPTY + pickle.NEWOBJ + b".", "a call of 'NoneType'"),
        (by_name("numpy", "dtype", "V8"), "an array of type 'V8'"),
        (by_name("_codecs", "encode", "x", "rot13"), "the encoding 'rot13'"),
        (pickle.dumps(np.zeros(2, [("a", "O")])), "an array of "),
    ],
)
def test_tricks_of_the_format_are_refused(read, data, message):
    with pytest.raises(ValueError, match=f"refused.*{message}"):
        read(data)


def array_state(shape, code="f8", data=b"", data_op=None, dtype=None) -> bytes:
    """A pickle of an array that claims what it likes."""
    make = global_("numpy.core.multiarray", "_reconstruct") + global_("numpy", "ndarray")
    make += pickle.dumps((0,), 2)[2:-1] + pickle.dumps("b", 2)[2:-1] + pickle.TUPLE3 + pickle.REDUCE
    dtype = dtype or global_("numpy", "dtype") + pickle.dumps((code, False, True), 2)[2:-1] + pickle.REDUCE
    state = pickle.MARK + pickle.BININT1 + b"\x01" + pickle.dumps(shape, 2)[2:-1] + dtype + pickle.NEWFALSE
    packed = data_op or pickle.BINSTRING + struct.pack("<i", len(data)) + data
    return pickle.PROTO + b"\x02" + make + state + packed + pickle.TUPLE + pickle.BUILD + pickle.STOP


def wide_tuples(depth: int) -> bytes:
    """A tuple of twenty times the same tuple, and so on."""
    level = pickle.BINPUT + b"\0" + pickle.POP + pickle.MARK + (pickle.BINGET + b"\0") * 20 + pickle.TUPLE
    return pickle.NONE + TUPLE1 + level * depth


def test_tuples_in_tuples_are_read_as_far_as_files_have_them(read):
    content = {(1, (2, (3, ((), "x")))): [((((),),),)] * 1000, "": tuple(range(1000))}
    assert read(pickle.dumps(content)) == content


def test_the_claims_below_are_read_when_they_are_true(read):
    assert read(array_state((2,), data=struct.pack("<2d", 1, 2))).tolist() == [1, 2]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a pickle",
        pickle.dumps(everything())[:-40],
        python2_pickle(everything())[:300],
        array_state((10**12,), data=b"12345678"),  # more numbers than bytes
        array_state((2**62, 4), data=b"12345678"),
        array_state((-1,), data=b"12345678"),
        array_state((10**12,), "S0"),
        array_state((1,), data_op=pickle.LONG1 + b"\x06" + (10**12).to_bytes(6, "little")),
        array_state((10**12,), "O8", data_op=pickle.EMPTY_LIST),
        array_state((1,), "O8", data=b"12345678"),  # eight bytes that numpy would take for a pointer
        pickle.BINBYTES8 + (2**62).to_bytes(8, "little") + b"x.",
        pickle.BYTEARRAY8 + (2**40).to_bytes(8, "little") + b"x.",
        pickle.BINSTRING + struct.pack("<i", 2**31 - 1) + b"x.",
        pickle.EXT1 + b"\x01.",
        pickle.EMPTY_LIST + pickle.BINPUT + b"\0" + pickle.BINGET + b"\0" + pickle.APPEND + b".",  # in itself
        pickle.EMPTY_TUPLE + pickle.TUPLE1 * 100_000 + b".",
        pickle.EMPTY_DICT + EMPTY + TUPLE1 * 200_000 + NONE + pickle.SETITEM + b".",  # Python would crash
        pickle.PROTO
        + b"\x04"
        + pickle.EMPTY_SET
        + pickle.MARK
        + EMPTY
        + TUPLE1 * 200_000
        + pickle.ADDITEMS
        + b".",
        pickle.EMPTY_DICT
        + (pickle.DUP + pickle.TUPLE2).join([EMPTY] + [b""] * 60)
        + NONE
        + pickle.SETITEM
        + b".",
        pickle.EMPTY_DICT + wide_tuples(12) + NONE + pickle.SETITEM + b".",  # 20 to the 12th items to hash
        global_("numpy", "ndarray") + b".",
    ],
)
def test_damage_and_false_claims_end_in_one_message(read, data):
    with pytest.raises(ValueError, match=r"body.pkl: no pickle, or damaged or cut off \("):
        read(data)


LEVEL = pickle.BINPUT + b"\0" + pickle.POP + pickle.EMPTY_LIST + pickle.MARK + (pickle.BINGET + b"\0") * 2
TOWER = pickle.EMPTY_LIST + (LEVEL + pickle.APPENDS) * 22  # lists of lists: sixteen megabytes to write out


@pytest.mark.parametrize(
    "data",
    [
        array_state((1,), data=b"12345678", dtype=TOWER),
        global_("_codecs", "encode") + NONE + TOWER + pickle.TUPLE2 + pickle.REDUCE + b".",
        global_("a" * 10**6, "b") + b".",
        by_name("numpy", "dtype", "f" * 10**6),
        pickle.INT + b"x" * 10**6 + b"\n.",
    ],
)
def test_a_message_quotes_little_of_a_file(read, data):
    with pytest.raises(ValueError) as caught:
        read(data)
    assert len(str(caught.value)) < 600


def test_a_file_of_torch_tensors_is_refused_with_advice_for_whoever_saved_it(read):
    import torch

    data = pickle.dumps({"v_template": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"refused.*torch\._utils\._rebuild_tensor.*numpy arrays"):
        read(data)


def test_a_place_in_the_memo_far_out_costs_nothing(read):
    assert read(NONE + pickle.LONG_BINPUT + struct.pack("<I", 2**32 - 1) + b".") is None


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (scipy.sparse.csc_matrix, {"indices": np.array([0, 99, 2])}),
        (scipy.sparse.csc_matrix, {"indices": np.array([0, -5, 2])}),
        (scipy.sparse.csr_matrix, {"indptr": np.array([0, 2, 1, 3])}),
        (scipy.sparse.csr_matrix, {"indptr": np.array([0, 1, 2, 300])}),
        (scipy.sparse.csr_matrix, {"_shape": (10**9, 3)}),
        (scipy.sparse.csr_matrix, {"indices": np.array([0.0, 1.0, 2.0])}),
        (scipy.sparse.csr_matrix, {"data": np.array([None] * 3)}),
        (scipy.sparse.coo_matrix, {"coords": (np.array([0, 1, 7]), np.array([0, 1, 2]))}),
        (scipy.sparse.coo_matrix, {"coords": (np.array([0, 1, -1]), np.array([0, 1, 2]))}),
    ],
)
def test_sparse_matrices_whose_indices_lead_outside_are_damaged(read, make, change):
    matrix = make(np.eye(3))
    matrix.__dict__.update(change)
    with pytest.raises(ValueError, match="damaged"):
        read(pickle.dumps(matrix))


def test_a_sparse_matrix_of_old_scipy_is_read(read):
    matrix = scipy.sparse.coo_matrix(np.diag([1.0, 2, 3]))
    matrix.__dict__.update(row=matrix.row, col=matrix.col, format="coo")
    state = {k: v for k, v in matrix.__dict__.items() if k != "coords"}
    got = read(python2_pickle(Asks(type(matrix), state=state)))
    assert same(got.toarray(), np.diag([1.0, 2, 3]))


def test_a_selection_beyond_its_array_is_damage(read):
    with fake_chumpy() as make:
        data = python2_pickle(make("reordering.Select", a=np.zeros(3), idxs=np.array([7])))
    with pytest.raises(ValueError, match="damaged"):
        read(data)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    protocol=st.integers(0, 5),
    changes=st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_a_file_with_some_bytes_changed_is_read_or_ends_in_one_message(read, protocol, changes):
    data = bytearray(pickle.dumps(everything(), protocol))
    for place, byte in changes:
        data[place % len(data)] = byte
    try:
        read(bytes(data))
    except ValueError as error:
        assert "body.pkl: " in str(error)
