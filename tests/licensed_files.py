"""Small files in the formats of the licensed ones, as Python 2, chumpy and old versions of scipy wrote them.

`python2_pickle` is Python's own pickler, changed to write what Python 2.7 wrote; chumpy's objects come from
modules that exist while it writes. So the tests need neither.
"""

import io
import pickle
import struct
import sys
import types
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import scipy.sparse

from dpose.skeleton import PARENTS

OLD_NAMES = {
    "numpy._core.multiarray": "numpy.core.multiarray",
    "scipy.sparse._csc": "scipy.sparse.csc",
    "scipy.sparse._csr": "scipy.sparse.csr",
    "scipy.sparse._coo": "scipy.sparse.coo",
    "builtins": "__builtin__",
    "copyreg": "copy_reg",
}


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes as `str` of Python 2, and classes under the names that they had there."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_str2(self, obj):
        data = obj.encode("latin1") if isinstance(obj, str) else bytes(obj)
        if self.bin:
            self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        else:
            text = "".join(chr(b) if 32 <= b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in data)
            self.write(pickle.STRING + f"'{text}'\n".encode())
        self.memoize(obj)

    def save_global(self, obj, name=None):
        module = getattr(obj, "__module__", None) or "builtins"
        name = name or obj.__qualname__
        self.write(pickle.GLOBAL + f"{OLD_NAMES.get(module, module)}\n{name}\n".encode())
        self.memoize(obj)

    dispatch[str] = dispatch[bytes] = save_str2
    dispatch[type] = dispatch[types.FunctionType] = dispatch[types.BuiltinFunctionType] = save_global


def python2_pickle(content, protocol: int = 2) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol).dump(content)
    return file.getvalue()


@contextmanager
def fake_chumpy():
    """Modules `chumpy.*` whose classes pickle as chumpy's do; yields a function that makes their objects."""
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "chumpy"}

    def make(name: str, **attributes):
        module_name, _, class_name = f"chumpy.{name}".rpartition(".")
        module = sys.modules.setdefault(module_name, types.ModuleType(module_name))
        if not hasattr(module, class_name):
            setattr(module, class_name, type(class_name, (), {"__module__": module_name}))
        made = object.__new__(getattr(module, class_name))
        made.__dict__.update(attributes)
        made.__dict__.update(_dirty_vars={"x"}, _itr=None, _depends_on_deps={}, _make_dense=False)
        return made

    try:
        sys.modules["chumpy"] = types.ModuleType("chumpy")
        yield make
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "chumpy"]:
            del sys.modules[name]
        sys.modules.update(kept)


def body_arrays(joints: int = 55, vertices: int = 40, columns: int = 20, seed: int = 0) -> dict:
    """Random arrays under the keys of a body model of 55 (SMPL-X) or 24 joints (SMPL)."""
    rng = np.random.default_rng(seed)
    weights = rng.random((vertices, joints)) ** 8
    regressor = scipy.sparse.random_array((joints, vertices), density=0.3, rng=rng).toarray()
    regressor[np.arange(joints), rng.integers(0, vertices, joints)] += 0.2
    parents = PARENTS if joints == 55 else (*PARENTS[:22], 20, 21)
    return {
        "v_template": rng.normal(size=(vertices, 3), scale=0.3),
        "shapedirs": 0.02 * rng.normal(size=(vertices, 3, columns)),
        "posedirs": 0.002 * rng.normal(size=(vertices, 3, 9 * (joints - 1))),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": (np.array([parents, range(joints)]) % 2**32).astype(np.uint32),
        "f": rng.integers(0, vertices, (60, 3)).astype(np.uint32),
    }


def smplx_extras() -> dict:
    """What a SMPL-X file holds besides, objects among it."""
    names, ragged = np.empty((), object), np.empty(3, object)
    names[()] = {"Pelvis": 0, "L_Hip": 1}
    for i in range(3):
        ragged[i] = np.full((i + 1, 3), float(i))
    return {
        "joint2num": names,
        "part2num": names,
        "dynamic_lmk_bary_coords": ragged,
        "hands_meanl": np.zeros(45),
        "hands_componentsl": np.eye(45),
        "lmk_faces_idx": np.arange(51),
    }


def write_smplx_npz(path: Path, arrays: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays | smplx_extras())
    return path


def write_smplx_pkl(path: Path, arrays: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(python2_pickle(arrays | smplx_extras()))
    return path


def write_smpl_pkl(path: Path, arrays: dict, version: str = "1.0.0") -> Path:
    """SMPL as downloaded. In 1.0.0 most arrays are `Ch`; in 1.1.0 the shape directions are a selection."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with fake_chumpy() as make:
        chumpy = {k: make("ch.Ch", x=arrays[k]) for k in ("v_template", "weights", "posedirs", "shapedirs")}
        if version == "1.1.0":
            directions = arrays["shapedirs"]
            more = np.concatenate([directions, np.ones_like(directions)], axis=2)
            chosen = np.arange(more.size).reshape(more.shape)[:, :, : directions.shape[2]].ravel()
            chumpy["shapedirs"] = make(
                "reordering.Select",
                a=make("ch.Ch", x=more),
                idxs=chosen,
                preferred_shape=directions.shape,
            )
        content = {
            **arrays,
            **chumpy,
            "J_regressor": scipy.sparse.csc_matrix(arrays["J_regressor"]),
            "J_regressor_prior": scipy.sparse.csc_matrix(arrays["J_regressor"]),
            "weights_prior": arrays["weights"],
            "J": make("reordering.transpose", a=make("ch_ops.add", a=chumpy["v_template"], b=1), axes=None),
            "bs_style": "lbs",
            "bs_type": "lrotmin",
            "vert_sym_idxs": np.arange(len(arrays["v_template"])),
            "pose_training_info": {"ssmpl.trainer": "M\xfcller", "gender": "m", "steps": np.float64(3)},
        }
        path.write_bytes(python2_pickle(content))
    return path
