r"""Sphinx extension of the book.

    :::{chapter}            the box at the top of a page: what it needs and teaches, times, downloads
    \tag{5} in an equation  anchor eq-5 of that equation
    {eqn}`5`                "eq. 5", a link to it from any page
    {diff}`24`              "24", a link to that entry of the list of differences
    {source}`MODULE:LINE`   link to the code, which `dpose.figures.show_source` puts out
    tables with a caption   numbers "Table B1", "Table B2", ... in the order of the pages
    {tab}`NAME`             "Table B1", a link to the table that `dpose.figures.html_table` gave that name
    pictures                alternative text from the caption; a picture with neither is a warning
    {py:obj}`NAME`          a warning if the API reference does not have the name
    footer                  version, commit, date, machine, licence
    head                    description of the page, for search engines and link previews

`dpose_repository` in _config.yml is the public address of the repository, https://github.com/OWNER/NAME. As
long as it is empty, nothing links to it, to Binder or to Colab, and code is linked to pages of the book.
"""

from __future__ import annotations

import datetime
import itertools
import pydoc
import re
from collections.abc import Iterator
from html import escape, unescape
from pathlib import Path
from typing import Any

from docutils import nodes
from pybtex.database import Entry
from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style as PlainStyle
from pybtex.style.labels import BaseLabelStyle
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole
from sphinx.util.nodes import make_refnode

import dpose
from dpose.results import commit, hardware

logger = logging.getLogger(__name__)

API_PAGES = "book/api"  # how their names begin
LICENCE_PAGE = "book/licence"
DIFFERENCES_PAGE = "book/differences"
WORDS_PER_MINUTE = 200
SECONDS_PER_PICTURE = 20  # and per table and displayed equation
RULE = (
    f"{WORDS_PER_MINUTE} words per minute, {SECONDS_PER_PICTURE} s per figure, table and displayed equation"
)
TAG = re.compile(r"\\tag\{([^}]*)\}")
TABLE = re.compile(r'<table class="dpose"(?: id="([^"]*)")?><caption>')  # of dpose.figures.html_table
TABLE_NUMBER = "Table\xa0B{}"  # without the letter: a table of the paper


class Chapter(SphinxDirective):
    """The box at the top of a page."""

    option_spec = {"needs": str, "learn": str}

    def run(self) -> list[nodes.Node]:
        box = nodes.container(classes=["dpose-chapter"])
        for option, title in (("needs", "You need"), ("learn", "You will learn")):
            items = [item.strip() for item in self.options.get(option, "").split(";") if item.strip()]
            if not items:
                logger.warning("chapter: the option %r is missing", option, location=self.get_location())
                continue
            paragraph = nodes.paragraph("", "", nodes.strong(text=title), nodes.Text(" "))
            box += paragraph
            if option == "needs":
                paragraph += self.inline("; ".join(items))
            else:
                entries = [nodes.list_item("", nodes.paragraph("", "", *self.inline(one))) for one in items]
                box += nodes.bullet_list("", *entries)
        box += nodes.paragraph("", *self.downloads(), classes=["dpose-facts"])
        return [box]

    def inline(self, text: str) -> list[nodes.Node]:
        children, messages = self.state.inline_text(text, self.lineno)
        return children + messages

    def downloads(self) -> list[nodes.Node]:
        """Links to the notebook and its script, and to the repository's places if it has an address."""
        source = Path(self.env.doc2path(self.env.docname))
        links: list[nodes.Node] = []
        if source.suffix == ".ipynb":
            for suffix, text in ((".ipynb", "notebook"), (".py", "script")):
                target = source.with_suffix(suffix).name
                label = nodes.inline(text=f"{text} ({suffix})")
                links.append(
                    addnodes.download_reference("", "", label, reftarget=target, refdoc=self.env.docname)
                )
        path = source.relative_to(self.env.srcdir).as_posix()
        for text, address in repository_links(self.config.dpose_repository, path).items():
            links.append(nodes.reference("", text, refuri=address, internal=False))
        return [node for link in links for node in (nodes.Text(SEPARATOR), link)]


SEPARATOR = " · "


def repository_links(repository: str, path: str) -> dict[str, str]:
    """Addresses of a page's source and, for a notebook on GitHub, of its Binder and Colab sessions."""
    if not repository:
        return {}
    links = {"source": f"{repository}/blob/main/{path}"}
    github = re.fullmatch(r"https://github\.com/([^/]+/[^/]+?)/?", repository)
    if github and path.endswith(".ipynb"):
        links["Binder"] = f"https://mybinder.org/v2/gh/{github[1]}/main?urlpath=lab/tree/{path}"
        links["Colab"] = f"https://colab.research.google.com/github/{github[1]}/blob/main/{path}"
    return links


def reading_minutes(document: nodes.document) -> int:
    """Minutes that a page takes to read, by RULE: without code, and without what is folded."""
    words = pictures = 0

    def visit(node: nodes.Node) -> None:
        nonlocal words, pictures
        if isinstance(node, nodes.Text):
            words += len(node.astext().split())
        elif isinstance(node, nodes.image | nodes.table | nodes.math_block):
            pictures += 1
        elif isinstance(node, nodes.raw):
            pictures += len(re.findall(r'class="dpose(?:"|-)', node.astext()))
        elif isinstance(node, nodes.math):
            words += 1
        elif isinstance(node, nodes.literal_block | nodes.comment | nodes.system_message):
            pass
        elif not (isinstance(node, nodes.Element) and node.get("hide_mode") == "all"):
            for child in node.children:
                visit(child)

    visit(document)
    return max(1, round(words / WORDS_PER_MINUTE + pictures * SECONDS_PER_PICTURE / 60))


def duration(seconds: float) -> str:
    """A duration with about two digits."""
    if seconds < 99.5:
        return f"{max(1, round(seconds))}\xa0s"
    return f"{round(seconds / 60)}\xa0min" if seconds < 5970 else f"{seconds / 3600:.1f}\xa0h"


def machine() -> str:
    """The processor of this computer and its number of cores."""
    has = hardware()
    return f"{has['cores']} cores of {has['cpu']}"


def fill_chapter(app: Sphinx, document: nodes.document) -> None:
    """Write the times into the box of a page."""
    executed = getattr(app.env, "nb_metadata", {}).get(app.env.docname, {}).get("exec_data")
    for facts in document.findall(
        lambda node: "dpose-facts" in getattr(node, "attributes", {}).get("classes", ())
    ):
        minutes = f"{reading_minutes(document)}\xa0min to read"
        times: list[nodes.Node] = [nodes.abbreviation(minutes, minutes, explanation=RULE)]
        if executed and executed["runtime"]:
            times.append(nodes.Text(f"{SEPARATOR}{duration(executed['runtime'])} to run on {machine()}"))
        facts[:] = [*times, *facts.children]


# --- equations


def anchor_equations(app: Sphinx, document: nodes.document) -> None:
    r"""Give each equation with a \tag{N} the anchor eq-N."""
    labels = app.env.get_domain("std").anonlabels
    for equation in document.findall(nodes.math_block):
        text = equation.astext()
        numbers = TAG.findall(text)
        for number in numbers:
            name = f"eq-{number}"
            if name in labels:
                where = labels[name][0]
                logger.warning("equation %s is defined twice, also in %s", number, where, location=equation)
            labels.setdefault(name, (app.env.docname, name))
            equation["ids"].append(name)
        if numbers and not equation["nowrap"] and r"\\" in text:
            # Sphinx would put several lines into an environment in which MathJax refuses \tag.
            body = TAG.sub("", text).strip()
            lines = (
                rf"\begin{{equation}}\begin{{split}}{body}\end{{split}}\tag{{{numbers[0]}}}\end{{equation}}"
            )
            equation[:] = [nodes.Text(lines)]
            equation["nowrap"] = True


class NumberRole(SphinxRole):
    """A link to what has a number in the paper or in the list of differences."""

    def __init__(self, anchor: str, before: str) -> None:
        self.anchor, self.before = anchor, before  # the number

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        link = addnodes.pending_xref(
            self.rawtext,
            nodes.inline(text=self.before + self.text),
            refdomain="std",
            reftype="ref",
            reftarget=self.anchor + self.text,
            refexplicit=True,
            refwarn=True,
            refdoc=self.env.docname,
        )
        self.set_source_info(link)
        return [link], []


def anchor_differences(app: Sphinx, document: nodes.document) -> None:
    """Give each entry of the list of differences, "24. ...", the anchor difference-24."""
    if app.env.docname == DIFFERENCES_PAGE:
        for term in document.findall(nodes.term):
            if number := re.match(r"\d+(?=\. )", term.astext()):
                name = f"difference-{number[0]}"
                app.env.get_domain("std").anonlabels[name] = app.env.docname, name
                term["ids"].append(name)


# --- code


class SourceRole(SphinxRole):
    """A link to the code of MODULE:LINE, with file and line as its text."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        module, line = self.text.split(":")
        path = module.replace(".", "/")
        text = nodes.literal(text=f"{path}.py:{line}")
        if self.config.dpose_repository:
            revision = (commit() or "main").removesuffix("+changes")
            address = f"{self.config.dpose_repository}/blob/{revision}/{path}.py#L{line}"
            return [nodes.reference("", "", text, refuri=address, internal=False)], []
        self.env.metadata[self.env.docname].setdefault("dpose_sources", set()).add(module)
        return [source_link("", "", text, target=f"source/{path}", anchor=f"line-{line}")], []


class source_link(nodes.Inline, nodes.TextElement):
    """A link to a page of code, before it is resolved."""


def resolve_sources(app: Sphinx, document: nodes.document, page: str) -> None:
    for link in list(document.findall(source_link)):
        link.replace_self(make_refnode(app.builder, page, link["target"], link["anchor"], link.children))


def source_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A page with the code of each module that a page links to."""
    pages = app.env.metadata.values()
    for module in sorted(set().union(*(page.get("dpose_sources", ()) for page in pages))):
        code = ModuleAnalyzer.for_module(module).code
        body = highlight(code, PythonLexer(), HtmlFormatter(linespans="line"))
        path = module.replace(".", "/")
        yield f"source/{path}", {"title": module, "body": f"<h1>{path}.py</h1>{body}"}, "page.html"


# --- tables, pictures and references


class table_link(nodes.Inline, nodes.TextElement):
    """A link to a numbered table, before it is resolved."""


class TableRole(SphinxRole):
    """A link to a table by the name that it has."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        link = table_link(target=self.text)
        self.set_source_info(link)
        return [link], []


def count_tables(app: Sphinx, document: nodes.document) -> None:
    """Remember the names of the page's tables with a caption, "" for one without a name."""
    texts = (output.astext() for output in document.findall(nodes.raw))
    names = [name for text in texts for name in TABLE.findall(text)]
    app.env.metadata[app.env.docname]["dpose_tables"] = names


def number_tables(app: Sphinx, document: nodes.document, page: str) -> None:
    """Put the number of each table before its caption, and resolve the links to tables."""
    pages = reading_order(app.env.toctree_includes, app.config.root_doc)
    tables = [(name, where) for where in pages for name in app.env.metadata[where].get("dpose_tables", ())]
    before = pages[: pages.index(page)] if page in pages else []
    numbers = itertools.count(1 + sum(where in before for _, where in tables))

    def numbered(start: re.Match[str]) -> str:
        return f'{start[0]}<span class="caption-number">{TABLE_NUMBER.format(next(numbers))} </span>'

    for output in document.findall(nodes.raw):
        if TABLE.search(output.astext()):
            output[:] = [nodes.Text(TABLE.sub(numbered, output.astext()))]

    places = {name: (number, where) for number, (name, where) in enumerate(tables, 1)}
    for link in list(document.findall(table_link)):
        if (name := link["target"]) in places:
            number, where = places[name]
            text = nodes.inline(text=TABLE_NUMBER.format(number))
            link.replace_self(make_refnode(app.builder, page, where, name, text))
        else:
            logger.warning("no numbered table has the name %r", name, location=link)
            link.replace_self(nodes.problematic(text=name))


def reading_order(children: dict[str, list[str]], page: str) -> list[str]:
    """A page and those below it in the table of contents."""
    return [page, *(name for child in children.get(page, ()) for name in reading_order(children, child))]


def describe_pictures(app: Sphinx, document: nodes.document) -> None:
    """Take the alternative text of a picture from the caption of its figure."""
    for image in document.findall(nodes.image):
        if image.get("alt"):
            continue
        if caption := caption_of(image):
            image["alt"] = caption
        else:
            logger.warning("a picture has neither a caption nor an alternative text", location=image)

    for output in document.findall(nodes.raw):  # interactive figures
        if 'class="dpose-plotly"' in output.astext() and (caption := caption_of(output)):
            label = f'role="img" aria-label="{escape(caption)}" class="dpose-plotly"'
            output[:] = [nodes.Text(output.astext().replace('class="dpose-plotly"', label, 1))]


def caption_of(node: nodes.Node) -> str:
    """The text of the caption of the figure that a node belongs to."""
    while node is not None and not isinstance(node, nodes.figure):
        node = node.parent
    caption = node and node.next_node(nodes.caption)
    return caption.astext() if caption else ""


def require_references(app: Sphinx, document: nodes.document) -> None:
    """Report names of Python objects that are nowhere described. The API pages may name any type.

    `dpose.load` and other names that a package imports stand for the object where it is defined.
    """
    if not app.env.docname.startswith(API_PAGES):
        for link in document.findall(addnodes.pending_xref):
            if link.get("refdomain") == "py":
                link["refwarn"] = True
                thing = pydoc.locate(link["reftarget"])
                names = [getattr(thing, key, None) for key in ("__module__", "__qualname__")]
                if all(names):
                    link["reftarget"] = ".".join(names)


# --- bibliography


class AuthorYearLabels(BaseLabelStyle):
    """Labels as citations in the text have them: "Black et al., 2023"."""

    def format_labels(self, sorted_entries: list[Entry]) -> Iterator[str]:
        plain = [author_year(entry) for entry in sorted_entries]
        for i, label in enumerate(plain):
            same = plain[:i].count(label)
            yield label + ("abcdefgh"[same] if plain.count(label) > 1 else "")


def author_year(entry: Entry) -> str:
    people = entry.persons.get("author") or entry.persons.get("editor") or []
    parts = [[*person.rich_prelast_names, *person.rich_last_names] for person in people]
    names = [" ".join(map(str, name)) for name in parts] or [entry.key]
    who = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
    return f"{who}, {entry.fields.get('year', 'no year')}"


class AuthorYearStyle(PlainStyle):
    """The list of references in the order of their labels."""

    default_label_style = AuthorYearLabels
    default_sorting_style = "author_year_title"


register_plugin("pybtex.style.formatting", "author_year", AuthorYearStyle)


# --- footer and head


def write_footer(app: Sphinx, page: str, template: str, context: dict[str, Any], document: Any) -> None:
    """Version, commit, date, machine, duration of the notebooks, licence."""
    runs = [data.get("exec_data") or {} for data in getattr(app.env, "nb_metadata", {}).values()]
    seconds = sum(run.get("runtime") or 0 for run in runs)
    revision = commit() or "unknown"
    facts = (
        f"dpose {dpose.__version__}, commit {revision[:7]}{' with changes' if '+' in revision else ''}, "
        f"built on {datetime.date.today().isoformat()}; "
        + (f"notebooks executed in {duration(seconds)} " if seconds else "")
        + f"on {machine()}"
    )
    address = context["pathto"](LICENCE_PAGE)
    context["theme_extra_footer"] = (
        f'<p>{escape(facts)}. <a href="{address}">How to cite, licence, changes</a></p>'
    )


def describe_page(app: Sphinx, page: str, template: str, context: dict[str, Any], document: Any) -> None:
    """Tags for search engines and link previews: the first paragraph of the page, and the book's picture."""
    paragraphs = document.findall(nodes.paragraph) if document else ()
    texts = (paragraph.astext() for paragraph in paragraphs if isinstance(paragraph.parent, nodes.section))
    text = " ".join(next(texts, app.config.html_title).split())
    if len(text) > 200:
        text = text[:200].rsplit(" ", 1)[0] + " ..."
    title = re.sub("<[^>]*>", "", context.get("title", ""))
    tags = [("name", "description", text), ("property", "og:description", text)]
    tags += [("property", "og:title", unescape(title)), ("property", "og:type", "article")]
    tags += [("property", "og:site_name", app.config.html_title)]
    if app.config.html_baseurl:
        base = app.config.html_baseurl.rstrip("/")
        tags += [("property", "og:url", f"{base}/{page}.html")]
        tags += [("property", "og:image", f"{base}/_images/overview.webp")]
    lines = (f'<meta {kind}="{name}" content="{escape(content)}" />' for kind, name, content in tags)
    context["metatags"] = context.get("metatags", "") + "\n".join(lines)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("dpose_repository", "", "html")
    app.add_directive("chapter", Chapter)
    app.add_role("eqn", NumberRole("eq-", "eq.\xa0"))
    app.add_role("diff", NumberRole("difference-", ""))
    app.add_role("source", SourceRole())
    app.add_role("tab", TableRole())
    handlers = (describe_pictures, anchor_equations, anchor_differences, count_tables, fill_chapter)
    for handler in (*handlers, require_references):
        app.connect("doctree-read", handler)
    app.connect("doctree-resolved", resolve_sources)
    app.connect("doctree-resolved", number_tables)
    app.connect("html-page-context", write_footer)
    app.connect("html-page-context", describe_page)
    app.connect("html-collect-pages", source_pages)
    return {"version": dpose.__version__, "parallel_read_safe": False}
