"""Test the package with the lowest versions that pyproject.toml allows.

    python scripts/check_lowest.py [VENV]        # default: .venv-lowest

Each core requirement `name>=version` is installed as `name==version` into a virtual environment, without the
extras, and with the few tools that the tests below import. The environment is kept until the bounds change.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("pytest", "hypothesis", "embreex")
TESTS = (
    "test_smoke",
    "test_data_shards",
    "test_data_loader",
    "test_data_augment",
    "test_data_remote",
    "test_checkpoint",
    "test_losses",
    "test_render",
    "test_processes",
)


def lowest() -> list[str]:
    """The requirements with their lower bounds as versions. Raises ValueError for one without a bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    tools = [r for r in project["optional-dependencies"]["dev"] if r.startswith(TOOLS)]
    pairs = [r.split(",")[0].split(">=") for r in project["dependencies"] + tools]
    if unbounded := [pair[0] for pair in pairs if len(pair) != 2]:
        raise ValueError(f"pyproject.toml: no lower bound for {', '.join(unbounded)}")
    return [f"{name}=={version}" for name, version in pairs]


def install(folder: Path) -> Path:
    """The Python of a virtual environment with the lowest versions, made anew if they have changed."""
    requirements = "\n".join(lowest()) + "\n"
    python, key = folder / "bin" / "python", hashlib.sha256(requirements.encode()).hexdigest()[:12]
    if not (folder / f"installed-{key}").exists():
        print(f"==> {folder}: installing the lowest versions", flush=True)
        venv.create(folder, clear=True, with_pip=True)
        (folder / "requirements.txt").write_text(requirements, encoding="utf-8")
        index = ["--index-url", os.environ["TORCH_INDEX"]] if os.environ.get("TORCH_INDEX") else []
        pip = [python, "-m", "pip", "install", "--quiet"]
        if index:
            torch = next(line for line in requirements.splitlines() if line.startswith("torch=="))
            subprocess.run([*pip, *index, torch], check=True)
        subprocess.run([*pip, "-r", folder / "requirements.txt"], check=True)
        (folder / f"installed-{key}").touch()
    return python


def main() -> int:
    python = install(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".venv-lowest"))
    tests = [ROOT / "tests" / f"{name}.py" for name in TESTS]
    command = [python, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
