"""The licensed body files as they are downloaded: their names, where they are found, and reading them.

They may not be redistributed, so each user registers and downloads them (`LICENSED` has the addresses). They
are found below $DPOSE_BODY_MODELS where the archives unpack to, or where the smplx package expects them.
All that is read is checked: a damaged body model would only appear as wrong results.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from dpose.paths import BODY_MODELS_VARIABLE, body_models, not_empty
from dpose.skeleton import PARENTS, SMPL_PARENTS
from dpose.unpickle import NotRead, read_pickle

GENDERS = ("neutral", "male", "female")
SMPL_VERTICES, SMPLX_VERTICES = 6890, 10475
DEPTH = 4  # levels of folders that are searched; BEDLAM has data/body_models/smplx/models/smplx


class Licensed(NamedTuple):
    """A file that may not be redistributed: its published names, preferred first, its use and its source."""

    title: str
    names: tuple[str, ...]
    use: str
    source: str


_BEDLAM = "utils.zip at https://bedlam.is.tue.mpg.de (register there)"
_SPIN = "in http://visiondata.cis.upenn.edu/spin/data.tar.gz (no registration)"


def _smplx(gender: str) -> Licensed:
    neutral = "the paper's body: training and evaluation with BEDLAM, AGORA and the authors' checkpoint"
    return Licensed(
        f"SMPL-X {gender}",
        (f"SMPLX_{gender.upper()}.npz", f"SMPLX_{gender.upper()}.pkl"),
        neutral if gender == "neutral" else "ground truth of RICH",
        "https://smpl-x.is.tue.mpg.de (register; models_smplx_v1_1.zip)",
    )


def _smpl(gender: str) -> Licensed:
    short = {"neutral": "neutral", "male": "m", "female": "f"}[gender]
    old = "basicmodel" if gender == "male" else "basicModel"
    official = (f"basicmodel_{short}_lbs_10_207_0_v1.1.0.pkl", f"{old}_{short}_lbs_10_207_0_v1.0.0.pkl")
    version_1_0 = "; of v1.0.0, at https://smplify.is.tue.mpg.de" if gender == "neutral" else " or v.1.0.0"
    return Licensed(
        f"SMPL {gender}",
        (f"SMPL_{gender.upper()}.pkl", f"SMPL_{gender.upper()}.npz", *official),
        "SMPL's joints, for RICH's protocol" if gender == "neutral" else "ground truth of 3DPW and EMDB",
        f"https://smpl.is.tue.mpg.de (register; SMPL_python_v.1.1.0.zip{version_1_0})",
    )


LICENSED = {
    **{f"smplx-{gender}": _smplx(gender) for gender in GENDERS},
    **{f"smpl-{gender}": _smpl(gender) for gender in GENDERS},
    "smplx2smpl": Licensed(
        "SMPL-X to SMPL",
        ("smplx2smpl.pkl", "smplx_to_smpl.pkl"),
        "predictions as SMPL vertices: evaluation on 3DPW, EMDB and RICH",
        f"{_BEDLAM}, or model_transfer.zip at https://smpl-x.is.tue.mpg.de",
    ),
    "h36m": Licensed(
        "Human3.6M joints",
        ("J_regressor_h36m.npy",),
        "the 14 joints by which 3DPW and EMDB are scored",
        f"{_BEDLAM}, or {_SPIN}",
    ),
}


def find(key: str, folder: str | Path) -> Path | None:
    """The path of a licensed file below a folder, or None.

    Searched in this order: `smplx/` or `smpl/`, where the smplx package expects the models; the folder
    itself; then its subfolders, level by level, `DEPTH` deep. Within a folder the names of `LICENSED[key]`
    are tried in order.
    """
    places = [f"{key.split('-')[0]}/", *("*/" * depth for depth in range(DEPTH + 1))]
    for place in places:
        for name in LICENSED[key].names:
            name = re.sub("basic[mM]odel", "basic[mM]odel", name)  # both spellings are published
            if files := sorted(path for path in Path(folder).glob(place + name) if path.is_file()):
                return files[0]
    return None


def key_of(path: str | Path) -> str | None:
    """The name of the body model whose published file name this is, among `LICENSED`, or None."""
    name = Path(path).name.lower()
    return next((key for key in LICENSED if "-" in key and name in map(str.lower, LICENSED[key].names)), None)


def locate(key: str, folder: str | Path | None = None) -> Path:
    """As `find`, below $DPOSE_BODY_MODELS by default.

    Raises FileNotFoundError; the message names file, folder and download address.
    """
    root, wanted = body_models(folder), LICENSED[key]
    if root and (path := find(key, root)):
        return path
    where = f"under {root}, up to {DEPTH} folders deep" if root else f"as {BODY_MODELS_VARIABLE} is not set"
    raise FileNotFoundError(
        f"{wanted.title} is missing ({' or '.join(wanted.names)}; none {where}). It is not part of dpose: "
        f"get it from {wanted.source} and set {BODY_MODELS_VARIABLE} to the folder that you unpack it to; "
        "`dpose doctor` lists what is found"
    )


class _Wrong(Exception):
    """A fault of a file; completes "... is not a body model: "."""


def read_body(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a SMPL-X or SMPL model, .npz or .pkl, checked.

    Returns v_template (V, 3) and shapedirs (V, 3, betas) in metres, posedirs (V, 3, 9 (J - 1)), J_regressor
    (J, V), weights (V, J), kintree_table (2, J), f (F, 3), for J = 55 (SMPL-X) or 24 (SMPL).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a body model, damaged, or a pickle with code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no body model at {path}: give a SMPL-X or SMPL file, a name such as smplx-neutral, or none to "
            "use the open body"
        )
    keys = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
    try:
        return _checked_body(_content(path, keys))
    except _Wrong as wrong:
        raise ValueError(f"{path} is not a SMPL-X or SMPL body model: {wrong}") from None


def read_smplx_to_smpl(path: str | Path | None = None) -> scipy.sparse.csr_matrix:
    """The matrix (6890, 10475), float64, that turns SMPL-X vertices into SMPL vertices.

    path: the file; None: `locate("smplx2smpl")`. Raises as `read_body`.
    """
    path = locate("smplx2smpl") if path is None else Path(not_empty(path, "smplx_to_smpl"))
    try:
        content = _content(path, ("matrix",))
        matrix = _array(content, "matrix", (SMPL_VERTICES, SMPLX_VERTICES), sparse=True)
    except _Wrong as wrong:
        raise ValueError(f"{path} is not the matrix from SMPL-X to SMPL vertices: {wrong}") from None
    matrix = scipy.sparse.csr_matrix(matrix, dtype=np.float64)
    matrix.eliminate_zeros()
    return matrix


def read_h36m_regressor(path: str | Path | None = None) -> np.ndarray:
    """The matrix (17, 6890), float64, that turns SMPL vertices into Human3.6M joints.

    path: the file; None: `locate("h36m")`. Raises as `read_body`.
    """
    path = locate("h36m") if path is None else Path(not_empty(path, "regressor"))
    try:
        content = {"regressor": np.load(path, allow_pickle=False)}
        return _array(content, "regressor", (17, SMPL_VERTICES)).astype(np.float64)
    except OSError:
        raise
    except (_Wrong, ValueError, EOFError, MemoryError) as wrong:
        raise ValueError(f"{path} is not the joint regressor of Human3.6M: {wrong}") from None


def _content(path: Path, keys: tuple[str, ...]) -> Mapping[str, Any]:
    """A file's values of these keys. Members with pickled objects are not read."""
    with open(path, "rb") as file:
        zipped = file.read(2) == b"PK"
    if zipped:
        try:
            with np.load(path, allow_pickle=False) as npz:
                content = {key: npz[key] for key in keys if key in npz}
                held = npz.files
        except Exception as error:  # zipfile, zlib and numpy raise many kinds
            if "allow_pickle" in str(error):
                raise _Wrong("an array has pickled objects, which are not read, instead of numbers") from None
            raise _Wrong(f"damaged or cut off ({error})") from None
    elif path.suffix.lower() == ".pkl":
        content = read_pickle(path)
        if not isinstance(content, Mapping):
            raise _Wrong(f"its pickle holds {type(content).__name__}, not a dictionary")
        held = [key[:40] for key in content if isinstance(key, str)]
    else:
        raise _Wrong("it is neither an .npz archive nor a .pkl")
    if missing := [key for key in keys if key not in content]:
        raise _Wrong(f"keys {missing} are missing (it has {', '.join(held[:12]) or 'none'})")
    return content


def _array(content: Mapping[str, Any], key: str, shape: tuple[int | None, ...], sparse: bool = False) -> Any:
    """An array of finite numbers and of the expected shape, where None is any length.

    sparse: whether it may be a sparse matrix. Only where the shape is bounded: an empty sparse matrix of any
    size is a small file, and fills the memory when it is made dense.
    """
    array = content[key]
    is_sparse = scipy.sparse.issparse(array)
    if isinstance(array, NotRead):
        raise _Wrong(f"{key} is an expression ({array.name}), which is not evaluated")
    if not isinstance(array, np.ndarray) and not (is_sparse and sparse):
        raise _Wrong(f"{key} is {type(array).__name__}, expected an array")
    if len(array.shape) != len(shape) or any(
        wanted not in (None, got) for got, wanted in zip(array.shape, shape, strict=True)
    ):
        raise _Wrong(f"{key} has shape {array.shape}, expected {shape}")
    if array.dtype.kind not in "biuf":
        raise _Wrong(f"{key} holds {array.dtype}, not numbers")
    if not np.isfinite(array.data if is_sparse else array).all():
        raise _Wrong(f"{key} has values that are not finite")
    return array


def _checked_body(content: Mapping[str, Any]) -> dict[str, np.ndarray]:
    vertices = _array(content, "v_template", (None, 3)).shape[0]
    joints = _array(content, "kintree_table", (2, None)).shape[1]
    trees = {len(tree): tree for tree in (PARENTS, SMPL_PARENTS)}
    if joints not in trees:
        raise _Wrong(f"it has {joints} joints; SMPL-X has 55, SMPL 24")
    shapes = {
        "v_template": (vertices, 3),
        "shapedirs": (vertices, 3, None),
        "posedirs": (vertices, 3, 9 * (joints - 1)),
        "J_regressor": (joints, vertices),
        "weights": (vertices, joints),
        "kintree_table": (2, joints),
        "f": (None, 3),
    }
    arrays = {key: _array(content, key, shape, key == "J_regressor") for key, shape in shapes.items()}
    if scipy.sparse.issparse(arrays["J_regressor"]):
        arrays["J_regressor"] = arrays["J_regressor"].toarray()
    if arrays["kintree_table"][0, 1:].tolist() != list(trees[joints][1:]):
        raise _Wrong("kintree_table holds another joint tree")
    faces = arrays["f"]
    if vertices == 0 or len(faces) == 0:
        raise _Wrong(f"it has {vertices} vertices and {len(faces)} faces")
    if faces.dtype.kind not in "iu":
        raise _Wrong(f"f holds {faces.dtype}, not integers")
    if faces.min() < 0 or faces.max() >= vertices:
        raise _Wrong(f"f names vertices outside its {vertices}")
    if (off := abs(arrays["weights"].sum(1) - 1).max()) > 0.01:
        raise _Wrong(f"the weights of each vertex must sum to 1, and are up to {off:.2g} off")
    return arrays
