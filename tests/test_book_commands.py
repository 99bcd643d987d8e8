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
from pathlib import Path

import pytest
import yaml

import dpose
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
    trained = {Path(args.out).name: args for args in training}
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
