"""Build the book: execute each notebook once, render the HTML, print its address.

With --pages, only these notebooks are executed (always) and rendered, as a small book in _build/pages.

jupyter-cache knows a notebook only by its code, so after a change in the package, its assets, the measured
results or the open data the book would go on showing old outputs. Here the cache also carries a key of all
these, and is dropped when the key changes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

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
    pages = [toc["root"]] + [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
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
        options = ["--toc", str(output / "toc.yml"), "--path-output", str(output)]
        return build(options, output / "_build" / "html", started)

    key = execution_key()
    stale = not KEY.exists() or KEY.read_text(encoding="utf-8").strip() != key
    if CACHE.exists() and (stale or arguments.force):
        print("==> something that the notebooks depend on has changed: executing them again", flush=True)
        shutil.rmtree(CACHE)
    BUILD.mkdir(exist_ok=True)
    KEY.write_text(key + "\n", encoding="utf-8")

    # --all: pages are rendered anew (seconds), since Sphinx would not notice that a notebook's outputs
    # changed.
    return build(["--all", "--warningiserror", "--keep-going"], BUILD / "html", started)


def build(options: list[str], html: Path, started: float) -> int:
    """Run jupyter-book, and print the address of the first page. Returns the exit status."""
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(ROOT), *options]
    environment = os.environ | {"DPOSE_BOOK": "1", "PYTHONUNBUFFERED": "1"}
    environment["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    status = subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode
    if status:
        for report in sorted((html / "reports").rglob("*.log")):
            print(f"--- {report.relative_to(ROOT)}\n{report.read_text(encoding='utf-8')}", file=sys.stderr)
        print("error: the book was not built; see above", file=sys.stderr)
        return status

    from plotly.offline import get_plotlyjs

    (html / "_static" / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    print(f"\n==> the book is built ({time.monotonic() - started:.0f} s). Open it in a browser:")
    print(f"    {(html / 'index.html').as_uri()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
