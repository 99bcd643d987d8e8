"""Tables and source code in notebook cells and the book."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.display import HTML, Markdown


def html_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str = "",
    ours: Sequence[int] = (),
    align: str = "l",
) -> HTML:
    """A table.

    Args:
        ours: indices of the rows set in bold.
        align: "l" or "r" for each column; further columns are aligned to the right.

    Raises:
        ValueError: a row has another number of cells than the header.
    """
    from IPython.display import HTML

    kinds = [*align, *"r" * (len(header) - len(align))]

    def line(cells: Sequence[str], tag: str, style: str = "") -> str:
        texts = (escape(str(cell), quote=False) for cell in cells)
        inner = "".join(f'<{tag} class="{k}">{text}</{tag}>' for k, text in zip(kinds, texts, strict=True))
        return f"<tr{style}>{inner}</tr>"

    body = "".join(line(row, "td", ' class="ours"' if i in ours else "") for i, row in enumerate(rows))
    title = f"<caption>{escape(caption, quote=False)}</caption>" if caption else ""
    return HTML(
        f'<table class="dpose">{title}<thead>{line(header, "th")}</thead><tbody>{body}</tbody></table>'
    )


def show_source(*things: object) -> Markdown:
    """The code of functions, methods or classes, highlighted and collapsible.

    Raises TypeError for what has no Python source.
    """
    from IPython.display import Markdown

    blocks = []
    for thing in things:
        code = textwrap.dedent(inspect.getsource(thing)).rstrip()
        title = f"<code>{thing.__qualname__}</code> in <code>{thing.__module__}</code>"
        summary = f'<details class="dpose" open><summary>{title}</summary>'
        blocks.append(f"{summary}\n\n````python\n{code}\n````\n\n</details>")
    return Markdown("\n\n".join(blocks))
