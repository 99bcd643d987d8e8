"""Build the book: execute each notebook once, render the HTML, print its address.

With --pages, only these notebooks are executed (always) and rendered, as a small book in _build/pages.

jupyter-cache knows a notebook only by its code, so after a change in the package, its assets, the measured
results or the open data the book would go on showing old outputs. Here the cache also carries a key of all
these, and is dropped when the key changes.
"""

from __future__ import annotations

import argparse
import atexit
import base64
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import yaml
from jupyter_book.config import get_final_config
from myst_nb.core.execute import ExecutionError
from plotly.offline import get_plotlyjs
from slim_book import slim
from sphinx.application import Sphinx
from sphinx.util.console import nocolor
from sphinx.util.docutils import docutils_namespace

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "_build"
CACHE = BUILD / ".jupyter_cache"
KEY = BUILD / "execution-key"


def execution_key() -> str:
    """A hash of everything outside the notebooks that their outputs depend on."""
    from dpose.data.fingerprint import data_fingerprint
    from dpose.paths import data_root

    paths = [ROOT / "constraints.txt", *(ROOT / "dpose").rglob("*"), *(ROOT / "results").rglob("*")]
    digest = hashlib.sha256()
    for path in sorted(paths):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    data = data_root(None)
    digest.update((data_fingerprint(data) if data.is_dir() else "no data").encode())
    digest.update(os.environ.get("DPOSE_BODY_MODELS", "").encode())
    return digest.hexdigest()


def check_pages() -> None:
    """Raise SystemExit, naming them, if pages of _toc.yml are missing."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    entries = chapters + [section for chapter in chapters for section in chapter.get("sections", ())]
    pages = [toc["root"], *(entry["file"] for entry in entries)]
    missing = [p for p in pages if not any((ROOT / f"{p}{end}").exists() for end in (".md", ".ipynb"))]
    if missing:
        raise SystemExit(f"error: _toc.yml names pages that do not exist: {', '.join(missing)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--force", action="store_true", help="execute every notebook again")
    parser.add_argument("--pages", nargs="+", metavar="NAME", help="only these notebooks, without .ipynb")
    arguments = parser.parse_args()

    check_pages()
    started = time.monotonic()
    if arguments.pages:
        output = BUILD / "pages"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)
        first, *others = [f"notebooks/{name}" for name in arguments.pages]
        toc = {
            "format": "jb-book",
            "root": first,
            "chapters": [{"file": f} for f in (*others, "book/references")],
        }
        (output / "toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
        # Links to the other pages are broken here, so warnings are no errors.
        return build(output / "toc.yml", output / "_build" / "html", started, strict=False)

    key = execution_key()
    stale = not KEY.exists() or KEY.read_text(encoding="utf-8").strip() != key
    if CACHE.exists() and (stale or arguments.force):
        print("==> something that the notebooks depend on has changed: executing them again", flush=True)
        shutil.rmtree(CACHE)
    BUILD.mkdir(exist_ok=True)
    KEY.write_text(key + "\n", encoding="utf-8")
    return build(ROOT / "_toc.yml", BUILD / "html", started)


def build(toc: Path, html: Path, started: float, strict: bool = True) -> int:
    """Build the pages of a table of contents, print the address of the first one; returns the exit status.

    strict: warnings are errors; else they are not shown.
    """
    prepare_kernels()
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    nocolor()
    new = html.with_name("new")  # takes the place of the former book in the end
    shutil.rmtree(new, ignore_errors=True)
    warnings = io.StringIO()
    try:
        with docutils_namespace():
            app = Sphinx(
                srcdir=ROOT,
                confdir=None,
                outdir=new,
                doctreedir=html.parent / ".doctrees",
                buildername="html",
                confoverrides=configuration(toc),
                status=None,
                warning=warnings,
                # All pages are rendered anew (seconds), since Sphinx would not notice that outputs changed.
                freshenv=True,
            )
            show_progress(app)
            app.build(force_all=True)
    except Exception as error:
        print(f"\n{warnings.getvalue()}error: {describe(error)}", file=sys.stderr)
        return 1
    slim(new)
    add_plotly(new)
    shutil.rmtree(html, ignore_errors=True)
    new.rename(html)
    if app.statuscode or (warnings.getvalue() and strict):
        print(f"\n{warnings.getvalue()}error: the book was built with these warnings", file=sys.stderr)
        return 1
    print(f"\n==> the book is built ({time.monotonic() - started:.0f} s). Open it in a browser:")
    print(f"    {(html / 'index.html').as_uri()}")
    return 0


def configuration(toc: Path) -> dict[str, Any]:
    """Sphinx's configuration, which jupyter-book makes of _config.yml."""
    config, _ = get_final_config(
        user_yaml=ROOT / "_config.yml",
        cli_config={"external_toc_path": str(toc), "latex_individualpages": False},
        sourcedir=ROOT,
    )
    return config


def prepare_kernels() -> None:
    """Set what the kernels inherit: pictures inline, the book's form of outputs, no messages of their own."""
    folder = Path(tempfile.mkdtemp(prefix="dpose-book-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "profile_default").mkdir()
    settings = "c = get_config()\nc.IPKernelApp.log_level = 'ERROR'\n"
    (folder / "profile_default" / "ipython_kernel_config.py").write_text(settings, encoding="utf-8")
    os.environ |= {
        "DPOSE_BOOK": "1",
        "IPYTHONDIR": str(folder),  # and nobody's startup files
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def show_progress(app: Sphinx) -> None:
    """Print a line for each page that is read, with the seconds that it took, and one for the rendering."""
    started = 0.0

    def begin(app: Sphinx, page: str, source: list[str]) -> None:
        nonlocal started
        started = time.monotonic()
        print(f"    {page:30}", end="", flush=True)

    def end(app: Sphinx, document: Any) -> None:
        data = getattr(app.env, "nb_metadata", {}).get(app.env.docname, {}).get("exec_data")
        seconds = time.monotonic() - started
        cached = data and data["runtime"] and data["runtime"] > seconds
        print(f"{seconds:7.1f} s{'  (outputs from the cache)' if cached else ''}", flush=True)

    def rendering(app: Sphinx, env: Any) -> None:
        print("==> rendering", flush=True)

    app.connect("source-read", begin)
    app.connect("doctree-read", end, priority=900)
    app.connect("env-updated", rendering)


def add_plotly(html: Path) -> None:
    """Write the library of interactive figures, deflated to a third, if a page has one (plotly_figure.js)."""
    if any("dpose-plotly" in page.read_text(encoding="utf-8") for page in html.glob("notebooks/*.html")):
        packed = base64.b64encode(zlib.compress(get_plotlyjs().encode(), 9)).decode()
        script = f'window.dposePlotlyPacked = "{packed}";\n'
        (html / "_static" / "plotly.js").write_text(script, encoding="utf-8")


def describe(error: BaseException) -> str:
    """What went wrong, with page, cell and exception if a notebook failed."""
    cause = error.__cause__
    if not isinstance(error, ExecutionError) or cause is None:
        return f"{type(error).__name__}: {error}"
    page = Path(str(error))
    page = page.relative_to(ROOT) if page.is_relative_to(ROOT) else page
    text = str(cause)
    cells = json.loads((ROOT / page).read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]).strip() for cell in cells]
    number = next((i for i, source in enumerate(sources, 1) if source and source in text), None)
    where = f"{page}, cell {number} of {len(cells)}" if number else f"{page}"
    return f"{text}\n{where}: {getattr(cause, 'ename', type(cause).__name__)}: {getattr(cause, 'evalue', '')}"


if __name__ == "__main__":
    sys.exit(main())
