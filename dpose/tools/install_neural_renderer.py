"""`dpose install-neural-renderer`: build the paper's renderer against the installed torch and CUDA.

Its only release on PyPI (2019) is source code that does not compile against the headers of current torch:
four names of the C++ interface have changed. They are replaced in a temporary folder, from which pip builds
and installs it, so a failed build leaves nothing behind.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path

PACKAGE, VERSION = "neural-renderer-pytorch", "1.1.3"
SHA256 = "d0d86b003c2cc1a4d8a909862fb52ff153641636471097651239764a428c9137"  # of PyPI's .tar.gz
OPTIONAL = "It is optional: Warp gives the same part labels."

CHANGES = (  # of torch's C++ interface since 2019
    (re.compile(r"\bAT_CHECK\b"), "TORCH_CHECK"),
    (re.compile(r"\.type\(\)\.is_cuda\(\)"), ".is_cuda()"),
    (re.compile(r"(\bAT_DISPATCH_\w+\(\s*\w+)\.type\(\)"), r"\1.scalar_type()"),
    (re.compile(r"\.data<"), ".data_ptr<"),
)

# Run in a new process: one triangle must fill a picture of 4 x 4 pixels.
DRAWING = """
import torch
from dpose.render import neural
corners = torch.tensor([[[-9.0, -9, 1], [9, -9, 1], [0, 9, 1]]], device="cuda")
camera = torch.tensor([[[4.0, 0, 2], [0, 4, 2], [0, 0, 1]]], device="cuda")
faces = torch.tensor([[0, 1, 2]], device="cuda")
face, _ = neural.rasterize(neural.rasterizer(corners.device), corners, faces, camera, 4, 4)
assert (face == 0).all(), face
"""


def install() -> None:
    """Build and install the renderer, which takes a few minutes; do nothing if it already works.

    Raises RuntimeError before anything is downloaded if torch with CUDA, a CUDA device or the CUDA toolkit is
    missing, and later if a step fails; nothing is installed then.
    """
    check_requirements()
    if find_spec("neural_renderer") and _python("-c", DRAWING, quiet=True) == 0:
        print("neural_renderer is already installed and works")
        return
    with tempfile.TemporaryDirectory(prefix="dpose-neural-renderer-") as name:
        folder = Path(name)
        wanted = folder / "requirements.txt"
        wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
        options = ["--no-deps", "--no-build-isolation"]  # its setup.py imports torch
        source = ["--no-binary", ":all:", "--require-hashes", "--dest", name, "-r", str(wanted)]
        _step("download", "-m", "pip", "download", *options, *source)
        with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
            archive.extractall(folder / "source", filter="data")
        (unpacked,) = (folder / "source").iterdir()
        patch(unpacked)
        _step("installation", "-m", "pip", "install", *options, "--force-reinstall", str(unpacked))
    if _python("-c", DRAWING) != 0:
        _python("-m", "pip", "uninstall", "--yes", PACKAGE)
        raise RuntimeError(
            f"{PACKAGE} was built but cannot draw (see above); it is removed again. {OPTIONAL}"
        )
    print('neural_renderer is installed: render_parts(..., backend="neural_renderer") uses it')


def check_requirements() -> None:
    """Raise RuntimeError if the renderer cannot be built or run on this machine."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    nvcc = Path(CUDA_HOME or "/usr/local/cuda") / "bin" / "nvcc"
    lacking = [f"the package {name}" for name in ("pip", "setuptools") if find_spec(name) is None]
    if torch.version.cuda is None:
        lacking.append(f"a CUDA build of torch (installed: {torch.__version__})")
    elif not torch.cuda.is_available():
        lacking.append("a CUDA device")
    elif not nvcc.is_file():
        lacking.append(f"the compiler of the CUDA toolkit {torch.version.cuda} at {nvcc} (set CUDA_HOME)")
    else:
        text = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
        release = re.search(r"release (\d+)\.\d+", text)
        if release and release[1] != torch.version.cuda.split(".")[0]:
            lacking.append(f"the CUDA toolkit {torch.version.cuda}; {nvcc} has {release[0]} (set CUDA_HOME)")
    if lacking:
        raise RuntimeError(f"neural_renderer cannot be built without {' and '.join(lacking)}. {OPTIONAL}")


def patch(folder: Path) -> None:
    """Replace the four old names in the unpacked sources.

    Raises ValueError before anything is written if one of them does not occur: these are other sources.
    """
    texts = {path: path.read_text(encoding="utf-8") for path in folder.glob("neural_renderer/cuda/*.c*")}
    for old, new in CHANGES:
        if not any(map(old.search, texts.values())):
            raise ValueError(f"{folder} is not {PACKAGE} {VERSION}: {old.pattern} is not in its sources")
        texts = {path: old.sub(new, text) for path, text in texts.items()}
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")


def _step(name: str, *arguments: str) -> None:
    if _python(*arguments) != 0:
        raise RuntimeError(f"the {name} of {PACKAGE} failed (see above); nothing is installed. {OPTIONAL}")


def _python(*arguments: str, quiet: bool = False) -> int:
    """Exit status of this environment's Python with `arguments`."""
    output = subprocess.DEVNULL if quiet else None
    return subprocess.run([sys.executable, *arguments], stdout=output, stderr=output).returncode
