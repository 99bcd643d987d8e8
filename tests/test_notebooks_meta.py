"""The notebook files: .py and .ipynb in sync, no outputs, parameters for papermill, all in the book."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def test_each_notebook_is_in_sync_with_its_script():
    command = [sys.executable, str(ROOT / "scripts" / "sync_notebooks.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_stores_no_output(path):
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert code
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_one_cell_of_parameters_that_are_plain_values(path):
    import ast

    tagged = [cell for cell in cells(path) if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    for statement in ast.parse("".join(tagged[0]["source"])).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)  # raises on anything that is computed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_mocked_parameters_exist(path):
    import ast

    for cell in cells(path):
        mock = cell["metadata"].get("nbmake", {}).get("mock", {})
        names = {t.id for s in ast.parse("".join(cell["source"])).body for t in s.targets} if mock else set()
        assert mock.keys() <= names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_checks_its_parameters_first(path):
    first, *others = ["".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code"]
    parameters = [cell for cell in cells(path) if "parameters" in cell["metadata"].get("tags", [])]
    assert first == "".join(parameters[0]["source"])
    assert re.match(r"from dpose\.figures import check_parameters\n+check_parameters\(\)\n", others[0])


def test_the_book_has_every_notebook_and_only_pages_that_exist():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    sections = [section["file"] for chapter in chapters for section in chapter.get("sections", ())]
    pages = [toc["root"], *(chapter["file"] for chapter in chapters), *sections]
    assert {page for page in pages if page.startswith("notebooks/")} == {
        f"notebooks/{path.stem}" for path in NOTEBOOKS
    }
    assert all(any((ROOT / f"{page}{end}").exists() for end in (".md", ".ipynb")) for page in pages)


def test_the_training_notebook_takes_the_parameters_that_the_readme_names():
    source = next(
        "".join(cell["source"])
        for cell in cells(ROOT / "notebooks" / "train.ipynb")
        if "parameters" in cell["metadata"].get("tags", [])
    )
    for name in ("steps", "preset", "data", "batch_size", "lr", "seed", "resume"):
        assert f"{name} =" in source


def test_the_first_interactive_figure_of_a_kernel_contains_plotly_and_none_in_the_book(monkeypatch):
    go = pytest.importorskip("plotly.graph_objects")
    from dpose.figures import meshes, plotly_html

    figure = go.Figure(go.Scatter(x=[0, 1], y=[1, 0], name="</script>"))
    monkeypatch.setattr(meshes, "_library_sent", False)
    monkeypatch.delenv("DPOSE_BOOK", raising=False)
    first, second = plotly_html(figure).data, plotly_html(figure).data
    assert len(first) > 3_000_000 > 20_000 > len(second) > 1000
    assert second.count("</script>") == 1  # nothing in the data can end the script early
    monkeypatch.setattr(meshes, "_library_sent", False)
    monkeypatch.setenv("DPOSE_BOOK", "1")
    assert len(plotly_html(figure).data) < 20_000


def test_a_table_escapes_its_cells():
    from dpose.figures import html_table

    text = html_table(("a", "b"), [("<b>", "1")], ours=[0]).data
    assert "&lt;b&gt;" in text and '<tr class="ours">' in text
    assert text.count('<th scope="col"') == 2 and text.count("scope") == 2
    with pytest.raises(ValueError):
        html_table(("a", "b"), [("only one",)])
    with pytest.raises(ValueError, match="header"):
        html_table(("a", " "), [("1", "2")])


def test_the_caption_of_a_table_ends_with_one_full_stop_and_a_name_needs_a_caption():
    from dpose.figures import html_table

    for caption in ("One. Two", "One. Two."):
        text = html_table(("a",), [("1",)], caption, name="tab-a").data
        assert '<table class="dpose" id="tab-a"><caption>One. Two.</caption>' in text
    with pytest.raises(ValueError, match="tab-a"):
        html_table(("a",), [("1",)], name="tab-a")
