"""Tables and source code in notebook cells and the book."""

from __future__ import annotations

import ast
import inspect
import os
import textwrap
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.display import HTML, Markdown

LONG = 30  # lines of code that are shown unfolded
WIDE = 40  # characters of a cell from which on it gets more room on a phone


def html_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str = "",
    ours: Sequence[int] = (),
    align: str = "l",
    name: str = "",
) -> HTML:
    """A table. The book numbers the tables that have a caption, and no others.

    Args:
        caption: plain text; a full stop is added where it has none, as captions of figures end with one.
        ours: indices of the rows set in bold.
        align: "l" or "r" for each column; further columns are aligned to the right.
        name: "tab-..." by which the text of the book refers to the table, as {tab}`tab-...`. Needs a caption.

    Raises:
        ValueError: a row has another number of cells than the header, a header cell is empty, or a table has
            a name without a caption.
    """
    from IPython.display import HTML

    if not all(str(cell).strip() for cell in header):
        raise ValueError(f"each column of a table needs a header, got {list(header)}")
    if name and not caption:
        raise ValueError(f"the table {name!r} needs a caption, because only tables with one are numbered")
    kinds = [*align, *"r" * (len(header) - len(align))]

    def line(cells: Sequence[str], tag: str, style: str = "") -> str:
        scope = ' scope="col"' if tag == "th" else ""
        inner = ""
        for kind, text in zip(kinds, map(str, cells), strict=True):
            classes = f"{kind} wide" if kind == "l" and len(text) > WIDE else kind
            inner += f'<{tag}{scope} class="{classes}">{escape(text, quote=False)}</{tag}>'
        return f"<tr{style}>{inner}</tr>"

    body = "".join(line(row, "td", ' class="ours"' if i in ours else "") for i, row in enumerate(rows))
    start = f'<table class="dpose" id="{escape(name)}">' if name else '<table class="dpose">'
    if caption:
        start += f"<caption>{escape(caption.rstrip().removesuffix('.'), quote=False)}.</caption>"
    return HTML(f"{start}<thead>{line(header, 'th')}</thead><tbody>{body}</tbody></table>")


def show_source(*things: object) -> Markdown:
    """The code of functions, methods or classes, highlighted, without their docstrings.

    Below each block is its file and line; the book links it to the code. A block of more than LONG lines is
    folded. Raises TypeError for what has no Python source.
    """
    from IPython.display import Markdown

    blocks = []
    for thing in things:
        code = _without_docstrings(textwrap.dedent(inspect.getsource(thing)))
        block = f"````python\n{code}\n````"
        length = code.count("\n") + 1
        if length > LONG:
            summary = f"<summary><code>{thing.__qualname__}</code>, {length} lines</summary>"
            block = f'<details class="dpose">{summary}\n\n{block}\n\n</details>'
        line = inspect.getsourcelines(thing)[1]
        if os.environ.get("DPOSE_BOOK"):  # a role of book/_ext/dpose_book.py
            place = f"{{source}}`{thing.__module__}:{line}`"
        else:
            place = f"`{thing.__module__.replace('.', '/')}.py:{line}`"
        blocks.append(f"{block}\n\n{place}")
    return Markdown("\n\n".join(blocks))


def _without_docstrings(code: str) -> str:
    """Code without the docstrings of its functions and classes, and the empty line after each."""
    lines = code.rstrip().split("\n")
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and len(node.body) > 1:
            if ast.get_docstring(node, clean=False) is not None:
                first, last = node.body[0].lineno - 1, node.body[0].end_lineno
                blank = last < len(lines) and not (lines[last] or "").strip()
                lines[first : last + blank] = [None] * (last + blank - first)
    return "\n".join(line for line in lines if line is not None)
