"""Which body is meant: names, hashes and records decide, never the environment."""

import numpy as np
import pytest
from licensed_files import body_arrays, write_smpl_pkl, write_smplx_npz, write_smplx_pkl

from dpose.body import BODY_NAMES, OPEN_BODY, Bodies, Body, check_record, load_body, num_rotations
from dpose.body.files import read_body


@pytest.fixture
def licensed(tmp_path, monkeypatch):
    """A folder of $DPOSE_BODY_MODELS with a small body under every licensed name."""
    for seed, gender in enumerate(("NEUTRAL", "MALE", "FEMALE")):
        write_smplx_npz(tmp_path / "smplx" / f"SMPLX_{gender}.npz", body_arrays(seed=seed))
        write_smpl_pkl(tmp_path / "smpl" / f"SMPL_{gender}.pkl", body_arrays(24, seed=seed))
    monkeypatch.setenv("DPOSE_BODY_MODELS", str(tmp_path))
    return tmp_path


def test_every_name_is_found_and_has_its_number_of_rotations_and_a_hash_of_its_own(licensed):
    bodies = Bodies()
    assert [bodies(name).name for name in BODY_NAMES] == list(BODY_NAMES)
    assert all(bodies(name).num_rotations == num_rotations(name) for name in BODY_NAMES)
    assert len({bodies(name).hash for name in BODY_NAMES}) == len(BODY_NAMES)
    assert bodies("smpl-male") is bodies("smpl-male")
    with pytest.raises(ValueError, match="smplx-person.*open-smpl"):
        bodies("smplx-person")


def test_the_environment_does_not_change_what_the_open_body_is(licensed, monkeypatch):
    with_files = [load_body(), load_body("open"), Bodies()("open"), load_body(OPEN_BODY)]
    monkeypatch.delenv("DPOSE_BODY_MODELS")
    assert {body.hash for body in with_files} == {load_body().hash}
    assert {body.name for body in with_files} == {"open"}


def test_a_hash_is_of_the_model_and_not_of_its_file(tmp_path):
    arrays = body_arrays(columns=400)
    single = {
        key: value.astype(np.float32) if value.dtype == float else value for key, value in arrays.items()
    }
    paths = [
        write_smplx_npz(tmp_path / "a" / "SMPLX_NEUTRAL.npz", arrays),
        write_smplx_pkl(tmp_path / "SMPLX_NEUTRAL.pkl", arrays),
        write_smplx_npz(tmp_path / "b" / "SMPLX_NEUTRAL.npz", single),
    ]
    options = ({}, {"num_betas": 10}, {"num_betas": 40}, {"vertex_stride": 7})
    hashes = {load_body(path, **option).hash for path in paths for option in options}
    assert len(hashes) == 1 and len(hashes.pop()) == 16
    assert load_body(paths[1]).record == {"name": "smplx-neutral", "hash": load_body(paths[0]).hash}


@pytest.mark.parametrize("key", ["v_template", "shapedirs", "posedirs", "J_regressor", "weights", "f"])
def test_another_model_has_another_hash(key):
    arrays, other = body_arrays(), body_arrays(seed=1)
    assert Body(arrays).hash != Body(arrays | {key: other[key]}).hash


def test_a_file_is_named_by_its_published_name(tmp_path):
    names = {"SMPLX_FEMALE.npz": "smplx-female", "smplx_male.npz": "smplx-male", "mine.npz": "custom"}
    for file, name in names.items():
        assert load_body(write_smplx_npz(tmp_path / file, body_arrays())).name == name
    path = write_smpl_pkl(tmp_path / "basicModel_f_lbs_10_207_0_v1.0.0.pkl", body_arrays(24))
    assert load_body(path).name == "smpl-female"


def test_another_body_than_was_recorded_is_refused(licensed):
    male = load_body("smplx-male")
    records = {"smplx-male": male.record, "open": {"name": "open", "hash": "0" * 16}}
    assert Bodies(records=records)("smplx-male").hash == male.hash
    with pytest.raises(ValueError, match=f"{'0' * 16}.*{load_body().hash}"):
        Bodies(records=records)("open")
    write_smplx_npz(licensed / "smplx" / "SMPLX_MALE.npz", body_arrays(seed=7))  # another version
    with pytest.raises(ValueError, match=male.hash):
        Bodies(records=records)("smplx-male")
    given = Body(read_body(OPEN_BODY), name="smplx-male")
    with pytest.raises(ValueError, match=male.hash):
        Bodies(given=[given], records=records)
    for record in (None, {}, {"name": "smplx-male"}, {"name": "smplx-male", "hash": male.hash}):
        check_record(male, record, "the checkpoint")


def test_a_given_body_is_used_under_its_name_and_stays_where_it_is():
    given = Body(body_arrays(), name="smplx-female")
    assert Bodies(given=[given])("smplx-female") is given
    elsewhere = Bodies("meta", given=[given])("smplx-female")
    assert elsewhere.faces.device.type == "meta" and given.faces.device.type == "cpu"
    assert elsewhere.record == given.record


def test_an_empty_name_is_not_the_open_body():
    with pytest.raises(ValueError, match="empty string"):
        load_body("")
