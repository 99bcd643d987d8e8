"""The licensed body files, as downloaded: found in every layout, read in every format, checked, never run."""

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import roma
import scipy.sparse
import torch
from licensed_files import (
    body_arrays,
    fake_chumpy,
    python2_pickle,
    write_smpl_pkl,
    write_smplx_npz,
    write_smplx_pkl,
)
from smplx.lbs import lbs

from dpose.body import Body, files, load_body
from dpose.body.files import (
    find,
    locate,
    read_body,
    read_h36m_regressor,
    read_smplx_to_smpl,
)
from dpose.skeleton import PART_NAMES


def random_input(batch: int, rotations: int, num_betas: int = 11) -> dict:
    generator = torch.Generator().manual_seed(1)
    rotvec = 0.7 * torch.randn(batch, rotations, 3, generator=generator)
    return {
        "betas": torch.randn(batch, num_betas, generator=generator),
        "rotations": roma.rotvec_to_rotmat(rotvec),
        "trans": torch.randn(batch, 3, generator=generator),
    }


def write_smpl_npz(path: Path, arrays: dict) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("joints", "name", "write"),
    [
        (55, "SMPLX_MALE.npz", write_smplx_npz),
        (55, "SMPLX_MALE.pkl", write_smplx_pkl),
        (24, "basicModel_f_lbs_10_207_0_v1.0.0.pkl", write_smpl_pkl),
        (24, "SMPL_NEUTRAL.pkl", lambda path, arrays: write_smpl_pkl(path, arrays, "1.1.0")),
        (24, "SMPL_NEUTRAL.npz", write_smpl_npz),
    ],
)
def test_every_format_gives_the_arrays_that_went_in(tmp_path, joints, name, write):
    arrays = body_arrays(joints)
    got = read_body(write(tmp_path / name, arrays))
    assert got.keys() == arrays.keys()
    for key, array in arrays.items():
        assert isinstance(got[key], np.ndarray) and (got[key] == array).all(), key


def test_a_licensed_pickle_loads_where_chumpy_is_not_installed(tmp_path, monkeypatch):
    file = write_smpl_pkl(tmp_path / "SMPL_MALE.pkl", body_arrays(24))
    for name in ("chumpy", "chumpy.ch"):  # also where it is
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match="chumpy"):  # what the usual way makes of it
        pickle.loads(file.read_bytes(), encoding="latin1")
    assert load_body(file).num_rotations == 24


def test_a_smplx_pickle_and_archive_pose_alike(tmp_path):
    arrays = body_arrays()
    archive = load_body(write_smplx_npz(tmp_path / "SMPLX_NEUTRAL.npz", arrays))
    pickled = load_body(write_smplx_pkl(tmp_path / "SMPLX_NEUTRAL.pkl", arrays))
    given = random_input(2, 22)
    hands = roma.random_rotmat((2, 30))
    for wanted, got in zip(archive(**given, hands=hands), pickled(**given, hands=hands), strict=True):
        assert torch.equal(wanted, got) and wanted.isfinite().all()
    assert torch.equal(archive.faces, pickled.faces)
    assert torch.equal(archive.part_of_vertex, pickled.part_of_vertex)


@pytest.mark.parametrize(("columns", "held"), [(10, 10), (300, 11)])
def test_smpl_poses_as_smplxs_own_skinning_does(tmp_path, columns, held):
    arrays = body_arrays(24, columns=columns)
    body = load_body(write_smpl_pkl(tmp_path / "SMPL_MALE.pkl", arrays, "1.1.0")).double()
    given = {name: value.double() for name, value in random_input(3, 24).items()}
    tensors = {name: torch.as_tensor(array.astype(np.float64)) for name, array in arrays.items()}
    vertices, joints = lbs(
        given["betas"][:, :held],
        given["rotations"],
        tensors["v_template"][None],
        tensors["shapedirs"][:, :, :held],
        tensors["posedirs"].reshape(-1, 207).T,
        tensors["J_regressor"],
        torch.tensor([-1, *arrays["kintree_table"][0, 1:].astype(int)]),
        tensors["weights"],
        pose2rot=False,
    )
    got = body(**given)
    assert got.joints.shape == (3, 24, 3)
    assert (got.vertices - vertices - given["trans"][:, None]).abs().max() < 1e-5
    assert (got.joints - joints - given["trans"][:, None]).abs().max() < 1e-5


def test_smpls_hands_belong_to_the_wrists_parts_and_have_no_fingers():
    arrays = body_arrays(24)
    arrays["weights"] = np.zeros((40, 24))
    arrays["weights"][np.arange(40), np.arange(40) % 24] = 1
    body = Body(arrays)
    assert PART_NAMES[body.part_of_vertex[22]] == "left_wrist"
    assert PART_NAMES[body.part_of_vertex[23]] == "right_wrist"
    assert body.part_of_vertex[:22].tolist() == list(range(22))
    with pytest.raises(ValueError, match="no fingers"):
        body(**random_input(1, 24), hands=torch.zeros(1, 30, 3, 3))
    with pytest.raises(ValueError, match=r"rotations as .matrix. must have shape \(B, 24, 3, 3\)"):
        body(**random_input(1, 22))


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("smplx-neutral", "SMPLX_NEUTRAL.npz"),
        ("smplx-neutral", "smplx/SMPLX_NEUTRAL.npz"),
        ("smplx-male", "smplx/SMPLX_MALE.pkl"),
        ("smplx-female", "models_smplx_v1_1/models/smplx/SMPLX_FEMALE.npz"),
        ("smplx-neutral", "body_models/smplx/models/smplx/SMPLX_NEUTRAL.npz"),  # BEDLAM's data folder
        ("smpl-neutral", "smpl/SMPL_NEUTRAL.pkl"),
        ("smpl-male", "SMPL_python_v.1.0.0/smpl/models/basicmodel_m_lbs_10_207_0_v1.0.0.pkl"),
        ("smpl-female", "SMPL_python_v.1.0.0/smpl/models/basicModel_f_lbs_10_207_0_v1.0.0.pkl"),
        ("smpl-female", "SMPL_python_v.1.1.0/smpl/models/basicmodel_f_lbs_10_207_0_v1.1.0.pkl"),
        ("smpl-neutral", "SMPL_python_v.1.1.0/smpl/models/basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl"),
        ("smpl-neutral", "smplify_public/code/models/basicModel_neutral_lbs_10_207_0_v1.0.0.pkl"),
        ("smplx2smpl", "utils/smplx2smpl.pkl"),
        ("smplx2smpl", "model_transfer/smplx_to_smpl.pkl"),
        ("h36m", "data/J_regressor_h36m.npy"),
    ],
)
def test_files_are_found_where_the_downloads_unpack_to(tmp_path, key, place):
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).touch()
    assert find(key, tmp_path) == tmp_path / place == locate(key, tmp_path)
    assert [other for other in files.LICENSED if find(other, tmp_path)] == [key]


def test_the_files_that_macos_adds_to_archives_are_ignored(tmp_path):
    place = tmp_path / "__MACOSX/smpl/models/._basicModel_f_lbs_10_207_0_v1.0.0.pkl"
    place.parent.mkdir(parents=True)
    place.touch()
    assert find("smpl-female", tmp_path) is None


def test_the_smplx_packages_folder_comes_before_the_nearest_folder_and_the_preferred_name(tmp_path):
    order = [
        "smplx/SMPLX_NEUTRAL.npz",
        "smplx/SMPLX_NEUTRAL.pkl",
        "SMPLX_NEUTRAL.npz",
        "SMPLX_NEUTRAL.pkl",
        "a/SMPLX_NEUTRAL.pkl",
        "b/SMPLX_NEUTRAL.pkl",
        "a/b/SMPLX_NEUTRAL.npz",
    ]
    for place in order:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    for place in order:
        assert find("smplx-neutral", tmp_path) == tmp_path / place
        (tmp_path / place).unlink()
    assert find("smplx-neutral", tmp_path) is None


def test_a_missing_file_is_named_with_its_source_and_where_it_was_searched_for(tmp_path, monkeypatch):
    monkeypatch.delenv("DPOSE_BODY_MODELS", raising=False)
    with pytest.raises(
        FileNotFoundError, match=r"J_regressor_h36m\.npy; none as DPOSE_BODY_MODELS is not set.*spin"
    ):
        read_h36m_regressor()
    monkeypatch.setenv("DPOSE_BODY_MODELS", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=rf"smplx2smpl\.pkl.*{tmp_path}.*https://bedlam\.is\.tue\.mpg\.de"
    ):
        read_smplx_to_smpl()
    with pytest.raises(FileNotFoundError, match=r"SMPLX_MALE\.npz.*https://smpl-x\.is\.tue\.mpg\.de"):
        load_body("smplx-male")
    with pytest.raises(FileNotFoundError, match=r"basicmodel_f_.*https://smpl\.is\.tue\.mpg\.de"):
        locate("smpl-female")


def test_a_file_is_read_as_it_is_named_and_never_in_place_of_the_folder(tmp_path, monkeypatch):
    file = write_smplx_npz(tmp_path / "SMPLX_NEUTRAL.npz", body_arrays())
    for other in ("a body.NPZ", "body"):
        assert load_body(file.rename(tmp_path / other)).num_vertices == 40
        file = tmp_path / other
    with pytest.raises(FileNotFoundError, match=f"{tmp_path / 'no folder'}"):
        load_body(tmp_path / "no folder")
    file = file.rename(tmp_path / "SMPLX_NEUTRAL.npz")
    monkeypatch.setenv("DPOSE_BODY_MODELS", str(file))
    for name in ("smplx-male", "smplx-neutral"):  # a file is no folder of files
        with pytest.raises(FileNotFoundError, match=r"SMPLX_\w+\.npz.*DPOSE_BODY_MODELS"):
            load_body(name)


BY_VERTEX = ("v_template", "shapedirs", "posedirs", "weights")


def changed(joints: int = 55, **changes) -> dict:
    arrays = body_arrays(joints) | changes
    return {key: array for key, array in arrays.items() if array is not None}


@pytest.mark.parametrize("write", [write_smplx_npz, write_smplx_pkl])
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (changed(weights=None, f=None), r"keys \['weights', 'f'\] are missing \(it has v_template"),
        (
            changed(posedirs=np.zeros((40, 3, 207))),
            r"posedirs has shape \(40, 3, 207\), expected \(40, 3, 486\)",
        ),
        (changed(v_template=np.zeros(40)), "v_template has shape"),
        (changed(v_template=np.full((40, 3), np.nan)), "v_template has values that are not finite"),
        (changed(f=np.array([[0, 1, 40]])), "f names vertices outside its 40"),
        (changed(f=np.array([[0, -1, 4]])), "f names vertices"),
        (changed(f=np.array([[0.0, 1.0, 4.0]])), "f holds float64"),
        (changed(f=np.zeros((0, 3), int)), "it has 40 vertices and 0 faces"),
        (
            {
                key: array[:, :0] if key == "J_regressor" else array[:0] if key in BY_VERTEX else array
                for key, array in body_arrays().items()
            },
            "it has 0 vertices and 60 faces",
        ),
        (changed(weights=3 * body_arrays()["weights"]), "weights .* up to 2 off"),
        (changed(kintree_table=np.zeros((2, 55), np.uint32)), "another joint tree"),
        (
            changed(kintree_table=np.zeros((2, 52), np.uint32)),
            "52 joints",
        ),
        (changed(weights=np.array([["a"] * 55] * 40)), "weights holds <U1, not numbers"),
    ],
)
def test_an_incomplete_model_is_refused_with_the_reason(tmp_path, write, arrays, message):
    suffix = ".npz" if write is write_smplx_npz else ".pkl"
    with pytest.raises(ValueError, match=f"SMPLX_MALE{suffix} is not a .*{message}"):
        read_body(write(tmp_path / f"SMPLX_MALE{suffix}", arrays))


@pytest.mark.parametrize("key", ["f", "v_template", "weights", "kintree_table"])
def test_a_sparse_matrix_that_would_fill_the_memory_is_never_made_dense(tmp_path, key, monkeypatch):
    def dense(*_):
        raise AssertionError("made dense")

    monkeypatch.setattr(scipy.sparse.coo_matrix, "toarray", dense)
    huge = {"kintree_table": (2, 10**11)}.get(key, (10**11, 3))
    arrays = body_arrays(55) | {key: scipy.sparse.coo_matrix(huge, dtype=np.int64)}
    (tmp_path / "SMPLX_MALE.pkl").write_bytes(pickle.dumps(arrays))
    with pytest.raises(ValueError, match=rf"SMPLX_MALE\.pkl is not a .*: {key} is coo_matrix"):
        read_body(tmp_path / "SMPLX_MALE.pkl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 cut off", "damaged or cut off"),
        (b"<html>Please log in</html>", "no pickle, or damaged"),
        (python2_pickle([1, 2]), "its pickle holds list"),
        (python2_pickle(body_arrays() | {"weights": "many"}), "weights is str"),
    ],
)
def test_another_file_under_the_name_is_refused(tmp_path, content, message):
    path = tmp_path / "SMPLX_NEUTRAL.pkl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"SMPLX_NEUTRAL.pkl.*{message}"):
        load_body(path)


def test_a_message_quotes_little_of_a_files_keys(tmp_path):
    key = frozenset()
    for _ in range(18):  # each twice the last one's length, written out
        key = frozenset([key, frozenset([key])])
    path = tmp_path / "SMPLX_NEUTRAL.pkl"
    path.write_bytes(pickle.dumps({key: 1, "x" * 10**5: 2, "poses": 3}))
    with pytest.raises(ValueError, match=r"are missing \(it has xxx.*x, poses\)") as caught:
        load_body(path)
    assert len(str(caught.value)) < 600


def test_a_chumpy_expression_matters_only_where_it_is_needed(tmp_path):
    path = tmp_path / "SMPL_MALE.pkl"
    arrays = body_arrays(24)
    with fake_chumpy() as make:
        summed = make("ch_ops.add", a=make("ch.Ch", x=arrays["v_template"]), b=0)
        path.write_bytes(python2_pickle(arrays | {"v_shaped": summed}))
        (tmp_path / "bad.pkl").write_bytes(python2_pickle(arrays | {"v_template": summed}))
    assert read_body(path).keys() == arrays.keys()
    with pytest.raises(ValueError, match=r"v_template is an expression \(chumpy\.ch_ops\.add\)"):
        read_body(tmp_path / "bad.pkl")


class Hostile:
    def __reduce__(self):
        return exec, ("import os; os.environ['DPOSE_TEST_HOSTILE_BODY'] = '1'",)


@pytest.mark.parametrize("read", [load_body, read_smplx_to_smpl])
def test_a_hostile_body_runs_nothing_and_is_refused(tmp_path, read):
    path = tmp_path / "SMPLX_NEUTRAL.pkl"
    path.write_bytes(pickle.dumps(body_arrays() | {"matrix": np.zeros(3), "note": Hostile()}))
    with pytest.raises(
        ValueError, match=r"SMPLX_NEUTRAL.pkl: refused.*'builtins\.exec'.*Nothing of it was run"
    ):
        read(path)
    assert "DPOSE_TEST_HOSTILE_BODY" not in os.environ


def test_pickled_members_of_an_archive_are_never_opened(tmp_path):
    hostile = np.empty((), object)
    hostile[()] = Hostile()
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    np.savez(path, **body_arrays(), joint2num=hostile)
    assert load_body(path).num_vertices == 40
    np.savez(path, **body_arrays() | {"weights": hostile})
    with pytest.raises(ValueError, match="SMPLX_NEUTRAL.npz .*pickled objects"):
        load_body(path)
    np.save(tmp_path / "J_regressor_h36m.npy", hostile)
    with pytest.raises(ValueError, match="J_regressor_h36m.npy is not"):
        read_h36m_regressor(tmp_path / "J_regressor_h36m.npy")
    assert "DPOSE_TEST_HOSTILE_BODY" not in os.environ


def conversion(rows: int = 6890, columns: int = 10475) -> scipy.sparse.csr_matrix:
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, columns, 3 * rows)
    data = rng.dirichlet([1, 1, 1], rows).ravel()
    return scipy.sparse.csr_matrix((data, (np.repeat(np.arange(rows), 3), chosen)), shape=(rows, columns))


@pytest.mark.parametrize("dump", [pickle.dumps, python2_pickle], ids=["python 3", "python 2"])
@pytest.mark.parametrize("make", [scipy.sparse.csc_matrix, scipy.sparse.csr_matrix, scipy.sparse.coo_matrix])
def test_the_conversion_to_smpl_is_read_from_any_sparse_layout(tmp_path, make, dump):
    matrix = conversion()
    (tmp_path / "smplx2smpl.pkl").write_bytes(dump({"matrix": make(matrix)}))
    got = read_smplx_to_smpl(tmp_path / "smplx2smpl.pkl")
    assert got.format == "csr" and got.dtype == np.float64
    assert abs(got - matrix).max() == 0


@pytest.mark.parametrize("dump", [pickle.dumps, python2_pickle], ids=["python 3", "python 2"])
def test_a_dense_conversion_becomes_sparse(tmp_path, dump, monkeypatch):
    monkeypatch.setattr(files, "SMPL_VERTICES", 60)
    monkeypatch.setattr(files, "SMPLX_VERTICES", 90)
    matrix = conversion(60, 90)
    (tmp_path / "smplx_to_smpl.pkl").write_bytes(dump({"matrix": matrix.toarray().astype(np.float32)}))
    monkeypatch.setenv("DPOSE_BODY_MODELS", str(tmp_path))
    got = read_smplx_to_smpl()
    assert got.nnz == matrix.nnz and abs(got - matrix).max() < 1e-7


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"mtx": conversion()}, r"keys \['matrix'\] are missing \(it has mtx\)"),
        ({"matrix": conversion(24, 10475)}, r"matrix has shape \(24, 10475\), expected \(6890, 10475\)"),
        ({"matrix": conversion() * np.inf}, "not finite"),
        ({"matrix": None}, "matrix is NoneType"),
    ],
)
def test_another_matrix_than_the_conversion_is_refused(tmp_path, content, message):
    path = tmp_path / "smplx2smpl.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=rf"smplx2smpl\.pkl .*{message}"):
        read_smplx_to_smpl(path)


def test_human36m_joints_are_read(tmp_path, monkeypatch):
    regressor = np.random.default_rng(0).random((17, 6890)).astype(np.float32)
    np.save(tmp_path / "J_regressor_h36m.npy", regressor)
    monkeypatch.setenv("DPOSE_BODY_MODELS", str(tmp_path))
    got = read_h36m_regressor()
    assert got.dtype == np.float64 and (got == regressor).all()
    np.save(tmp_path / "J_regressor_h36m.npy", regressor[:, :6000])
    with pytest.raises(ValueError, match=r"shape \(17, 6000\), expected \(17, 6890\)"):
        read_h36m_regressor()
