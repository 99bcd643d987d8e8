"""dpose.io: files are complete or absent, nothing but a regular file is replaced, leftovers are removed."""

import json
import os
import stat
import subprocess
import sys

import cv2
import numpy as np
import pytest

from dpose import io


def leftovers(folder):
    return sorted(path.name for path in folder.glob(".*.part"))


def test_a_file_has_its_old_content_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with io.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old" and temporary.parent == tmp_path
    assert path.read_text() == "new" and leftovers(tmp_path) == []


def test_an_exception_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), io.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and leftovers(tmp_path) == []


def test_parent_folders_are_made(tmp_path):
    io.write_json(tmp_path / "a" / "b" / "c.json", {"n": 1})
    assert json.loads((tmp_path / "a" / "b" / "c.json").read_text()) == {"n": 1}


def test_a_link_s_target_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "target.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    io.write_json(link, {"n": 1})
    assert link.is_symlink() and json.loads(target.read_text()) == {"n": 1}
    assert leftovers(tmp_path) == leftovers(tmp_path / "there") == []


def test_a_link_to_a_file_that_is_not_there_yet_makes_it(tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "new" / "target.json")
    io.write_json(link, 7)
    assert link.is_symlink() and (tmp_path / "new" / "target.json").read_text() == "7\n"


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o444])
def test_an_existing_file_keeps_its_permissions(tmp_path, mode):
    path = tmp_path / "a.json"
    path.write_text("{}")
    path.chmod(mode)
    io.write_json(path, 1)
    assert stat.S_IMODE(path.stat().st_mode) == mode and path.read_text() == "1\n"


@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "link to a device"])
def test_what_is_no_regular_file_is_refused_and_left_alone(tmp_path, kind):
    path = node = tmp_path / "target"
    if "device" in kind:
        try:
            os.mknod(node, 0o600 | stat.S_IFCHR, os.makedev(1, 3))  # a null device of our own
        except PermissionError:
            pytest.skip("only root can make a device")
    elif kind == "pipe":
        os.mkfifo(node)
    else:
        node.mkdir()
    if "link" in kind:
        path = tmp_path / "link"
        path.symlink_to(node)
    before = node.lstat()
    with pytest.raises(FileExistsError, match=path.name):
        io.write_json(path, 1)
    after = node.lstat()
    assert (after.st_ino, after.st_mode, after.st_rdev) == (before.st_ino, before.st_mode, before.st_rdev)
    assert leftovers(tmp_path) == []


def test_a_path_below_a_file_is_refused_by_that_file_s_name(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for below in (file / "a.json", file / "a" / "b" / "c.json"):
        with pytest.raises(OSError, match=rf"{file}\b.* file"):
            io.write_json(below, {})
    with pytest.raises(FileExistsError, match=str(file)):
        io.check_folder(file)
    assert io.check_folder(tmp_path / "new" / "folder") == tmp_path / "new" / "folder"
    assert str(io.check_folder("new")) == "new" and list(tmp_path.iterdir()) == [file]


def test_unfinished_files_of_dead_processes_are_removed_and_no_others(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    ours = f".{io.HOST}"
    gone = [
        f".last.ckpt{ours}.{dead.pid}.part",
        f".a.b.tar{ours}.{os.getpid()}.part",  # of an earlier process with our id
        f".c.tar{ours}.99999999999999999999.part",
        ".old.tar.elsewhere.1.part",
    ]
    kept = [
        f".a.tar{ours}.{os.getppid()}.part",
        f".root.tar{ours}.1.part",
        ".new.tar.elsewhere.1.part",
        ".somebody.part",
        f"visible{ours}.{dead.pid}.part",
        f".last.ckpt{ours}.{dead.pid}",
    ]
    for name in gone + kept:
        (tmp_path / name).write_text("x")
    an_hour_ago = (tmp_path / gone[-1]).stat().st_mtime - 3700
    os.utime(tmp_path / gone[-1], (an_hour_ago, an_hour_ago))

    io.remove_stale(tmp_path)
    io.remove_stale(tmp_path / "not there")

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_what_a_killed_writer_leaves_is_removed(tmp_path):
    code = (
        "import os, sys; from dpose.io import replacing\n"
        "with replacing(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.txt")], check=False)
    assert len(leftovers(tmp_path)) == 1
    io.remove_stale(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_are_not_finite_are_no_json_and_the_old_file_stays(tmp_path):
    io.write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError):
        io.write_json(tmp_path / "a.json", [float("nan")])
    assert (tmp_path / "a.json").read_text() == "1\n"


@pytest.mark.parametrize(("shape", "dtype"), [((4, 5, 3), np.uint8), ((4, 5), np.uint8), ((4, 5), np.uint16)])
def test_a_png_holds_the_pixels_in_rgb_order(tmp_path, shape, dtype):
    picture = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    path = io.write_png(tmp_path / "a.png", picture)
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert (read == (picture[..., ::-1] if picture.ndim == 3 else picture)).all() and read.dtype == dtype


def test_the_hash_is_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert io.file_hash(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")
