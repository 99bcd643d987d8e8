"""The label table: what it accepts, refuses, and where it says a person stands."""

import numpy as np
import pytest

from dpose.data.labels import COLUMNS, Labels


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
    for name in COLUMNS:
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


def test_of_published_columns_only_what_is_used_is_kept(tmp_path):
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


def test_rows_that_cannot_be_used_are_named_and_left_out_on_request(tmp_path):
    values, messages = columns(8), []
    values["shape"] = values["shape"].clip(-3, 3)
    values["cam_int"][4, 0, 0], values["center"][1], values["scale"][3] = np.inf, np.nan, -1.0
    values["trans_cam"][5, 1] = 1e39  # finite in double precision only
    values["shape"][6, 9], values["shape"][7, 0] = -15.5, 15
    np.savez(tmp_path / "scene.npz", **values)
    labels = Labels.load(tmp_path / "scene.npz", bad=messages.append)
    assert labels.imgname.tolist() == [f"seq/seq_{i:04d}.png" for i in (0, 2, 7)]
    facts = {1: "'center'", 3: "-1", 4: "'cam_int'", 5: "'trans_cam'", 6: "-15.5"}
    for message, (row, fact) in zip(messages, facts.items(), strict=True):
        assert all(part in message for part in ("scene.npz", f"row {row}", f"seq_{row:04d}.png", fact))
    with pytest.raises(ValueError, match=r"scene\.npz.*5 of 8 rows.*seq_0001.png.*'center'"):
        Labels.load(tmp_path / "scene.npz")
    np.savez(tmp_path / "scene.npz", **values | {"center": np.ones((8, 3))})
    with pytest.raises(ValueError, match=r"'center' has shape \(8, 3\)"):
        Labels.load(tmp_path / "scene.npz", bad=messages.append)
    np.savez(tmp_path / "scene.npz", **values | {"scale": np.zeros((8, 1))})
    assert len(Labels.load(tmp_path / "scene.npz", bad=messages.append)) == 0


def test_label_files_of_sixteen_betas_are_refused_with_the_ones_to_use():
    with pytest.raises(ValueError, match="'shape' has 16 .* 11"):
        Labels(**columns() | {"shape": np.zeros((3, 16))})


def test_a_translation_may_be_in_either_column_but_not_in_none():
    values = columns()
    transl = values.pop("trans_cam")
    cam_ext = np.tile(np.eye(4), (3, 1, 1))
    cam_ext[:, :3, 3] = transl
    np.testing.assert_allclose(Labels(**values, cam_ext=cam_ext).transl, transl, rtol=1e-6)
    with pytest.raises(ValueError, match="'trans_cam' nor 'cam_ext'"):
        Labels(**values)


def test_the_body_is_a_column_and_never_follows_from_the_gender(tmp_path):
    path = Labels(**columns(), gender=["male"] * 3, body=["open", "smpl-female", "smplx-male"]).save(
        tmp_path / "scene.npz"
    )
    assert Labels.load(path).body.tolist() == ["open", "smpl-female", "smplx-male"]
    assert set(Labels(**columns(), gender=["male"] * 3).body) == {"smplx-neutral"}
    with pytest.raises(ValueError, match="scan.*smplx-neutral"):
        Labels(**columns(), body=["open", "scan", "open"])


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
    with pytest.raises(ValueError, match=rf"1 of 3 rows.* 1 .*'{name}' is not finite"):
        Labels(**values)


def test_columns_of_unequal_length_or_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="'scale' has 2 rows, 'imgname' has 3"):
        Labels(**columns() | {"scale": np.ones(2)})
    with pytest.raises(ValueError, match=r"'cam_int' has shape \(3, 9\)"):
        Labels(**columns() | {"cam_int": np.ones((3, 9))})
    with pytest.raises(ValueError, match="3 of 3 rows.* 0 .*'scale'"):
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
    with pytest.raises(ValueError, match="pickled.npz.*'imgname'.*pickle"):
        Labels.load(tmp_path / "pickled.npz")
