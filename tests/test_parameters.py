"""Parameters of papermill that a notebook does not have are refused in its first cells."""

import subprocess
import sys

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbformat.v4 import new_code_cell, new_notebook
from papermill.translators import PythonTranslator

from dpose.figures import check_parameters

DEFAULTS = "steps = 80  # of the optimiser\nlr = 0.1\ndata = None\npreset = 'auto'\nshown = [3, 14]"
SETUP = "from dpose.figures import check_parameters\ncheck_parameters()"


def notebook():
    cells = [new_code_cell(DEFAULTS, metadata={"tags": ["parameters"]})]
    cells.append(new_code_cell(SETUP, metadata={"tags": ["remove-input"]}))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


@pytest.fixture
def shell():
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def run(shell, parameters) -> None:
    """Run the cells that papermill makes of the notebook."""
    injected = [PythonTranslator.codify(parameters, "Parameters")] if parameters else []
    for cell in (DEFAULTS, *injected, SETUP):
        shell.run_cell(cell, store_history=True).raise_error()


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"steps": 20, "lr": 1, "preset": "mini", "shown": [1]},
        {"data": ["/one", "/two"], "lr": float("inf")},
        {"data": "/one"},
    ],
    ids=str,
)
def test_papermill_may_set_each_parameter_that_the_first_cell_assigns(shell, parameters):
    run(shell, parameters)


@pytest.mark.parametrize(
    ("parameters", "facts"),
    [
        ({"stpes": 20}, ["stpes", "mean steps", "lr", "data", "preset", "shown"]),
        ({"steps": 20, "dataset": "/one"}, ["dataset", "mean data"]),
        ({"steps": "20"}, ["steps", "'20'", "type str", "type int"]),
        ({"steps": 20.0}, ["steps", "20.0", "type float", "type int"]),
        ({"steps": True}, ["steps", "type bool", "type int"]),
        ({"lr": "0.1"}, ["lr", "type str", "type float"]),
        ({"preset": None}, ["preset", "NoneType", "type str"]),
        ({"shown": 3}, ["shown", "type int", "type list"]),
    ],
    ids=str,
)
def test_a_mistyped_parameter_of_papermill_is_refused_with_the_names_there_are(shell, parameters, facts):
    with pytest.raises(ValueError) as error:
        run(shell, parameters)
    for fact in facts:
        assert fact in str(error.value)


def test_papermill_stops_at_a_mistyped_parameter_and_takes_a_list(tmp_path):
    nbformat.write(notebook(), tmp_path / "notebook.ipynb")
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(tmp_path / "notebook.ipynb"),
        str(tmp_path / "out.ipynb"),
    ]
    done = subprocess.run([*command, "-y", "data: [/one, /two]"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([*command, "-p", "stpes", "20"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ValueError: this notebook has no parameter stpes" in done.stderr


def test_outside_of_ipython_nothing_is_checked():
    check_parameters()
