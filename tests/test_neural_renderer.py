"""The paper's renderer as a backend of `render_parts`, and its installer, without CUDA and network.

A stand-in in numpy replaces the CUDA kernel; with CUDA the kernel is compared with Warp.
"""

import re
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from dpose.body import load_body
from dpose.cli import main
from dpose.render import neural, render_mesh, render_parts
from dpose.tools import install_neural_renderer as installer


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def people(body) -> torch.Tensor:
    """(2, V, 3) people in random poses, 3 m in front of the camera."""
    import roma

    generator = torch.Generator().manual_seed(7)
    axis_angle = 0.35 * torch.randn(2, 22, 3, generator=generator)
    axis_angle[:, 0] = torch.tensor([[3.0, 0.3, 0.2], [3.0, -0.9, 0.1]])
    trans = torch.tensor([[0.05, 0.3, 3.0], [-0.2, 0.4, 3.4]])
    betas = torch.randn(2, 11, generator=generator)
    with torch.no_grad():
        return body(betas, roma.rotvec_to_rotmat(axis_angle), trans).vertices


CAMERAS = torch.tensor([[[130.0, 0, 30], [0, 115, 34], [0, 0, 1]], [[110.0, 0, 46], [0, 110, 26], [0, 0, 1]]])


def draw(corners, face_map, weight_map, depth_map, _, inverse, side, near, far, rgb, alpha, depth):
    """The kernel in numpy, with its conventions: y along rows, edges at -1 and 1, one-sided faces."""
    assert corners.is_contiguous() and corners.shape == inverse.shape and (rgb, alpha, depth) == (0, 0, 0)
    assert face_map.dtype == torch.int32 and (face_map == -1).all() and (depth_map == far).all()
    centers = (2 * np.arange(side) + 1 - side) / side
    for picture, triangles in enumerate(corners.double().numpy()):
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = triangles.transpose(1, 2, 0)
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        low, high = np.minimum(np.minimum(ay, by), cy), np.maximum(np.maximum(ay, by), cy)
        for row, y in enumerate(centers):
            near_row = np.flatnonzero((area > 0) & (low <= y) & (y <= high))
            f = near_row[:, None]
            x = centers[None]
            weight = np.stack(
                [
                    (bx[f] - x) * (cy[f] - y) - (by[f] - y) * (cx[f] - x),
                    (cx[f] - x) * (ay[f] - y) - (cy[f] - y) * (ax[f] - x),
                    (ax[f] - x) * (by[f] - y) - (ay[f] - y) * (bx[f] - x),
                ]
            )
            inside = (weight >= 0).all(0)
            weight = weight / area[f]
            z = 1 / (weight[0] / az[f] + weight[1] / bz[f] + weight[2] / cz[f])
            z = np.where(inside & (near < z) & (z < far), z, np.inf)
            for column in np.flatnonzero(np.isfinite(z).any(0)):
                first = z[:, column].argmin()
                face_map[picture, row, column] = int(near_row[first])
                depth_map[picture, row, column] = float(z[first, column])
                weight_map[picture, row, column] = torch.from_numpy(weight[:, first, column])
    return face_map, weight_map, depth_map, None


STAND_IN = SimpleNamespace(forward_face_index_map=draw)


def stand_in_parts(*arguments) -> torch.Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neural, "rasterizer", lambda device: STAND_IN)
        return render_parts(*arguments, backend="neural_renderer")


@pytest.mark.parametrize("size", [64, (60, 72)])
def test_its_labels_agree_with_those_of_warp(body, people, size):
    labels = stand_in_parts(people, body, CAMERAS, size)
    expected = render_parts(people, body, CAMERAS, size)
    assert labels.shape == expected.shape and labels.dtype == torch.uint8
    assert (expected > 0).float().mean() > 0.1
    assert (labels != expected).sum() <= 2e-3 * (expected > 0).sum()  # rays along an edge


def test_barycentric_weights_are_perspective_correct():
    # A floor that runs from 1 m to 9 m: its middle, 5 m away, is not the middle of its picture.
    floor = torch.tensor([[[-1.0, 1, 1], [-1, 1, 9], [1, 1, 9], [1, 1, 1]]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    camera = torch.tensor([[[40.0, 0, 32], [0, 40, 8], [0, 0, 1]]])
    face, weight = neural.rasterize(STAND_IN, floor, faces, camera, 64, 64)
    hit = face[0] >= 0
    rows = torch.arange(64) + 0.5
    distance = (40 / (rows - 8))[:, None].expand(64, 64)[hit]
    z = (weight[0][hit] * floor[0, faces[face[0][hit].long()]][..., 2]).sum(-1)
    assert hit.sum() > 300
    torch.testing.assert_close(z, distance, atol=1e-4, rtol=1e-4)
    same, _ = render_mesh(floor, faces, camera, 64)
    assert ((face[0] >= 0) == (same[0] >= 0)).float().mean() > 0.99


def test_faces_that_extend_behind_the_camera_are_left_out():
    floor = torch.tensor([[[-1.0, 1, -1], [0, 1, 9], [1, 1, 9]]])
    camera = torch.tensor([[[40.0, 0, 32], [0, 40, 8], [0, 0, 1]]])
    face, _ = neural.rasterize(STAND_IN, floor, torch.tensor([[0, 1, 2]]), camera, 64, 64)
    assert (face == -1).all()


def test_an_empty_batch_is_empty_and_wrong_shapes_are_refused(body):
    none = stand_in_parts(torch.zeros(0, len(body.part_of_vertex), 3), body, torch.zeros(0, 3, 3), 8)
    assert none.shape == (0, 8, 8)
    with pytest.raises(ValueError, match=r"\(B, V, 3\)"):
        stand_in_parts(torch.zeros(4, 3), body, torch.zeros(0, 3, 3), 8)
    with pytest.raises(ValueError, match="0 x 8 pixels"):
        stand_in_parts(torch.zeros(1, body.num_vertices, 3), body, torch.zeros(1, 3, 3), (0, 8))
    with pytest.raises(ValueError, match="6890 vertices"):
        stand_in_parts(torch.zeros(1, 6890, 3), body, torch.zeros(1, 3, 3), 8)


def test_people_in_one_picture_occlude_one_another_as_with_warp(body, people):
    together = torch.stack([people, people.flip(0) + torch.tensor([0.15, 0.1, 0.2])], dim=1)
    labels = stand_in_parts(together, body, CAMERAS, 64)
    expected = render_parts(together, body, CAMERAS, 64)
    assert (expected > 0).float().mean() > 1.2 * (render_parts(people, body, CAMERAS, 64) > 0).float().mean()
    assert (labels != expected).sum() <= 2e-3 * (expected > 0).sum()
    nobody = stand_in_parts(together[:, :0], body, CAMERAS, 8)
    assert nobody.shape == (2, 8, 8) and (nobody == 0).all()


def test_without_the_package_the_error_names_the_installer_and_the_alternative(body, people, monkeypatch):
    monkeypatch.setitem(sys.modules, "neural_renderer", None)
    with pytest.raises(RuntimeError, match="dpose install-neural-renderer") as caught:
        render_parts(people, body, CAMERAS, 16, backend="neural_renderer")
    assert "backend='warp'" in str(caught.value)


def test_vertices_off_cuda_are_refused(body, people, monkeypatch):
    package = ModuleType("neural_renderer")
    package.cuda = SimpleNamespace(rasterize=STAND_IN)
    for name, module in (("", package), (".cuda", package.cuda), (".cuda.rasterize", STAND_IN)):
        monkeypatch.setitem(sys.modules, f"neural_renderer{name}", module)
    with pytest.raises(ValueError, match="CUDA, got cpu"):
        render_parts(people, body, CAMERAS, 16, backend="neural_renderer")


def test_an_unknown_backend_is_refused(body, people):
    with pytest.raises(ValueError, match="unknown backend 'opengl'"):
        render_parts(people, body, CAMERAS, 16, backend="opengl")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.skipif(find_spec("neural_renderer") is None, reason="no neural_renderer")
@pytest.mark.parametrize(("size", "zoom"), [(224, 3.0), ((120, 90), 1.6)])
def test_on_cuda_its_labels_agree_with_those_of_warp(body, people, size, zoom):
    body, people = body.to("cuda"), people.cuda()
    cameras = CAMERAS.cuda() * torch.tensor([zoom, zoom, 1.0], device="cuda")[:, None]
    expected = render_parts(people, body, cameras, size)
    with torch.cuda.stream(torch.cuda.Stream()):
        labels = render_parts(people, body, cameras, size, backend="neural_renderer").cpu()
    body.to("cpu")
    assert (expected > 0).float().mean() > 0.1
    assert (labels != expected.cpu()).sum() <= 2e-3 * (expected > 0).sum()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.skipif(find_spec("neural_renderer") is None, reason="no neural_renderer")
def test_on_cuda_the_kernel_agrees_with_the_stand_in(body, people):
    compiled, faces = neural.rasterizer(torch.device("cuda")), body.faces.cpu()
    face, weight = neural.rasterize(compiled, people.cuda(), faces.cuda(), CAMERAS.cuda(), 60, 72)
    expected, expected_weight = neural.rasterize(STAND_IN, people, faces, CAMERAS, 60, 72)
    same = face.cpu() == expected
    assert same.float().mean() > 0.998
    hit = same & (expected >= 0)
    # In float32, over pixel coordinates: a small face's weights are a few hundredths off.
    torch.testing.assert_close(weight.cpu()[hit], expected_weight[hit], atol=0.1, rtol=0)


# The installer: excerpts in the style of the package's sources, with each old name.
OLD = {
    "draw_cuda.cpp": '#define CHECK_CUDA(x) AT_CHECK(x.type().is_cuda(), #x " must be on CUDA")\n',
    "draw_cuda_kernel.cu": """\
    AT_DISPATCH_FLOATING_TYPES(faces.type(), "draw", ([&] {
      draw_kernel<scalar_t><<<blocks, threads>>>(
          faces.data<scalar_t>(), map.data<int32_t>(), other.datatype, data<3, faces.type_id()); }));
""",
}
NEW = {
    "draw_cuda.cpp": '#define CHECK_CUDA(x) TORCH_CHECK(x.is_cuda(), #x " must be on CUDA")\n',
    "draw_cuda_kernel.cu": """\
    AT_DISPATCH_FLOATING_TYPES(faces.scalar_type(), "draw", ([&] {
      draw_kernel<scalar_t><<<blocks, threads>>>(
          faces.data_ptr<scalar_t>(), map.data_ptr<int32_t>(), other.datatype, data<3, faces.type_id()); }));
""",
}


def write_sources(folder: Path, sources: dict[str, str]) -> Path:
    cuda = folder / "neural_renderer" / "cuda"
    cuda.mkdir(parents=True)
    for name, text in sources.items():
        (cuda / name).write_text(text)
    return cuda


def test_only_the_four_names_are_replaced(tmp_path):
    cuda = write_sources(tmp_path, OLD)
    (cuda / "__init__.py").write_text("AT_CHECK")
    installer.patch(tmp_path)
    assert {name: (cuda / name).read_text() for name in OLD} == NEW
    assert (cuda / "__init__.py").read_text() == "AT_CHECK"


@pytest.mark.parametrize("sources", [{}, NEW, OLD | {"draw_cuda.cpp": NEW["draw_cuda.cpp"]}])
def test_sources_without_the_names_are_refused_and_left_alone(sources, tmp_path):
    cuda = write_sources(tmp_path, sources)
    with pytest.raises(ValueError, match="neural-renderer-pytorch 1.1.3"):
        installer.patch(tmp_path)
    assert {path.name: path.read_text() for path in cuda.iterdir()} == sources


class Commands:
    """Replaces `subprocess`: records the commands, and writes small files in place of pip."""

    DEVNULL = subprocess.DEVNULL

    def __init__(self, nvcc: str = "release 13.0, V13.0.48", failing: str = "nothing"):
        self.nvcc, self.failing, self.seen, self.built = nvcc, failing, [], {}

    def run(self, command, **_):
        program, *arguments = map(str, command)
        if program.endswith("nvcc"):
            return SimpleNamespace(stdout=f"Cuda compilation tools, {self.nvcc}", returncode=0)
        assert program == sys.executable
        step = arguments[2] if arguments[:2] == ["-m", "pip"] else "draw"
        self.seen.append((step, arguments))
        if step == self.failing:
            return SimpleNamespace(returncode=1)
        if step == "download":
            folder = Path(arguments[arguments.index("--dest") + 1])
            self.requirement = Path(arguments[-1]).read_text()
            write_sources(folder / "made" / "neural_renderer_pytorch-1.1.3", OLD)
            with tarfile.open(folder / "neural_renderer_pytorch-1.1.3.tar.gz", "w:gz") as archive:
                archive.add(
                    folder / "made" / "neural_renderer_pytorch-1.1.3", "neural_renderer_pytorch-1.1.3"
                )
        elif step == "install":
            self.source = Path(arguments[-1])
            self.built = {path.name: path.read_text() for path in self.source.glob("*/cuda/*")}
        return SimpleNamespace(returncode=0)


@pytest.fixture
def cuda_machine(monkeypatch, tmp_path):
    """A machine that meets the requirements, with commands that are only recorded."""
    import torch.utils.cpp_extension as cpp_extension

    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvcc").write_text("")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(installer, "find_spec", lambda name: None if name == "neural_renderer" else name)

    def use(**options) -> Commands:
        commands = Commands(**options)
        monkeypatch.setattr(installer, "subprocess", commands)
        return commands

    return use


def test_it_downloads_builds_installs_and_draws(cuda_machine, capsys):
    commands = cuda_machine()
    assert main(["install-neural-renderer"]) == 0
    assert [step for step, _ in commands.seen] == ["download", "install", "draw"]
    assert commands.built == NEW
    download, install, draw = (arguments for _, arguments in commands.seen)
    assert {"--require-hashes", "--no-binary", "--no-build-isolation", "--no-deps"} <= set(download)
    pattern = r"neural-renderer-pytorch==1\.1\.3 --hash=sha256:[0-9a-f]{64}\n"
    assert re.fullmatch(pattern, commands.requirement)
    assert {"--no-build-isolation", "--no-deps"} <= set(install)
    compile(draw[1], "drawing", "exec")
    assert "neural_renderer is installed" in capsys.readouterr().out
    assert not commands.source.exists()  # the temporary folder is gone


@pytest.mark.parametrize(
    ("failing", "last", "message"),
    [
        ("download", "download", "download"),
        ("install", "install", "installation"),
        ("draw", "uninstall", "removed"),
    ],
)
def test_after_a_failed_step_nothing_is_installed(failing, last, message, cuda_machine, capsys):
    commands = cuda_machine(failing=failing)
    assert main(["install-neural-renderer"]) == 2
    assert commands.seen[-1][0] == last
    error = capsys.readouterr().err
    assert message in error and "Warp" in error


def test_a_working_installation_is_kept_and_a_broken_one_replaced(cuda_machine, monkeypatch, capsys):
    commands = cuda_machine()
    monkeypatch.setattr(installer, "find_spec", lambda name: name)
    assert main(["install-neural-renderer"]) == 0
    assert [step for step, _ in commands.seen] == ["draw"]
    assert "already" in capsys.readouterr().out
    commands = cuda_machine(failing="draw")
    assert main(["install-neural-renderer"]) == 2
    assert [step for step, _ in commands.seen] == [
        "draw",
        "download",
        "install",
        "draw",
        "uninstall",
    ]


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ("build", "CUDA build of torch"),
        ("device", "CUDA device"),
        ("toolkit", "CUDA toolkit 13.0"),
        ("version", "release 12.4"),
        ("setuptools", "package setuptools"),
    ],
)
def test_a_missing_requirement_is_named_before_anything_is_downloaded(
    lacking, message, cuda_machine, monkeypatch, tmp_path, capsys
):
    commands = cuda_machine(nvcc="release 12.4, V12.4.99" if lacking == "version" else "release 13.0")
    if lacking == "build":
        monkeypatch.setattr(torch.version, "cuda", None)
    elif lacking == "device":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    elif lacking == "toolkit":
        (tmp_path / "bin" / "nvcc").unlink()
    elif lacking == "setuptools":
        monkeypatch.setattr(installer, "find_spec", lambda name: None if name == "setuptools" else name)
    assert main(["install-neural-renderer"]) == 2
    assert message in capsys.readouterr().err
    assert commands.seen == []
