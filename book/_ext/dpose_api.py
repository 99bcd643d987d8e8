"""Docstrings and comments of the package as Sphinx needs them for the API page.

Docstrings are plain text in Google style: an indented block is code, and `name`s are names. The fields of a
class and the constants of a module are described by comments, or under "Attributes:".
"""

from __future__ import annotations

import ast
import dataclasses
import re
from pprint import pformat
from typing import Any

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer


def as_rst(lines: list[str]) -> list[str]:
    """A docstring with its indented blocks marked as code, and free of what RST would take for markup."""
    result: list[str] = []
    before = 0  # indentation of the text before
    code = False
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.strip():
            if result and not result[-1].strip() and indent > before and not code:
                code = True
                result += [" " * before + "::", ""]
            elif indent <= before or not code:
                code, before = False, indent
        result.append(line if code else escaped(line))
    return result


def escaped(line: str) -> str:
    """A line of text in which `name`s may go on with a letter, and | and https:// are text."""
    parts = re.split(r"(``.+?``|`[^`]+`)", line)  # the odd ones are names
    texts = [re.sub(r"^(?=\w)", r"\\ ", text) if i else text for i, text in enumerate(parts[::2])]
    parts[::2] = [re.sub(r"://(?!\w)", r"\\://", text.replace("|", r"\|")) for text in texts]
    return "".join(parts)


def comments(source: str) -> dict[tuple[str, str], list[str]]:
    """(class or "", name) of the fields and constants of a module, and the comment beside or above each."""
    lines = source.splitlines()
    tree = ast.parse(source)
    found = {}
    for owner in (tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))):
        for node in owner.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets:
                if isinstance(target, ast.Name) and not target.id.startswith("_"):
                    text = comment_of(node, lines)
                    if text or (owner is tree and target.id.isupper()):
                        found[getattr(owner, "name", ""), target.id] = text
    return found


def comment_of(node: ast.stmt, lines: list[str]) -> list[str]:
    """The lines of the comment at the end of a statement, or else directly above it."""
    beside = re.match(r"\s*# ?(.*)", lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode())
    if beside:
        return [beside[1]]
    above: list[str] = []
    for line in reversed(lines[: node.lineno - 1]):
        comment = re.match(r"\s*# ?(.*)", line)
        if not comment:
            break
        above.insert(0, comment[1])
    return above


def values(source: str) -> dict[str, str]:
    """The constants of a module, each with the code of its value if that is on one line."""
    found = {}
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id.isupper() and getattr(node, "value", None):
            code = ast.get_source_segment(source, node.value)
            if "\n" not in code and "`" not in code:
                found[target.id] = code
    return found


def block(thing: Any, longest: int = 60) -> list[str]:
    """A dictionary or dataclass as a block of code; nothing for other or longer values."""
    if not (isinstance(thing, dict) or dataclasses.is_dataclass(thing)):
        return []
    lines = pformat(thing, width=88, compact=True, sort_dicts=False).splitlines()
    if len(lines) > longest or " at 0x" in "".join(lines):
        return []
    return ["", "::", "", *(f"    {line}" for line in lines), ""]


class Docstrings:
    """Handlers of autodoc's events, which come in the order module, its members, their members."""

    source = ""  # of the module in progress
    values: dict[str, str] = {}  # its constants
    comment: list[str] | None = None  # the description in progress, while napoleon must not see it
    described: set[str] = set()  # attributes that the docstring of the class in progress describes

    def process(self, app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
        if what == "module":
            analyzer = ModuleAnalyzer.for_module(name)
            self.source, self.values = analyzer.code, values(analyzer.code)
            for key, text in comments(self.source).items():
                analyzer.attr_docs.setdefault(key, [*text, ""])
        elif what == "class":
            attributes = re.search(r"^Attributes:\n((?:    .*\n|\n)+)", "\n".join([*lines, ""]), re.MULTILINE)
            self.described = (
                set(re.findall(r"^    (\w+):", attributes[1], re.MULTILINE)) if attributes else set()
            )
        elif lines and lines[0].startswith("Alias for field number"):  # of a NamedTuple
            lines.clear()
        lines[:] = as_rst(lines)
        if what == "data":
            value = self.values.get(name.rpartition(".")[2])
            if shown := block(thing):
                lines += shown
            elif value:
                text = lines[0] if lines else ""
                lines[:1] = [f"``{value}``" + (f": {text}" if text else "")]
        # Here napoleon takes the text before a colon for a type. Properties with sections need it.
        plain = what == "property" and not any(re.fullmatch(r"\w+:", line) for line in lines)
        self.comment = lines[:] if what in ("attribute", "data") or plain else None
        if self.comment is not None:
            lines.clear()

    def restore(self, app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
        if self.comment is not None:
            lines[:] = self.comment

    def skip(self, app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
        if what == "class" and name in self.described:
            return True
        if what == "class" and name == "__call__" and thing.__doc__:
            return False
        if what == "module" and name.startswith("_"):
            return True
        if what == "module" and not callable(thing):  # constants of other modules are not described here
            return not (name.isupper() and re.search(rf"^{name}\b.*=", self.source, re.MULTILINE))
        return None


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    docstrings = Docstrings()
    app.connect("autodoc-process-docstring", docstrings.process, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", docstrings.restore, priority=600)
    app.connect("autodoc-skip-member", docstrings.skip)
    return {"parallel_read_safe": False}
