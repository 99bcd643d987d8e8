"""Write each notebooks/NAME.ipynb from its NAME.py, without outputs; with --check only say which ones differ.

The .py (py:percent) is what people edit and review. Writing is deterministic, cell ids included, so an
unchanged notebook stays the same bytes.
"""

import argparse
import sys
from pathlib import Path

import jupytext
import nbformat

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def as_notebook(script: Path) -> str:
    """The text of the .ipynb that belongs to `script`."""
    notebook = jupytext.read(script, fmt="py:percent")
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"{script.stem}-{index:02d}"
        cell.metadata.pop("lines_to_next_cell", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a pair is out of step")
    arguments = parser.parse_args()
    stale = []
    for script in sorted(NOTEBOOKS.glob("*.py")):
        target = script.with_suffix(".ipynb")
        text = as_notebook(script)
        if target.exists() and target.read_text(encoding="utf-8") == text:
            continue
        stale.append(target.name)
        if not arguments.check:
            target.write_text(text, encoding="utf-8")
    orphans = sorted(p.name for p in NOTEBOOKS.glob("*.ipynb") if not p.with_suffix(".py").exists())
    if orphans:
        print(f"notebooks without a .py beside them: {', '.join(orphans)}", file=sys.stderr)
        return 1
    if stale:
        print(("out of step, run `make sync`: " if arguments.check else "written: ") + ", ".join(stale))
    return 1 if stale and (arguments.check) else 0


if __name__ == "__main__":
    sys.exit(main())
