"""Every data set, from files as its makers give them to shards, by the command."""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import test_sets_agora
import test_sets_emdb
import test_sets_rich
import test_sets_threedpw
from gendered_people import licensed_bodies
from licensed_files import write_smplx_npz
from test_sets_bedlam_raw import stock, truth, written  # noqa: F401 (fixtures)
from test_sets_threedpw import sequence  # noqa: F401

from dpose.body import OPEN_BODY
from dpose.body.files import read_body
from dpose.cli import main
from dpose.data.prepare import SETS, prepare, set_module
from dpose.data.shards import decode_sample, read_manifest

GENDERED = [f"{model}-{gender}" for model in ("smpl", "smplx") for gender in ("male", "female")]


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bodies")
    write_smplx_npz(folder / "smplx" / "SMPLX_NEUTRAL.npz", dict(read_body(OPEN_BODY)))
    with licensed_bodies(folder, *GENDERED) as arrays:
        yield arrays


@pytest.fixture
def roots(arrays, written, sequence, tmp_path) -> dict[str, Path]:  # noqa: F811
    test_sets_agora.write(tmp_path / "agora", test_sets_agora.people("cam_ext")[0])
    test_sets_threedpw.write(tmp_path / "3dpw", sequence[0])
    test_sets_emdb.write(tmp_path / "emdb", test_sets_emdb.sequence(arrays))
    test_sets_rich.write(tmp_path / "rich")
    return {name: tmp_path / name for name in SETS} | {"bedlam": written}


BODIES = {
    "bedlam": {"smplx-neutral"},
    "agora": {"smplx-neutral"},
    "3dpw": {"smpl-male", "smpl-female"},
    "emdb": {"smpl-female"},
    "rich": {"smplx-male", "smplx-female"},
}


@pytest.mark.parametrize("name", SETS)
def test_a_set_becomes_shards_by_the_command(name, roots, tmp_path, capsys):
    out = tmp_path / "out"
    command = f"prepare {name} --root {roots[name]} --out {out} --size 64 --workers 1".split()
    assert main([*command, "--no-progress", "--max-faults", "0"]) == 0
    manifest, module = read_manifest(out / "shards"), set_module(name)
    assert manifest["protocol"] == module.PROTOCOL and manifest["set"] == name
    assert set(manifest["splits"]) <= {module.SPLITS[0], "val"}
    licensed = {key for key, body in manifest["bodies"].items() if body["model"] == "licensed"}
    assert set(manifest["bodies"]) == BODIES[name] and licensed == BODIES[name] - {"smplx-neutral"}
    bodies, count = set(), 0
    for row in manifest["shards"]:
        with tarfile.open(out / "shards" / row["name"]) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}
        for key in {member.partition(".")[0] for member in members}:
            cut = {m.partition(".")[2]: data for m, data in members.items() if m.startswith(f"{key}.")}
            sample = decode_sample(cut)
            assert sample["label"]["has_depth"] == (name == "bedlam") and sample["label"]["dataset"]
            assert len(np.unique(sample["parts"])) > 5
            bodies.add(sample["label"].get("body", "smplx-neutral"))
            count += 1
    assert count == sum(manifest["splits"].values()) > 1 and bodies == BODIES[name]


def test_bedlam_without_depth_is_prepared_when_that_is_asked_for(roots, tmp_path, capsys):
    root = shutil.copytree(roots["bedlam"], tmp_path / "root")
    for folder in root.glob("*/depth"):
        shutil.rmtree(folder)
    command = (
        f"prepare bedlam --root {root} --out {tmp_path / 'out'} --size 40 --workers 1 --no-progress".split()
    )
    assert main(command) == 2
    assert "--without-depth" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main([*command, "--without-depth"]) == 0
    with pytest.raises(ValueError, match="rich has no depth that could be left out"):
        prepare("rich", roots["rich"], tmp_path / "other", depth=False)


@pytest.mark.parametrize("name", SETS)
def test_an_empty_root_ends_in_one_line_and_leaves_nothing(name, arrays, tmp_path, capsys):
    (tmp_path / "root").mkdir()
    assert main(["prepare", name, "--root", str(tmp_path / "root"), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and str(tmp_path / "root") in said.err and said.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["bedlam", "3dpw", "emdb", "rich"])
def test_without_the_licensed_bodies_it_ends_in_one_line_and_leaves_nothing(
    name, roots, tmp_path, capsys, monkeypatch
):
    monkeypatch.delenv("DPOSE_BODY_MODELS")
    assert main(["prepare", name, "--root", str(roots[name]), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "DPOSE_BODY_MODELS" in said.err and said.out == ""
    assert not (tmp_path / "out").exists()
