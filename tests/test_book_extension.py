"""The Sphinx extension of the book, on a small book of three pages that is built once."""

import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

pytest.importorskip("myst_nb")
ROOT = Path(__file__).resolve().parents[1]
LONG_TEXT = " ".join(["word"] * 990)  # with the ten or so words of the title and the captions: five minutes

FIRST = r"""
# First

:::{chapter}
:needs: [the second page](notebooks/second.ipynb), convolutions
:learn: what *one* is; how `two` works
:::

See {eqn}`5` and {eqn}`7b`. {source}`dpose.model.hrnet:34`
{py:obj}`dpose.preset` and {py:obj}`~library.Thing.size`

```{toctree}
third
notebooks/second
```
"""

API = """
# API

```{eval-rst}
.. automodule:: dpose.config
.. automodule:: library
```
"""

LIBRARY = '''
"""A module about `Thing`s.

    first = 1 | 2
    second = *first

A place (https://), `LIMIT`s and |text| goes on.
"""

from typing import NamedTuple
from dpose.config import HEADS

SIDE = 8  # pixels: of everything

# of all things,
# and more
LIMIT = 9
_HIDDEN = 1  # private

class Caller:
    """A caller."""

    def __call__(self, word: str) -> str:
        """Says the word."""

    @property
    def pace(self) -> float:
        """Metres per second: how fast it calls. None: not yet."""

    @property
    def risky(self) -> int:
        """A number.

        Raises:
            ValueError: there is none.
        """

class Thing(NamedTuple):
    """A thing.

    Attributes:
        name: how it is called.
    """

    name: str
    size: int  # (B, 3) metres: its size
    plain: int
'''

THIRD = r"""
# Third

See {eqn}`99`, {tab}`tab-three`, {tab}`tab-two`, {tab}`tab-four`, and {py:obj}`dpose.no_such_name`.

$$ again = 1 \tag{5} $$

![](picture.png)

```{figure} picture.png
:alt: A square

Its caption
```

```{raw} html
<table class="dpose"><caption>One</caption><tr><td>1</td></tr></table>
<table class="dpose"><tr><td>1</td></tr></table>
<table class="dpose" id="tab-two"><caption>Two</caption><tr><td>1</td></tr></table>
```
"""

CELLS = [
    r"""# Second

:::{chapter}
:needs: nothing
:learn: one thing
:::

WORDS

$$ a = b \tag{5} $$

$$
c &= d \\
e &= f
\tag{7b}
$$

$$ no = number $$""",
    ({}, "from IPython.display import HTML, Image, Markdown\nimport base64"),
    ({}, "Markdown('Computed, see {eqn}`5`.')"),
    (
        {"mystnb": {"figure": {"caption": "A **red** dot.", "name": "fig-dot"}}},
        "Image(base64.b64decode(PNG))",
    ),
    ({"mystnb": {"image": {"alt": "given"}}}, "Image(base64.b64decode(PNG))"),
    ({"tags": ["hide-cell"]}, "Markdown('folded ' * 5000)"),
    ({}, "from dpose.figures import html_table"),
    ({}, "html_table(['a'], [['1']], 'Three', name='tab-three')"),
    (
        {},
        "Markdown('{source}`dpose.model.attention:12` {source}`dpose.model.hrnet:34`')",
    ),
]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="


def write_book(folder: Path, repository: str, execution: str) -> None:
    import base64

    from nbformat import v4, write

    (folder / "notebooks").mkdir(parents=True)
    (folder / "first.md").write_text(FIRST, encoding="utf-8")
    (folder / "third.md").write_text(THIRD, encoding="utf-8")
    (folder / "book" / "api").mkdir(parents=True)
    (folder / "book" / "api" / "all.md").write_text(API, encoding="utf-8")
    (folder / "book" / "licence.md").write_text("# Licence", encoding="utf-8")
    (folder / "library.py").write_text(LIBRARY, encoding="utf-8")
    (folder / "picture.png").write_bytes(base64.b64decode(PNG))
    cells = [v4.new_markdown_cell(CELLS[0].replace("WORDS", LONG_TEXT))]
    cells += [v4.new_code_cell(code.replace("PNG", repr(PNG)), metadata=data) for data, code in CELLS[1:]]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    write(notebook, folder / "notebooks" / "second.ipynb")
    (folder / "notebooks" / "second.py").write_text("# the script", encoding="utf-8")
    settings = {
        "extensions": ["myst_nb", "sphinx.ext.mathjax", "dpose_book", "dpose_api"],
        "autodoc_default_options": {"members": True, "undoc-members": True, "no-value": True},
        "default_role": "py:obj",
        "root_doc": "first",
        "exclude_patterns": ["book", "third.md"] if repository else [],
        "html_theme": "sphinx_book_theme",
        "myst_enable_extensions": ["colon_fence", "dollarmath"],
        "nb_execution_mode": execution,
        "nb_render_markdown_format": "myst",
        "numfig": True,
        "dpose_repository": repository,
        "suppress_warnings": ["toc.not_included"],
    }
    (folder / "conf.py").write_text("\n".join(f"{k} = {v!r}" for k, v in settings.items()), encoding="utf-8")


def build(folder: Path, repository: str = "", execution: str = "force") -> tuple[Path, str]:
    """Build the book in `folder`; returns the folder of its pages, and the warnings."""
    write_book(folder, repository, execution)
    html = folder / "html"
    path = os.pathsep.join([str(ROOT), str(ROOT / "book" / "_ext"), str(folder)])
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", str(folder), str(html)],
        env=os.environ | {"PYTHONPATH": path, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return html, done.stderr


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    return build(tmp_path_factory.mktemp("book"))


def page(html: Path, name: str) -> str:
    return unescape((html / name).read_text(encoding="utf-8"))


def box(html: Path, name: str) -> str:
    return re.search(r'<div class="dpose-chapter.*?</div>', page(html, name), re.DOTALL)[0]


def test_the_box_of_a_page_shows_what_it_needs_and_teaches(book):
    text = box(book[0], "first.html")
    assert re.search(
        r'href="notebooks/second\.html">.*?the second page.*?</a>, convolutions', text, re.DOTALL
    )
    items = re.findall(r"<li><p>(.*?)</p>", text)
    assert len(items) == 2 and "<em>one</em>" in items[0] and "two" in items[1]


def test_the_box_counts_what_is_read_and_not_what_is_folded(book):
    # 1,000 words at 200 a minute; two pictures, a table and three equations at 20 seconds
    assert re.search(r">7\xa0min to read<", box(book[0], "notebooks/second.html"))
    assert re.search(r">1\xa0min to read<", box(book[0], "first.html"))


def test_the_box_of_a_notebook_has_its_run_time_and_two_files_to_download(book):
    html, _ = book
    text = box(html, "notebooks/second.html")
    assert re.search(r"· \d+\xa0s to run on \d+ cores of \w", text)
    files = [html / "notebooks" / link for link in re.findall(r'download="" href="([^"]+)"', text)]
    assert [file.name for file in files] == ["second.ipynb", "second.py"]
    assert files[1].read_text() == "# the script"
    assert "to run on" not in box(html, "first.html") and "download" not in box(html, "first.html")


def test_without_an_address_of_the_repository_nothing_links_to_it(book):
    for name in ("first.html", "notebooks/second.html"):
        assert not re.search(r"mybinder|colab|/blob/", page(book[0], name))


def test_with_an_address_the_box_links_to_source_binder_and_colab_and_code_to_its_line(tmp_path):
    html, _ = build(tmp_path, "https://github.com/someone/dpose", execution="off")
    text, first = box(html, "notebooks/second.html"), page(html, "first.html")
    notebook = "notebooks/second.ipynb"
    assert f'href="https://github.com/someone/dpose/blob/main/{notebook}"' in text
    assert f'href="https://mybinder.org/v2/gh/someone/dpose/main?urlpath=lab/tree/{notebook}"' in text
    assert f'href="https://colab.research.google.com/github/someone/dpose/blob/main/{notebook}"' in text
    assert re.search(r'href="https://github.com/someone/dpose/blob/\w+/dpose/model/hrnet\.py#L34"', first)
    assert "mybinder" not in box(html, "first.html") and "/blob/main/first.md" in box(html, "first.html")


def test_a_numbered_equation_is_linked_from_every_page(book):
    html, _ = book
    first, second = page(html, "first.html"), page(html, "notebooks/second.html")
    assert re.search(r'href="notebooks/second\.html#eq-5"><span[^>]*>eq\.\xa05<', first)
    assert 'href="notebooks/second.html#eq-7b"' in first
    assert re.search(r'Computed, see <a [^>]*href="#eq-5"', second)
    anchors = re.findall(r'<div class="math[^"]*" id="(eq-[^"]*)">', second)
    assert anchors == ["eq-5", "eq-7b"]


def test_an_equation_of_several_lines_keeps_its_number_outside_of_them(book):
    text = page(book[0], "notebooks/second.html")
    several = re.search(r"\\begin\{equation\}\\begin\{split\}(.*?)\\end\{split\}(.*?)\\end", text, re.DOTALL)
    assert r"c &= d \\" in several[1] and "tag" not in several[1]
    assert several[2] == r"\tag{7b}"
    assert r"\[a = b \tag{5}\]" in re.sub(r"(?<=\[) | (?=\\\])", "", text)


def test_what_refers_to_nothing_and_what_is_there_twice_is_reported(book):
    warnings = book[1]
    assert re.search(r"third\.md.*eq-99", warnings)
    assert re.search(r"third\.md.*equation 5 .*notebooks/second", warnings)
    assert re.search(r"third\.md.*dpose\.no_such_name", warnings)


def test_a_picture_has_the_caption_as_alternative_text_and_one_without_either_is_reported(book):
    html, warnings = book
    assert re.findall(r'<img alt="([^"]*)"', page(html, "notebooks/second.html")) == ["A red dot.", "given"]
    assert 'alt="A square"' in page(html, "third.html")
    assert re.findall(r"(\w+)\.\w+:.*picture", warnings) == ["third"]


def test_tables_with_a_caption_are_numbered_in_the_order_of_the_pages(book):
    html, _ = book
    shown = [re.sub("<[^>]+>", "", page(html, name)) for name in ("third.html", "notebooks/second.html")]
    assert re.findall(r"Table\s(B\d+)\s([A-Z][a-z]+)", shown[0]) == [("B1", "One"), ("B2", "Two")]
    assert re.findall(r"Table\s(B\d+)\s([A-Z][a-z]+)", shown[1]) == [("B3", "Three")]


def test_a_table_is_referred_to_by_its_name_from_any_page(book):
    html, warnings = book
    links = re.findall(r'<a [^>]*href="([^"]*#tab-[^"]*)"[^>]*>(.*?)</a>', page(html, "third.html"))
    assert [(address, re.sub("<[^>]+>", "", text)) for address, text in links] == [
        ("notebooks/second.html#tab-three", "Table\xa0B3"),
        ("#tab-two", "Table\xa0B2"),
    ]
    assert 'id="tab-three"' in page(html, "notebooks/second.html")
    assert re.search(r"third\.md.*tab-four", warnings)
    assert "tab-two" not in warnings


def test_shown_code_links_to_its_line_on_a_page_of_the_book(book):
    html, _ = book
    text = page(html, "notebooks/second.html")
    for module, line in (("attention", 12), ("hrnet", 34)):
        link = f"source/dpose/model/{module}.html"
        found = re.search(rf'href="\.\./{re.escape(link)}#line-{line}"(.*?)</a>', text, re.DOTALL)
        assert f"dpose/model/{module}.py:{line}" in re.sub("<.*?>", "", found[1] + "<i>")
        code = (ROOT / "dpose" / "model" / f"{module}.py").read_text(encoding="utf-8").splitlines()
        shown = re.split(rf'id="line-(?:{line}|{line + 1})"', page(html, link))[1]
        assert re.sub("<[^>]*>", "", f"<a{shown}>").rstrip("\n") == code[line - 1]
    assert not (html / "source" / "dpose" / "losses.html").exists()


def test_names_of_the_package_lead_to_the_api_page_also_where_they_are_imported_from_elsewhere(book):
    html, warnings = book
    first = page(html, "first.html")
    assert 'href="book/api/all.html#dpose.config.preset"' in first
    assert re.search(
        r'href="book/api/all.html#library.Thing.size"[^>]*><code[^>]*><span class="pre">size<', first
    )
    assert not re.search("preset|library", warnings)


def test_the_api_page_describes_fields_and_constants_by_their_comments(book):
    api = re.sub("<[^>]+>", "", page(book[0], "book/api/all.html"))
    library = re.split(r"A module about Things\.", api)[1]
    for name, text in (
        ("SIDE", "8: pixels: of everything"),
        ("LIMIT", "9: of all things,\\s+and more"),
        ("size: int", r"\(B, 3\) metres: its size"),
        ("name", "how it is called."),
    ):
        assert re.search(rf"[\s.]{name}#\s+{text}", library), name
    assert library.count("how it is called") == 1 and "Alias" not in library
    assert "library.HEADS" not in api and "_HIDDEN" not in api


def test_the_api_page_describes_calls(book):
    api = re.sub("<[^>]+>", "", page(book[0], "book/api/all.html"))
    assert re.search(r"__call__\(word: str\) → str#\s+Says the word\.", unescape(api))


def test_the_api_page_keeps_the_colons_of_properties_and_their_sections(book):
    api = unescape(re.sub("<[^>]+>", "", page(book[0], "book/api/all.html")))
    assert re.search(r"property pace: float#\s+Metres per second: how fast it calls\. None: not yet\.", api)
    assert re.search(r"property risky: int#\s+A number\.\s+Raises:\s+ValueError – there is none", api)


def test_the_api_page_shows_indented_blocks_of_docstrings_as_code(book):
    html, warnings = book
    api = page(html, "book/api/all.html")
    code = re.search(r"<pre>((?:(?!</pre>).)*first.*?)</pre>", api, re.DOTALL)[1]
    assert re.sub("<[^>]+>", "", code) == "first = 1 | 2\nsecond = *first\n"
    assert re.search(r"<p>A place \(https://\), .*LIMIT.*s and \|text\|", api)
    assert "library" not in warnings


def test_the_footer_has_version_commit_date_and_machine_and_links_to_the_licence(book):
    import dpose
    from dpose.results import commit, hardware

    html, _ = book
    footer = re.search(
        r'<div class="extra_footer">.*?</div>', page(html, "notebooks/second.html"), re.DOTALL
    )[0]
    for fact in (
        f"dpose {dpose.__version__}",
        (commit() or "unknown")[:7],
        hardware()["cpu"],
        "notebooks executed",
    ):
        assert fact in footer
    assert re.search(r'href="([^"]+)"', footer)[1] == "../book/licence.html"


def test_the_page_of_licences_shows_the_files_of_the_repository():
    text = (ROOT / "book" / "licence.md").read_text(encoding="utf-8")
    names = re.findall(r"literalinclude\} \.\./(\S+)", text)
    assert sorted(names) == ["CHANGELOG.md", "CITATION.cff", "LICENSE", "NOTICE"]


def test_citation_names_the_paper_as_the_method_and_the_version_of_the_package():
    import yaml

    import dpose

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == dpose.__version__ and citation["type"] == "software"
    assert citation["references"][0]["url"].endswith("2410.04889")
    assert all(citation[field] for field in ("cff-version", "message", "title", "authors", "license"))
    json.dumps(citation)  # plain values only


def test_references_are_labelled_and_ordered_as_they_are_cited():
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    import dpose_book
    from pybtex.database import parse_string

    entries = parse_string(
        r"""
        @article{z, author = {Zhou, Yi and Barnes, C. and Lu, J.}, title = {b}, journal = {J}, year = 2019}
        @article{m, author = {von Marcard, Timo}, title = {t}, journal = {J}, year = 2018}
        @article{y, author = {Yang, Yi and Ramanan, Deva}, title = {t}, journal = {J}, year = 2013}
        @article{v, author = {Zhou, Yi and Barnes, C. and Lu, J.}, title = {a}, journal = {J}, year = 2019}
        @article{g, author = {Varol, G{\"u}l}, title = {t}, journal = {J}, year = 2017}
        """,
        "bibtex",
    ).entries.values()
    labels = [entry.label for entry in dpose_book.AuthorYearStyle().format_entries(entries)]
    assert labels == [
        "Varol, 2017",
        "von Marcard, 2018",
        "Yang and Ramanan, 2013",
        "Zhou et al., 2019a",
        "Zhou et al., 2019b",
    ]
