"""Scripts that build the book: what is dropped and shortened afterwards, and how an error is reported."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("jupyter_book")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import build_book  # noqa: E402
import slim_book  # noqa: E402

PAGE = """<script defer src="../_static/scripts/fontawesome.js?digest=1"></script>
<script defer src="../_static/scripts/theme.js"></script>
<img alt="a" src="../_images/diagram.png"/><a href="../_images/photo.png">x</a>
<img src="../_static/kept.png"/>
<a class="reference"
href="x.html"><img src="../_images/photo.png"/></a>
<code><span class="pre">name</span></code><summary aria-label="Toggle hidden content">Show</summary>
<button class="btn search-button-field x" title="Search" aria-label="Search">Search <kbd>K</kbd></button>
<pre><span class="k">def</span><span class="w"> </span><span class="nf">f</span><span class="n">a</span></pre>
"""


@pytest.fixture
def html(tmp_path):
    for name in (
        "index.html",
        "_static/theme.css",
        "_static/theme.css.map",
        "_static/scripts/theme.js",
        "_static/scripts/theme.js.map",
        "_static/scripts/fontawesome.js",
        "_static/vendor/icons.woff2",
        "_static/vendor/icons.ttf",
        "_static/locales/de/x.mo",
        "_static/mathjax/tex-chtml.js",
        "_static/mathjax/tex-chtml-full.js",
        "_static/mathjax/tex-svg.js",
        "_static/mathjax/input/tex.js",
        "_static/mathjax/output/svg/fonts/tex.js",
        "_static/mathjax/output/chtml.js",
        "_static/mathjax/output/chtml/fonts/tex.js",
        "_static/mathjax/output/chtml/fonts/woff-v2/Main.woff",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("content", encoding="utf-8")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "page.html").write_text(PAGE, encoding="utf-8")
    (tmp_path / "_images").mkdir()
    diagram = np.zeros((200, 300, 4), np.uint8)
    diagram[50:60, :, :] = [0, 100, 200, 255]
    Image.fromarray(diagram).save(tmp_path / "_images" / "diagram.png")
    rows, columns = np.mgrid[:300, :400]
    noise = np.random.default_rng(0).normal(0, 6, (300, 400, 3))
    photo = np.stack([rows / 2, columns / 2, 60 + (rows + columns) / 8], 2) + noise
    Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(tmp_path / "_images" / "photo.png")
    return tmp_path


def test_only_what_no_page_uses_is_dropped(html):
    slim_book.slim(html)
    left = {path.relative_to(html).as_posix() for path in html.rglob("*") if path.is_file()}
    assert {name for name in left if name.startswith("_static")} == {
        "_static/theme.css",
        "_static/scripts/theme.js",
        "_static/vendor/icons.woff2",
        "_static/mathjax/tex-chtml.js",
        "_static/mathjax/output/chtml/fonts/woff-v2/Main.woff",
    }


def test_a_diagram_keeps_each_pixel_and_a_photograph_looks_the_same_at_a_fraction_of_the_size(html):
    with (
        Image.open(html / "_images" / "diagram.png") as diagram,
        Image.open(html / "_images" / "photo.png") as photo,
    ):
        before, photo_before = np.array(diagram), np.array(photo, float)
    size = (html / "_images" / "photo.png").stat().st_size
    slim_book.slim(html)
    assert not list((html / "_images").glob("*.png"))
    with Image.open(html / "_images" / "diagram.webp") as diagram:
        assert np.array_equal(np.array(diagram), before)
    with Image.open(html / "_images" / "photo.webp") as photo:
        assert np.abs(np.array(photo, float) - photo_before).mean() < 6
    assert (html / "_images" / "photo.webp").stat().st_size < 0.4 * size


def test_pages_name_the_new_files_and_lose_only_tags_that_do_nothing(html):
    slim_book.slim(html)
    text = (html / "notebooks" / "page.html").read_text(encoding="utf-8")
    assert 'src="../_images/diagram.webp"' in text and 'href="../_images/photo.webp"' in text
    assert (
        '<img src="../_static/kept.png"/>' in text
        and "fontawesome" not in text
        and "scripts/theme.js" in text
    )
    assert "<code>name</code><summary>Show</summary>" in text
    assert '<button class="btn search-button-field x" title="Search">Search' in text
    assert '<pre><span class="k">def</span> <span class="nf">f</span>a</pre>' in text


def test_a_picture_is_a_link_to_its_own_file_unless_it_is_in_a_link(html):
    slim_book.slim(html)
    text = (html / "notebooks" / "page.html").read_text(encoding="utf-8")
    links = re.findall(r'<a [^>]*href="([^"]+)"[^>]*><img [^>]*src="([^"]+)"[^>]*></a>', text)
    assert links == [
        ("../_images/diagram.webp", "../_images/diagram.webp"),
        ("x.html", "../_images/photo.webp"),
    ]


def test_a_failed_notebook_is_reported_with_page_cell_and_exception(tmp_path, monkeypatch):
    from myst_nb.core.execute import ExecutionError

    class CellExecutionError(Exception):
        ename, evalue = "KeyError", "'missing'"

    cells = [{"source": ["# Title"]}, {"source": ["a = 1\n", "b = {}['missing']"]}, {"source": []}]
    (tmp_path / "notebooks").mkdir()
    path = tmp_path / "notebooks" / "page.ipynb"
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    monkeypatch.setattr(build_book, "ROOT", tmp_path)
    error = ExecutionError(str(path))
    error.__cause__ = CellExecutionError("------\na = 1\nb = {}['missing']\n------\ntraceback")
    last = build_book.describe(error).splitlines()[-1]
    assert last == "notebooks/page.ipynb, cell 2 of 3: KeyError: 'missing'"
