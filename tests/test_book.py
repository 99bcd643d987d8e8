"""The built book, opened page by page in a browser without network, and the script that does it."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import pytest

pytest.importorskip("websocket")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import check_book  # noqa: E402

HTML = ROOT / "_build" / "html"
GOOD = """<!doctype html><html lang="en"><head><title>T</title><style>{style}</style></head>
<body><main><article><h1>T</h1>{body}</article></main></body></html>"""

DRAWING = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'


@pytest.fixture(scope="module")
def needs_browser():
    if not (os.environ.get("CHROME") or any(map(shutil.which, check_book.BROWSERS))):
        pytest.skip("Chromium is not installed")
    pytest.importorskip("axe_core_python", reason="axe-core-python is not installed; `make install` does it")


def check(folder) -> tuple[int, str]:
    command = [sys.executable, str(ROOT / "scripts" / "check_book.py"), "--html", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(not HTML.exists(), reason="the book is not built; `make book` does it")
def test_no_page_of_the_built_book_has_a_fault(needs_browser):
    status, report = check(HTML)
    assert status == 0, report


@pytest.mark.skipif(not HTML.exists(), reason="the book is not built; `make book` does it")
def test_the_search_of_the_book_finds_terms_and_names(needs_browser):
    found = {}
    with check_book.chromium() as browser:
        for words in ("Procrustes", "receptive field", "U-Net", "similarity_align", "xyzzyx"):
            page = check_book.Page(browser, HTML / "search.html", f"?q={quote(words)}")
            finished = "document.querySelector('#search-results h2')?.textContent.includes('Results')"
            until = time.monotonic() + 60
            while not page.evaluate(f"Boolean({finished})") and time.monotonic() < until:
                time.sleep(0.2)
            found[words] = page.evaluate("document.querySelectorAll('#search-results ul.search > li').length")
            page.close()
    assert found.pop("xyzzyx") == 0
    assert all(found.values()), found


def test_a_page_without_fault_passes_the_check(needs_browser, tmp_path):
    body = """<p>All is well.</p>
        <figure><img src="x.svg" alt="Two bars"><figcaption>Two people</figcaption></figure>
        <svg width="50" height="50" viewBox="0 0 100 100"><text y="50" font-size="22">x</text></svg>"""
    (tmp_path / "x.svg").write_text(DRAWING, encoding="utf-8")
    (tmp_path / "index.html").write_text(GOOD.format(style="", body=body), encoding="utf-8")
    assert check(tmp_path)[0] == 0


FAULTS = {  # style, content, and what the check must report
    "picture": ("", '<img src="none.png" alt="x">', "none.png"),
    "alt": ("", '<img src="x.svg">', "image-alt"),
    "caption": (
        "",
        '<figure><img src="x.svg" alt="Four people. And"><figcaption>Four people</figcaption></figure>',
        "repeats the caption: Four people",
    ),
    "letters": (
        "",
        '<svg width="50" height="50" viewBox="0 0 100 100"><text y="50" font-size="21">small</text></svg>',
        "text of 10.5 pixels in a drawing, less than 11: small",
    ),
    "link": ("", '<a href="other.html">there</a>', "other.html"),
    "anchor": ("", '<a href="#nowhere">there</a>', "nowhere"),
    "script": ("", "<script>throw new Error('it broke')</script>", "it broke"),
    "request": ("", '<img src="https://example.org/x.png" alt="x">', "example.org"),
    "name": ("", "<select><option>a</option></select>", "light: axe select-name"),
    "pale": ("p {color: #999; background: white}", "<p>Pale.</p>", "light: axe color-contrast"),
    "dark": (
        '[data-theme="dark"] p {color: #555; background: black}',
        "<p>Pale.</p>",
        "dark: axe color-contrast",
    ),
    "narrow": ("@media (max-width: 500px) {p {width: 600px}}", "<p>Too wide.</p>", "at 390 pixels"),
    "title": (
        "",
        '<div style="overflow: auto" tabindex="0"><table><caption>Title</caption>'
        f"<tr><td>{'x' * 50}</td></tr></table></div>",
        "at 390 pixels: caption wider than the window: Title",
    ),
    "table": ("", f"<table><tr><td>{'x' * 400}</td></tr></table>", "table wider"),
    "code": ("", f"<pre>{'x' * 400}</pre>", "code wider"),
    "heavy": ("", f"<p>{'word ' * 400_000}</p>", "2.00 MB"),
    "tex": ("", r"<p>\\frac{1}{2}</p>", "TeX"),
}


@pytest.fixture(scope="module")
def faulty(needs_browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "x.svg").write_text(DRAWING, encoding="utf-8")
    for name, (style, body, _) in FAULTS.items():
        (folder / f"{name}.html").write_text(GOOD.format(style=style, body=body), encoding="utf-8")
    return check(folder)


@pytest.mark.parametrize("name", FAULTS)
def test_the_check_reports(name, faulty):
    status, report = faulty
    assert status == 1
    assert any(
        line.startswith(f"  {name}.html: ") and FAULTS[name][2] in line for line in report.splitlines()
    )
