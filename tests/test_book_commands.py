"""The commands and code in the prose of book and README: what they name exists, and options parse.

A shell block is run by bash with every program replaced by a function that writes down its arguments, so that
loops, variables and continued lines are expanded as a reader's shell would. Nothing is executed.
"""

import argparse
import ast
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

import dpose
import dpose.camera
from dpose.cli import _join_numbers, _parser
from dpose.experiment import EXPERIMENTS
from dpose.training import recipe

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^([ \t]*)(`{3,})(sh|bash|python)\n(.*?)^\1\2[ \t]*$", re.M | re.S)
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(?:---\n.*?^---\n|(?::[^\n]*\n)*)(.*?)^```$", re.M | re.S)
PROSE = sorted((ROOT / "book").glob("*.md"))
PAGES = [ROOT / "README.md", *PROSE, *sorted((ROOT / "notebooks").glob("*.py"))]

# Every program is a function that writes its name and arguments to a pipe, with separators of ASCII.
STUB = r"""
call() { local IFS=$'\x1f'; printf '%s\x1e' "$*" >&3; }
command_not_found_handle() { call "$@"; }
source() { :; }
"""


def prose(path: Path) -> str:
    """The text of a page; of a notebook its Markdown cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    cells = re.split(r"^# %%", text, flags=re.MULTILINE)
    lines = (line for cell in cells if cell.startswith(" [markdown]") for line in cell.splitlines()[1:])
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines) + "\n"


def blocks(path: Path, *languages: str) -> list[str]:
    return [
        re.sub(rf"^{indent}", "", code, flags=re.M)
        for indent, _, language, code in BLOCK.findall(prose(path))
        if language in languages
    ]


def calls(script: str, folder: Path) -> list[list[str]]:
    """The programs that a shell script would start, with their arguments."""
    read, write = os.pipe()
    environment = {"PATH": "/nowhere", "HOME": str(folder)}
    done = subprocess.run(
        [shutil.which("bash"), "--norc", "--noprofile", "-c", f"exec 3>&{write}\n{STUB}{script}"],
        env=environment,
        cwd=folder,
        pass_fds=[write],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    os.close(write)
    with os.fdopen(read) as pipe:
        written = pipe.read()
    assert not done.stderr, done.stderr
    return [one.split("\x1f") for one in written.split("\x1e") if one]


def all_calls(path: Path, folder: Path) -> list[list[str]]:
    """The calls of a page's shell blocks, and those in the arguments of launchers and schedulers."""
    found = [call for block in blocks(path, "sh", "bash") for call in calls(block, folder)]
    inner = [arg for call in found for arg in call[1:] if arg.startswith("dpose ") and call[0] != "dpose"]
    return found + [call for script in inner for call in calls(script, folder)]


def dpose_arguments(call: list[str]) -> list[str] | None:
    """What `dpose` gets in a call of itself or of a launcher; None for other programs."""
    for name in ("dpose", "dpose.cli"):
        if name in call and (call[0] == name or call[0] in ("srun", "torchrun", "python", "python3")):
            return call[call.index(name) + 1 :]
    return None


def check_dpose(arguments: list[str]) -> argparse.Namespace:
    """Parse the arguments of `dpose`, and check the names in them that argparse does not know."""
    arguments = _join_numbers(arguments)
    args = _parser(arguments).parse_args(arguments)
    if (preset := getattr(args, "preset", None)) not in (None, "auto"):
        dpose.preset(preset)
    if getattr(args, "recipe", None):
        recipe(args.recipe)
    if arguments[0] == "experiment":
        assert set(args.variants or ()) <= EXPERIMENTS[args.name].variants.keys(), args.variants
    return args


def check_papermill(call: list[str]) -> None:
    """The notebook exists and has the parameters."""
    notebook = ROOT / call[1]
    script = notebook.with_suffix(".py")
    assert notebook.suffix == ".ipynb" and script.is_file(), f"there is no notebook {call[1]}"
    text = script.read_text(encoding="utf-8")
    cells = re.split(r"^# %%", text, flags=re.M)
    cell = next(part for part in cells if '"parameters"' in part.split("\n")[0])
    names = {target.id for line in ast.parse(f"#{cell}").body for target in line.targets}
    given = [call[i + 1] for i, word in enumerate(call) if word in ("-p", "-r")]
    for i, word in enumerate(call):
        given += yaml.safe_load(call[i + 1]) if word == "-y" else []
    assert set(given) <= names, f"{script.name} has no parameter {', '.join(set(given) - names)}"


def check_make(call: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    wanted = {word for word in call[1:] if "=" not in word}
    assert wanted <= set(targets), f"the Makefile has no target {', '.join(wanted - set(targets))}"


def check(call: list[str]) -> None:
    """Raises if a call names an option, notebook, parameter, target or script that does not exist."""
    arguments = dpose_arguments(call)
    if arguments is not None:
        try:
            check_dpose(arguments)
        except SystemExit as stop:
            assert not stop.code, f"dpose {' '.join(arguments)}"
    elif call[0] == "papermill":
        check_papermill(call)
    elif call[0] == "make":
        check_make(call)
    elif call[0] in ("python", "python3") and call[1].endswith(".py"):
        assert (ROOT / call[1]).is_file(), f"there is no script {call[1]}"


def check_python(code: str) -> None:
    """The code compiles; what it imports from dpose exists, and is called with arguments that it has."""
    tree, known = ast.parse(code), {"dpose": dpose}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "dpose":
            module = importlib.import_module(node.module)
            known |= {alias.asname or alias.name: getattr(module, alias.name) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
            getattr(known[node.value.id], node.attr)
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        target = known.get(function.id) if isinstance(function, ast.Name) else None
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            target = getattr(known.get(function.value.id), function.attr, None)
        spread = any(isinstance(one, ast.Starred) for one in node.args) or any(
            keyword.arg is None for keyword in node.keywords
        )
        if target is not None and not spread:
            inspect.signature(target).bind(*node.args, **{one.arg: one.value for one in node.keywords})


def old_bash() -> bool:
    """Whether bash is missing, or has no `command_not_found_handle` (before version 4)."""
    bash = shutil.which("bash")
    return bash is None or subprocess.run([bash, "-c", "((BASH_VERSINFO >= 4))"], check=False).returncode != 0


needs_bash = pytest.mark.skipif(old_bash(), reason="needs bash 4")


@needs_bash
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_command_of_a_page_exists_with_its_options(path, tmp_path):
    for call in all_calls(path, tmp_path):
        check(call)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_python_code_in_the_prose_of_a_page_uses_what_exists(path):
    for code in blocks(path, "python"):
        check_python(code)


EXECUTED = [path for path in PROSE if CELL.search(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("path", EXECUTED, ids=lambda path: path.name)
def test_the_cells_of_a_page_of_prose_run(path):
    names: dict = {}
    for code in CELL.findall(path.read_text(encoding="utf-8")):
        exec(compile(code, path.name, "exec"), names)


# --- the real data


REAL_DATA = ROOT / "book" / "real_data.md"
TRAINED = ("paper", "paper-no-depth", "paper-cliff", "paper-hmr", "paper-pare")
SETS = ("3dpw", "emdb", "rich")


@needs_bash
def test_the_page_of_real_data_trains_every_preset_of_the_papers_size_and_measures_it_on_every_set(tmp_path):
    commands = [one for call in all_calls(REAL_DATA, tmp_path) if (one := dpose_arguments(call))]
    parsed = [check_dpose(arguments) for arguments in commands if "--help" not in arguments]
    training = [args for args in parsed if hasattr(args, "data") and hasattr(args, "preset")]
    trained = {Path(args.out).name: args for args in training if not hasattr(args, "steps")}  # not the trial
    assert {args.preset for args in trained.values()} == set(TRAINED)
    assert set(TRAINED) == {name for name in dpose.config.PRESETS if name.startswith("paper")}
    measured = [args for args in parsed if hasattr(args, "checkpoint")]
    runs = {(Path(args.checkpoint).parent.name, Path(args.data).name) for args in measured}
    assert {(run, data) for run in trained for data in SETS} <= runs
    prepared = {Path(args.out).name for args in parsed if getattr(args, "set", None)}
    used = {Path(data).name for args in trained.values() for data in args.data}
    assert prepared >= {*SETS, *used} and used == {"bedlam", "agora"}
    assert len({args.out for args in measured}) == len(measured)  # no record replaces another one


@needs_bash
def test_records_of_the_page_of_real_data_are_shown_by_the_page_of_tables(tmp_path):
    tables = (ROOT / "notebooks" / "tables.py").read_text(encoding="utf-8")
    shown = ast.literal_eval(re.search(r"= (\{\"3dpw\": .*?\})", tables, flags=re.S)[1])
    for call in all_calls(REAL_DATA, tmp_path):
        arguments = dpose_arguments(call)
        if arguments and arguments[0] == "evaluate":
            args = check_dpose(arguments)
            assert Path(args.data).name in shown and Path(args.out).parent == Path("results")


def test_the_folders_of_the_page_are_found_as_they_are_drawn(tmp_path):
    from dpose.body import files

    for name in (
        "models_smplx_v1_1/models/smplx/SMPLX_NEUTRAL.npz",
        "SMPL_python_v.1.1.0/smpl/models/basicmodel_m_lbs_10_207_0_v1.1.0.pkl",
        "utils/smplx2smpl.pkl",
        "utils/J_regressor_h36m.npy",
    ):
        assert name.split("/")[-1] in REAL_DATA.read_text(encoding="utf-8")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for key in ("smplx-neutral", "smpl-male", "smplx2smpl", "h36m"):
        assert files.find(key, tmp_path) is not None, key


def run_block(fact: str, home: Path) -> str:
    """Runs the page's only shell block that contains `fact`, in `home`; returns what it prints."""
    (script,) = [block for block in blocks(REAL_DATA, "sh", "bash") if fact in block]
    environment = {"PATH": f"{home / 'bin'}:{os.environ['PATH']}", "HOME": str(home)}
    done = subprocess.run(
        [shutil.which("bash"), "--norc", "--noprofile", "-c", script],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.stdout


def frames(folder: Path, count: int, step: int, end: str) -> None:
    folder.mkdir(parents=True)
    for number in range(0, count, step):
        (folder / f"seq_{number:04}{end}").touch()


@needs_bash
def test_unused_depth_is_listed_before_it_is_deleted_and_kept_where_images_do_not_fit(tmp_path):
    bedlam = tmp_path / "data" / "bedlam"
    scenes = ("fits", "no images", "other names", "half the images", "batch01handhair_gym")
    for scene in scenes:
        frames(bedlam / scene / "depth" / "seq", 31, 1, "_depth.exr")
    for scene, count, end in (
        ("fits", 31, ".png"),
        ("other names", 31, "_x.png"),
        ("half the images", 16, ".png"),
        ("batch01handhair_gym", 31, ".png"),
    ):
        frames(bedlam / scene / "png" / "seq", count, 5, end)
    printed = run_block("> unused.txt", tmp_path)
    left = [scene for scene in scenes if f"/{scene}/" in printed]
    assert left == ["no images", "other names", "half the images"] and printed.endswith("24\n")
    assert len(list(bedlam.glob("*/depth/seq/*"))) == 31 * len(scenes)  # nothing is deleted yet

    run_block("xargs", tmp_path)
    kept = {scene: sorted((bedlam / scene / "depth" / "seq").iterdir()) for scene in scenes}
    assert [path.name for path in kept.pop("fits")] == [f"seq_{n:04}_depth.exr" for n in range(0, 31, 5)]
    assert {len(paths) for paths in kept.values()} == {31}
    run_block("> unused.txt", tmp_path)
    assert "/fits/" not in (tmp_path / "unused.txt").read_text()


@needs_bash
def test_scenes_are_prepared_one_by_one_and_raw_files_deleted_only_after_success(tmp_path):
    labels = tmp_path / "data" / "bedlam" / "labels" / "a.npz"
    program = tmp_path / "bin" / "dpose"
    for path in (labels, program, tmp_path / "data" / "parts" / "other" / "kept"):
        path.parent.mkdir(parents=True)
        path.touch()
    # fails in scene b, as `dpose prepare` would
    program.write_text(
        'test -f "$4/labels/a.npz" && test -f "$4/${4##*/}/png/0.png" && test ! -f "$4/b/png/0.png" &&\n'
        'mkdir -p "$6/shards" && touch "$6/shards/manifest.json" && echo "${4##*/}"\n'
    )
    program.chmod(0o755)
    for scene in "abc":
        image = tmp_path / scene / "png" / "0.png"
        image.parent.mkdir(parents=True)
        image.touch()
        (tmp_path / "archives" / scene).mkdir(parents=True)
        archive = tmp_path / "archives" / scene / f"{scene}_6fps.tar"
        subprocess.run(["tar", "-c", "-f", archive, "-C", tmp_path, scene], check=True)
    assert run_block("archives", tmp_path) == "a\n"  # and stops at b
    parts = tmp_path / "data" / "parts"
    assert {path.name for path in parts.iterdir()} == {"b", "other"} and (parts / "b" / "b").is_dir()
    (tmp_path / "archives" / "b").rename(tmp_path / "b.tars")
    assert run_block("archives", tmp_path) == "c\n"  # a is not prepared again
    assert labels.is_file()


def test_the_onnx_example_gives_the_bodies_of_the_predictor(tmp_path, monkeypatch):
    from dpose.model import checkpoint
    from dpose.model.onnx_file import _Graph

    class Session:
        """`onnxruntime.InferenceSession` of the graph's torch modules; test_onnx_file compares the two."""

        def __init__(self, path):
            self.graph = _Graph(checkpoint.load(Path(path).stem))

        def run(self, names, inputs):
            with torch.no_grad():
                found = dict(self.graph.named_outputs(*map(torch.from_numpy, inputs.values())))
            return [found[name].numpy() for name in names]

    monkeypatch.setitem(sys.modules, "onnxruntime", types.SimpleNamespace(InferenceSession=Session))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 256, (15, 20, 3), np.uint8), (1200, 900))
    cv2.imwrite("photo.jpg", picture)
    (code,) = [block for block in blocks(REAL_DATA, "python") if "onnxruntime" in block]
    names: dict = {}
    exec(compile(code, REAL_DATA.name, "exec"), names)
    (person,) = dpose.predict("photo.jpg", names["box"], "lite", device="cpu", fast=False)
    assert np.abs(names["posed"].vertices[0].numpy() - person.vertices).max() < 1e-3
    # below its minimum, the scale's inverse is that of the package
    line = next(line for line in code.splitlines() if line.startswith("inverse ="))
    for s in (-0.3, 0.05, 0.1, 0.7):
        exec(line, values := {"s": s})
        unit = dpose.camera.full_translation(
            torch.tensor([s, 0, 0]), torch.zeros(2), torch.tensor(1 / 200), torch.eye(3)
        )
        assert 2 * values["inverse"] == pytest.approx(float(unit[2]), rel=1e-5)


# --- the check itself


@needs_bash
@pytest.mark.parametrize(
    ("script", "fact"),
    [
        ("dpose train --presett lite", "presett"),
        ("for p in lite nothing; do dpose train --preset $p; done", "nothing"),
        ("dpose train \\\n  --mix one", "mix"),
        ("papermill notebooks/train.ipynb run.ipynb -p step 3", "step"),
        ('papermill notebooks/train.ipynb run.ipynb -y "{datta: [a, b]}"', "datta"),
        ("papermill notebooks/trian.ipynb run.ipynb", "trian"),
        ("srun --nodes 2 dpose train --node 2 --no-such", "no-such"),
        ("sbatch --wrap 'dpose synth --rooot /data'", "rooot"),
        ("make bok", "bok"),
        ("python benchmarks/nothing.py", "nothing"),
        ("dpose experiment ablation --variants lite large", "large"),
    ],
)
def test_a_command_that_does_not_exist_is_found(script, fact, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"Text.\n\n```sh\n{script}\n```\n")
    with pytest.raises((AssertionError, ValueError)) as caught:
        for call in all_calls(page, tmp_path):
            check(call)
    assert fact in str(caught.value) + capsys.readouterr().err


@pytest.mark.parametrize(
    "code",
    [
        "from dpose.evaluate import no_such_name",
        "import dpose\ndpose.no_such_function()",
        "from dpose.evaluate import evaluate\nevaluate(checkpoints='lite')",
        "print(",
    ],
)
def test_code_that_does_not_fit_the_package_is_found(code):
    with pytest.raises((AttributeError, TypeError, SyntaxError)):
        check_python(code)
