"""The label table: what it accepts, refuses, and where it says a person stands."""

import numpy as np
import pytest

from dpose.data.labels import COLUMNS, REQUIRED, Labels


def columns(n: int = 3) -> dict:
    rng = np.random.default_rng(0)
    return {
        "imgname": np.array([f"seq/seq_{i:04d}.png" for i in range(n)]),
        "center": rng.uniform(0, 500, (n, 2)),
        "scale": rng.uniform(1, 2, n),
        "pose_cam": rng.normal(size=(n, 165)),
        "shape": rng.normal(size=(n, 11)),
        "trans_cam": rng.normal(size=(n, 3)),
        "gtkps": rng.uniform(0, 500, (n, 127, 3)),
        "cam_int": np.tile(np.eye(3), (n, 1, 1)),
    }


def test_a_saved_table_comes_back_as_it_was(tmp_path):
    labels = Labels(**columns(), sub=["a", "b", "c"])
    again = Labels.load(labels.save(tmp_path / "scene.npz"))
    for name in REQUIRED:
        assert (getattr(again, name) == getattr(labels, name)).all(), name
    assert (labels.gtkps == columns()["gtkps"][:, :24].astype(np.float32)).all()
    assert again.sub.tolist() == ["a", "b", "c"]
    assert [path.name for path in tmp_path.iterdir()] == ["scene.npz"]


def test_the_translation_is_the_sum_of_the_two_published_columns():
    cam_ext = np.tile(np.eye(4), (3, 1, 1))
    cam_ext[:, :3, 3] = (1, 2, 3)
    values = columns()
    np.testing.assert_allclose(
        Labels(**values, cam_ext=cam_ext).transl, values["trans_cam"] + (1, 2, 3), rtol=1e-5
    )
    np.testing.assert_allclose(Labels(**values).transl, values["trans_cam"], rtol=1e-5)


def test_ten_betas_short_poses_and_joints_without_confidence_are_filled_up():
    values = columns()
    values |= {"shape": values["shape"][:, :10], "pose_cam": values["pose_cam"][:, :66]}
    values |= {"gtkps": values["gtkps"][..., :2]}
    labels = Labels(**values)
    assert labels.shape.shape == (3, 11) and (labels.shape[:, 10] == 0).all()
    assert labels.pose_cam.shape == (3, 165) and (labels.pose_cam[:, 66:] == 0).all()
    assert (labels.gtkps[..., 2] == 1).all()


def test_columns_as_published_are_taken_without_what_nothing_reads(tmp_path):
    """Of 437 projected vertices and 127 joints in float64, 24 joints in float32 are all that is kept."""
    published = columns(50) | {"proj_verts": np.ones((50, 437, 3)), "trans_world": np.zeros((50, 3))}
    published["sub"] = np.array([None] * 50, object)
    np.savez(tmp_path / "scene.npz", **published)
    labels = Labels.load(tmp_path / "scene.npz")
    np.testing.assert_array_equal(labels.gtkps, published["gtkps"][:, :24].astype(np.float32))
    assert not hasattr(labels, "proj_verts") and not hasattr(labels, "trans_world")
    arrays = [getattr(labels, name) for name in COLUMNS]
    owned = [array if array.base is None else array.base for array in arrays]
    assert sum(array.nbytes for array in owned) / 50 < 2000


def test_rows_that_cannot_be_used_are_told_of_and_left_out_where_asked(tmp_path):
    values, told = columns(6), []
    values["cam_int"][4, 0, 0], values["center"][1], values["scale"][3] = np.inf, np.nan, -1.0
    np.savez(tmp_path / "scene.npz", **values)
    labels = Labels.load(tmp_path / "scene.npz", bad=told.append)
    assert labels.imgname.tolist() == [f"seq/seq_{i:04d}.png" for i in (0, 2, 5)]
    assert [text.partition(".npz: ")[2] for text in told] == [
        "row 1 (seq/seq_0001.png): 'center' is not finite",
        "row 3 (seq/seq_0003.png): 'scale' is not positive",
        "row 4 (seq/seq_0004.png): 'cam_int' is not finite",
    ]
    np.savez(tmp_path / "scene.npz", **values | {"center": np.ones((6, 3))})
    with pytest.raises(ValueError, match=r"'center' has shape \(4, 3\)"):
        Labels.load(tmp_path / "scene.npz", bad=told.append)
    np.savez(tmp_path / "scene.npz", **values | {"scale": np.zeros((6, 1))})
    assert len(Labels.load(tmp_path / "scene.npz", bad=told.append)) == 0


def test_a_missing_column_is_named(tmp_path):
    values = columns()
    del values["cam_int"]
    np.savez(tmp_path / "scene.npz", **values)
    with pytest.raises(ValueError, match=r"scene\.npz.*lacks the column cam_int"):
        Labels.load(tmp_path / "scene.npz")


@pytest.mark.parametrize("name", ["center", "pose_cam", "trans_cam", "gtkps"])
def test_a_value_that_is_not_finite_is_refused_with_its_row(name):
    values = columns()
    values[name][1].flat[0] = np.nan
    with pytest.raises(ValueError, match=rf"column '{name}' is not finite in 1 of 3 rows.*row 1"):
        Labels(**values)


def test_columns_of_unequal_length_or_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="'scale' has 2 rows, 'imgname' has 3"):
        Labels(**columns() | {"scale": np.ones(2)})
    with pytest.raises(ValueError, match=r"'cam_int' has shape \(3, 9\)"):
        Labels(**columns() | {"cam_int": np.ones((3, 9))})
    with pytest.raises(ValueError, match="'scale' is not positive in row 0"):
        Labels(**columns() | {"scale": np.zeros(3)})


def test_a_file_cut_short_absent_or_pickled_is_refused(tmp_path):
    path = Labels(**columns()).save(tmp_path / "scene.npz")
    data = path.read_bytes()
    (tmp_path / "short.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="cut short"):
        Labels.load(tmp_path / "short.npz")
    with pytest.raises(FileNotFoundError, match=r"no label file at .*none\.npz"):
        Labels.load(tmp_path / "none.npz")
    np.savez(tmp_path / "pickled.npz", **columns() | {"imgname": np.array(["a", None, {}], object)})
    with pytest.raises(ValueError, match="'imgname' cannot be read without pickle"):
        Labels.load(tmp_path / "pickled.npz")
