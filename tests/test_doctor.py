"""`dpose doctor` reports what is found, missing or unusable, and never fails because of it."""

import pickle
import re
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
from licensed_files import body_arrays, write_smpl_pkl, write_smplx_npz, write_smplx_pkl

from dpose.body import files
from dpose.body.files import LICENSED
from dpose.cli import main
from dpose.tools import doctor as doctor_module


@pytest.fixture
def doctor(capsys, monkeypatch, tmp_path):
    """Run `dpose doctor` and return its text with wrapped lines joined."""
    monkeypatch.delenv("DPOSE_BODY_MODELS", raising=False)
    monkeypatch.setenv("DPOSE_DATA", str(tmp_path / "no data"))

    def run(*arguments) -> str:
        assert main(["doctor", *map(str, arguments)]) == 0
        output = capsys.readouterr()
        assert output.err == ""
        return re.sub(r"\n {12}(?! )", " ", output.out)

    return run


def states(text: str) -> dict[str, str]:
    """Found, missing or unusable, by the name of the licensed file."""
    names = "|".join(LICENSED)
    return {name: state for state, name in re.findall(rf"^  (\w+) +({names}):", text, re.MULTILINE)}


def write_all(folder):
    write_smplx_npz(folder / "smplx/SMPLX_NEUTRAL.npz", body_arrays(columns=400))
    write_smplx_pkl(folder / "smplx/SMPLX_MALE.pkl", body_arrays())
    write_smplx_npz(folder / "models_smplx_v1_1/models/smplx/SMPLX_FEMALE.npz", body_arrays())
    models = folder / "SMPL_python_v.1.1.0/smpl/models"
    for short in ("neutral", "m", "f"):
        write_smpl_pkl(models / f"basicmodel_{short}_lbs_10_207_0_v1.1.0.pkl", body_arrays(24), "1.1.0")
    (folder / "utils").mkdir()
    matrix = scipy.sparse.csc_matrix((np.ones(2), ([0, 6889], [0, 10474])), shape=(6890, 10475))
    (folder / "utils/smplx2smpl.pkl").write_bytes(pickle.dumps({"matrix": matrix}))
    np.save(folder / "utils/J_regressor_h36m.npy", np.zeros((17, 6890)))


def test_with_no_files_everything_is_missing_with_its_use_and_source(doctor):
    text = doctor()
    assert set(states(text).values()) == {"missing"} and len(states(text)) == len(LICENSED)
    for wanted in LICENSED.values():
        assert all(name in text for name in wanted.names)
        assert f"for {wanted.use}" in text and f"from {wanted.source}" in text
    assert "DPOSE_BODY_MODELS is not set" in text
    assert re.search(r"^  found +open: ", text, re.M) and re.search(r"^  found +open-smpl: ", text, re.M)


def test_with_all_files_each_is_found_and_described(doctor, tmp_path):
    write_all(tmp_path)
    text = doctor("--body-models", tmp_path)
    assert set(states(text).values()) == {"found"} and len(states(text)) == len(LICENSED)
    assert "smplx/SMPLX_NEUTRAL.npz, 40 vertices, 55 joints, 400 shape directions" in text
    assert "v1.1.0.pkl, 40 vertices, 24 joints" in text
    assert "6890 x 10475, 2 entries" in text and "17 joints of 6890 vertices" in text
    assert "http" not in text


def test_with_some_files_the_others_are_missing_and_damaged_ones_unusable(doctor, tmp_path, monkeypatch):
    write_smplx_npz(tmp_path / "smplx/SMPLX_NEUTRAL.npz", body_arrays())
    cut = write_smplx_npz(tmp_path / "smplx/SMPLX_MALE.npz", body_arrays())
    cut.write_bytes(cut.read_bytes()[:-500])
    write_smpl_pkl(tmp_path / "smplx/SMPLX_FEMALE.pkl", body_arrays(24))
    (tmp_path / "smplx2smpl.pkl").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    monkeypatch.setenv("DPOSE_BODY_MODELS", str(tmp_path))
    text = doctor()
    found = states(text)
    assert found["smplx-neutral"] == "found" and found["smpl-male"] == "missing"
    assert found["smplx-male"] == found["smplx-female"] == "unusable"
    assert found["smplx2smpl"] == "unusable" and "os.system" in text
    assert "SMPLX_MALE.npz" in text and re.search(r"SMPLX_FEMALE.pkl has 24 joints", text)
    assert "again from https://smpl-x.is.tue.mpg.de" in text


def test_a_file_too_big_for_the_memory_is_unusable_and_the_report_goes_on(doctor, tmp_path, monkeypatch):
    def read_body(_):
        raise MemoryError

    write_smplx_npz(tmp_path / "SMPLX_MALE.npz", body_arrays())
    monkeypatch.setattr(files, "read_body", read_body)
    text = doctor("--body-models", tmp_path)
    assert states(text)["smplx-male"] == "unusable" and "memory" in text
    assert "mini:" in text


def test_a_folder_that_does_not_exist_is_named(doctor, tmp_path):
    assert f"{tmp_path / 'models'}, which is not a folder" in doctor("--body-models", tmp_path / "models")


@pytest.mark.parametrize(("megabytes", "small"), [(64, True), (4000, False)])
def test_shared_memory_that_is_too_small_for_the_loader_is_reported(doctor, monkeypatch, megabytes, small):
    usage = SimpleNamespace(total=megabytes * 10**6)
    monkeypatch.setattr(doctor_module, "SHARED_MEMORY", Path(__file__).parent)
    monkeypatch.setattr(doctor_module.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(doctor_module, "usable_cores", lambda: 9)
    text = doctor()
    assert f"shared memory {megabytes} MB" in text and "workers: 8," in text
    assert ("--shm-size" in text) == small


def test_versions_hardware_checkpoint_and_data_are_reported(doctor, people, tmp_path):
    text = doctor("--data", people)
    for word in ("torch 2", "numpy 2", "smplx ", "Python 3", "cores", "mini:", "train: ", "test: "):
        assert word in text, word
    assert "no shards" not in text
    assert "no shards: `dpose synth` makes the open data" in doctor("--data", tmp_path)


def test_an_unreadable_shard_is_unusable_and_the_report_goes_on(doctor, tmp_path):
    (tmp_path / "train-000000.tar").symlink_to(tmp_path / "unmounted" / "train-000000.tar")
    text = doctor("--data", tmp_path)
    assert re.search(r"^  unusable +.*train-000000\.tar", text, re.MULTILINE)
    assert "mini:" in text


def test_data_behind_a_url_are_reported_by_their_manifest(doctor, people, monkeypatch):
    """Read through file:// of fsspec, which the package treats as a URL."""
    monkeypatch.setenv("DPOSE_DATA", f"file://{people}")
    text = doctor()
    assert f"Data at file://{people}" in text and "train: 16 people, by the manifest there" in text
    assert re.search(
        r"^  unusable +no manifest.json at file:///nowhere", doctor("--data", "file:///nowhere"), re.M
    )
    text = doctor("--data", "s3://bucket/train-{000000..000003}.tar")
    assert re.search(r"^  unknown +a pattern of names", text, re.MULTILINE)
    assert "mini:" in text


@pytest.mark.parametrize("there", [False, True])
def test_the_papers_renderer_is_looked_for_but_not_imported(doctor, tmp_path, monkeypatch, there):
    if there:
        (tmp_path / "neural_renderer").mkdir()
        (tmp_path / "neural_renderer" / "__init__.py").write_text("raise ImportError")
        monkeypatch.syspath_prepend(tmp_path)
    elif find_spec("neural_renderer"):
        pytest.skip("it is here")
    state = "found" if there else r"missing \(`dpose install-neural-renderer`\)"
    assert re.search(rf"neural_renderer,[^:]*: {state}", re.sub(r"\s+", " ", doctor()))


def test_lines_are_short_enough_for_a_terminal(doctor, capsys):
    main(["doctor"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 110
