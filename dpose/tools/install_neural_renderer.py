"""`dpose install-neural-renderer`: the paper's renderer, built against the torch and CUDA that are here.

Its one release on PyPI, of 2019, is source that the headers of today's torch do not accept: four names of the
C++ interface have changed since. They are replaced in a temporary folder, and pip is given a finished wheel,
so that a build that fails leaves nothing behind.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path

__all__ = ["install", "patch"]

PACKAGE, VERSION = "neural-renderer-pytorch", "1.1.3"
SHA256 = "d0d86b003c2cc1a4d8a909862fb52ff153641636471097651239764a428c9137"  # of PyPI's .tar.gz
OTHERWISE = "It is not needed: Warp gives the same part labels of bodies wholly before the camera."

CHANGES = (  # of torch's C++ interface since 2019
    (re.compile(r"\bAT_CHECK\b"), "TORCH_CHECK"),
    (re.compile(r"\.type\(\)\.is_cuda\(\)"), ".is_cuda()"),
    (re.compile(r"(\bAT_DISPATCH_\w+\(\s*\w+)\.type\(\)"), r"\1.scalar_type()"),
    (re.compile(r"\.data<"), ".data_ptr<"),
)

# A picture of 4 x 4 pixels full of one triangle, drawn in a process of its own.
WORKS = """
import torch
from dpose.render import neural
corners = torch.tensor([[[-9.0, -9, 1], [9, -9, 1], [0, 9, 1]]], device="cuda")
camera = torch.tensor([[[4.0, 0, 2], [0, 4, 2], [0, 0, 1]]], device="cuda")
faces = torch.tensor([[0, 1, 2]], device="cuda")
face, _ = neural.rasterize(neural.rasterizer(), corners, faces, camera, 4, 4)
assert (face == 0).all(), face
"""


def install() -> None:
    """Build the renderer and install it into the running environment, in a few minutes.

    Raises RuntimeError, before anything is downloaded, where torch, a device or the CUDA toolkit is missing;
    later where a step fails, and then nothing is installed. Does nothing if a working one is there.
    """
    refuse_without_cuda()
    if find_spec("neural_renderer") and _run("-c", WORKS, quiet=True) == 0:
        print("neural_renderer is there already, and it works")
        return
    with tempfile.TemporaryDirectory(prefix="dpose-neural-renderer-") as name:
        folder = Path(name)
        wanted = folder / "requirements.txt"
        wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
        # pip checks the hash before it runs the archive's setup.py, which asks for the torch that is here.
        options = ["--no-deps", "--no-build-isolation"]
        source = ["--no-binary", ":all:", "--require-hashes", "--dest", name, "-r", str(wanted)]
        _step("download", "-m", "pip", "download", *options, *source)
        with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
            archive.extractall(folder / "source", filter="data")
        (source_folder,) = (folder / "source").iterdir()
        patch(source_folder)
        _step("build", "-m", "pip", "wheel", *options, "--wheel-dir", name, str(source_folder))
        wheel = next(folder.glob("*.whl"))
        _step(
            "installation", "-m", "pip", "install", "--no-deps", "--no-index", "--force-reinstall", str(wheel)
        )
    if _run("-c", WORKS) != 0:
        _run("-m", "pip", "uninstall", "--yes", PACKAGE)
        raise RuntimeError(
            f"{PACKAGE} was built but does not draw (see above), and is removed again. {OTHERWISE}"
        )
    print('neural_renderer is installed: render_parts(..., backend="neural_renderer") uses it')


def refuse_without_cuda() -> None:
    """Raises RuntimeError if the renderer cannot be built here or would not run."""
    for name in ("pip", "setuptools"):
        if find_spec(name) is None:
            raise RuntimeError(f"the build needs {name}, which this environment lacks: install it first")
    import torch

    if torch.version.cuda is None:
        raise RuntimeError(
            f"torch {torch.__version__} is built without CUDA, and neural_renderer runs on CUDA only: "
            f"install a CUDA build of torch first. {OTHERWISE}"
        )
    if not torch.cuda.is_available():
        raise RuntimeError(f"torch finds no CUDA device, and neural_renderer runs on CUDA only. {OTHERWISE}")
    from torch.utils.cpp_extension import CUDA_HOME

    nvcc = Path(CUDA_HOME or "/usr/local/cuda") / "bin" / "nvcc"
    if not nvcc.is_file():
        raise RuntimeError(
            f"no CUDA compiler at {nvcc}: install the CUDA toolkit {torch.version.cuda}, or set CUDA_HOME to "
            f"where it is. {OTHERWISE}"
        )
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    release = re.search(r"release (\d+)\.(\d+)", said)
    if release and release[1] != torch.version.cuda.split(".")[0]:
        raise RuntimeError(
            f"{nvcc} is of CUDA {release[1]}.{release[2]} and torch of CUDA {torch.version.cuda}: their "
            f"first numbers must agree; set CUDA_HOME to a toolkit that fits. {OTHERWISE}"
        )


def patch(folder: Path) -> None:
    """Replace the four old names in the sources of the package unpacked in `folder`.

    Raises ValueError, before anything is written, if one of the four is nowhere: other sources than expected.
    """
    sources = sorted(path for path in (folder / "neural_renderer" / "cuda").glob("*.c*") if path.is_file())
    texts, counts = {}, [0] * len(CHANGES)
    for path in sources:
        text = path.read_text(encoding="utf-8")
        for index, (old, new) in enumerate(CHANGES):
            text, count = old.subn(new, text)
            counts[index] += count
        texts[path] = text
    missing = [old.pattern for (old, _), count in zip(CHANGES, counts, strict=True) if count == 0]
    if missing:
        raise ValueError(f"{folder} is not the source of {PACKAGE} {VERSION}: nothing in it is {missing}")
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")


def _step(name: str, *arguments: str) -> None:
    if _run(*arguments) != 0:
        raise RuntimeError(f"the {name} of {PACKAGE} failed (see above); nothing is installed. {OTHERWISE}")


def _run(*arguments: str, quiet: bool = False) -> int:
    """Exit status of this environment's Python with `arguments`."""
    output = subprocess.DEVNULL if quiet else None
    return subprocess.run([sys.executable, *arguments], stdout=output, stderr=output).returncode
