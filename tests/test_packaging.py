"""Requirements, pins, conda environment, README and Makefile agree with one another."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import dpose

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
IMPORT_NAMES = {  # of distributions whose import name differs
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pytorch-msssim": "pytorch_msssim",
    "scikit-image": "skimage",
    "warp-lang": "warp",
}


def canonical(requirement: str) -> str:
    """`Some_Package>=1.0` -> `some-package`."""
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9_.-]+", requirement).group()).lower()


def pins() -> dict[str, str]:
    """Name -> version of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonical(name): version for name, version in pairs}


def environment() -> dict[str, str]:
    """Name -> version of environment.yml's pip section, options left out."""
    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    lines = next(entry for entry in content["dependencies"] if isinstance(entry, dict))["pip"]
    pairs = [line.split("==") for line in lines if not line.startswith("-")]
    return {canonical(name): version for name, version in pairs}


def required(*extras: str) -> set[str]:
    requirements = [*PYPROJECT["project"]["dependencies"], *(r for extra in extras for r in EXTRAS[extra])]
    return {canonical(requirement) for requirement in requirements}


def test_every_requirement_is_pinned():
    assert required(*EXTRAS) <= pins().keys()


def test_pins_satisfy_the_requirements():
    from packaging.requirements import Requirement

    requirements = [
        *PYPROJECT["project"]["dependencies"],
        *(r for extra in EXTRAS.values() for r in extra),
    ]
    for requirement in map(Requirement, requirements):
        assert requirement.specifier.contains(pins()[canonical(requirement.name)]), requirement


def test_the_conda_environment_lists_what_pyproject_requires_in_the_pinned_versions():
    listed = environment()
    assert listed.keys() == required("book", "dev")
    assert listed == {name: pins()[name] for name in listed}


def test_lower_bounds_of_extras_are_the_tested_versions():
    from packaging.requirements import Requirement

    for requirement in (Requirement(r) for extra in EXTRAS.values() for r in extra):
        lower = [s.version for s in requirement.specifier if s.operator in (">=", "==")]
        assert lower == [pins()[canonical(requirement.name)]], requirement


def test_the_lowest_versions_are_tested_for_all_core_requirements():
    sys.path.insert(0, str(ROOT / "scripts"))
    import check_lowest

    lowest = dict(line.split("==") for line in check_lowest.lowest())
    assert required() <= {canonical(name) for name in lowest}
    assert lowest["numpy"] < pins()["numpy"] and lowest["torch"] == pins()["torch"]
    assert all((ROOT / "tests" / f"{name}.py").is_file() for name in check_lowest.TESTS)


def test_smplx_is_required_by_the_extras_only_and_its_licence_is_stated():
    assert "smplx" not in required()
    assert {"smplx"} <= required("book") & required("dev")
    for name in ("NOTICE", "README.md"):
        text = " ".join((ROOT / name).read_text(encoding="utf-8").split())
        assert re.search("smplx.{0,300}non-commercial", text), name


def test_nothing_pinned_requires_torchvision_or_cuda():
    assert pins()["torch"] == "2.13.0"
    assert not [
        name for name in pins() if name == "torchvision" or name.startswith(("nvidia", "cuda", "triton"))
    ]


def test_no_extra_requires_the_neural_renderer_which_pip_cannot_build():
    assert not [r for extra in EXTRAS.values() for r in extra if "neural" in r]


NAMED = (  # packages that the project is built on
    "torch smplx matplotlib plotly pytorch-msssim albumentations papermill nbmake jupyter-book jupytext"
).split()


@pytest.mark.parametrize("name", NAMED)
def test_the_named_packages_are_required_and_explained(name):
    assert name in required("book", "dev")
    assert f"`{name}`" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_package_imports_only_what_it_requires():
    names = {IMPORT_NAMES.get(name, name).lower() for name in required("video", "onnx")}
    undeclared = {}
    for path in (ROOT / "dpose").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module]
            for module in modules:
                top = module.split(".")[0]
                known = top in sys.stdlib_module_names or top.lower() in names
                if not known and top not in ("dpose", "IPython", "neural_renderer"):
                    undeclared[f"{path.relative_to(ROOT)}: {module}"] = top
    assert not undeclared


def test_importing_the_package_is_light():
    import subprocess

    code = (
        "import dpose, sys; print([m for m in ('torch', 'lightning', 'warp', 'plotly') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_a_prediction_does_without_the_slow_imports_of_torch():
    import subprocess

    code = (
        "import dpose, numpy, sys; dpose.Predictor()(numpy.zeros((64, 64, 3), 'uint8'), [(0, 0, 64, 64)]); "
        "print([m for m in ('torch._dynamo', 'lightning', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_installed_package_has_the_version_of_its_source():
    from importlib.metadata import version

    assert version("dpose") == dpose.__version__


def test_readme_links_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_the_files_that_the_readme_names_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:dpose|notebooks|book|results|scripts|benchmarks|tests)/[\w./]*)`", text)
    assert len(paths) > 20 and "dpose/data/sample.py" in paths
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_the_makefile_has_the_targets_that_readme_and_ci_name():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    texts = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", ".ci/run"))
    named = set(re.findall(r"(?:`|^|exec )make ([a-z][a-z-]*)", texts, flags=re.MULTILINE))
    assert {"book", "test"} <= named <= targets
