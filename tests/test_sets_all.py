"""Every data set, from files as they are published to shards, by the command."""

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
from test_sets_bedlam_raw import stock, truth, written  # noqa: F401 (fixtures)

from dpose.body import Body
from dpose.cli import main
from dpose.data.prepare import SETS, prepare, set_module
from dpose.data.shards import decode_sample, read_manifest

GENDERED = [f"{model}-{gender}" for model in ("smpl", "smplx") for gender in ("male", "female")]


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    with licensed_bodies(tmp_path_factory.mktemp("bodies"), "smplx-neutral", *GENDERED) as arrays:
        yield arrays


@pytest.fixture(scope="module")
def roots(arrays, written, tmp_path_factory) -> dict[str, Path]:  # noqa: F811
    """To read, not to change."""
    folder = tmp_path_factory.mktemp("roots")
    test_sets_agora.write(folder / "agora", test_sets_agora.people("cam_ext")[0])
    test_sets_threedpw.write(folder / "3dpw", test_sets_threedpw.make_sequence(arrays)[0])
    test_sets_emdb.write(folder / "emdb", test_sets_emdb.sequence(arrays))
    test_sets_rich.write(folder / "rich")
    return {name: folder / name for name in SETS} | {"bedlam": written}


BODIES = {
    "bedlam": {"smplx-neutral"},
    "agora": {"smplx-neutral"},
    "3dpw": {"smpl-male", "smpl-female"},
    "emdb": {"smpl-female"},
    "rich": {"smplx-male", "smplx-female"},
}


@pytest.mark.parametrize("name", SETS)
def test_a_set_becomes_shards_by_the_command(name, arrays, roots, tmp_path, capsys):
    out = tmp_path / "out"
    command = f"prepare {name} --root {roots[name]} --out {out} --size 64 --workers 1".split()
    assert main([*command, "--no-progress", "--max-faults", "0"]) == 0
    manifest, module = read_manifest(out / "shards"), set_module(name)
    assert manifest["protocol"] == module.PROTOCOL and manifest["set"] == name
    assert set(manifest["splits"]) <= {module.SPLITS[0], "val"}
    assert set(manifest["bodies"]) == BODIES[name]
    for body, record in manifest["bodies"].items():
        assert record == {"name": body, "hash": Body(arrays[body]).hash}
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


def test_bedlam_without_depth_is_prepared_on_request(roots, tmp_path, capsys):
    root = shutil.copytree(roots["bedlam"], tmp_path / "root")
    for folder in root.glob("*/depth"):
        shutil.rmtree(folder)
    command = (
        f"prepare bedlam --root {root} --out {tmp_path / 'out'} --size 40 --workers 1 --no-progress".split()
    )
    assert main(command) == 2
    assert "--without-depth" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main([*command, "--without-depth"]) == 0
    with pytest.raises(ValueError, match="rich has no depth"):
        prepare("rich", roots["rich"], tmp_path / "other", depth=False)


@pytest.mark.parametrize("name", SETS)
def test_an_empty_root_ends_in_one_line_and_leaves_nothing(name, arrays, tmp_path, capsys):
    (tmp_path / "root").mkdir()
    assert main(["prepare", name, "--root", str(tmp_path / "root"), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and str(tmp_path / "root") in printed.err and printed.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["bedlam", "agora", "3dpw", "emdb", "rich"])
def test_without_the_licensed_bodies_it_ends_in_one_line_and_leaves_nothing(
    name, roots, tmp_path, capsys, monkeypatch
):
    monkeypatch.delenv("DPOSE_BODY_MODELS")
    command = f"prepare {name} --root {roots[name]} --out {tmp_path / 'out'} --no-progress"
    assert main(command.split()) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and "DPOSE_BODY_MODELS" in printed.err and printed.out == ""
    assert not (tmp_path / "out").exists()
