"""Print the built book into one PDF, page after page in the order of _toc.yml, by headless Chromium.

Links between pages lead to the first sheet of a page, and an outline lists all pages. At the foot of each
sheet are the title of its page and its number. Needs what scripts/check_book.py needs, and pypdf.
"""

from __future__ import annotations

import argparse
import base64
import io
import sys
import tempfile
from html import escape
from pathlib import Path
from urllib.parse import unquote, urlparse

import yaml
from check_book import Browser, Page, chromium
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, NameObject, NullObject

ROOT = Path(__file__).resolve().parents[1]
A4 = {"paperWidth": 8.27, "paperHeight": 11.69}  # inches
# The interactive figures of a page, and their places.
FIGURES = """
window.printedFigures = [...document.querySelectorAll(".dpose-plotly, .dpose-body canvas")];
printedFigures.map((one) => one.getBoundingClientRect()).map(
  (box) => ({x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height, scale: 2}))
"""


FOOT = """
@page {margin: 0}
body {margin: 0; font: 8pt sans-serif; color: #555}
div {box-sizing: border-box; height: 11.69in; padding: 11.33in 0.7in 0}
div {display: flex; justify-content: space-between}
div + div {break-before: page}
"""


def chapters(toc: Path) -> list[tuple[str, list[str]]]:
    """(caption, pages) of the parts of the book; the first part is the root page."""
    content = yaml.safe_load(toc.read_text(encoding="utf-8"))
    parts = [
        (part["caption"], [name for one in part["chapters"] for name in files(one)])
        for part in content["parts"]
    ]
    return [("", [content["root"]]), *parts]


def files(entry: dict) -> list[str]:
    """The page of an entry of _toc.yml, and those below it."""
    return [entry["file"], *(name for one in entry.get("sections", ()) for name in files(one))]


def sheets(path: Path, browser) -> tuple[str, PdfReader]:
    """Title and PDF of one page."""
    page = Page(browser, path)
    page.theme("light")
    for number, clip in enumerate(page.evaluate(FIGURES)):  # WebGL does not print
        data = base64.b64encode(page.screenshot(clip=clip, captureBeyondViewport=True)).decode()
        picture = f"Object.assign(new Image(), {{src: 'data:image/png;base64,{data}'}})"
        page.evaluate(f"printedFigures[{number}].replaceWith({picture})")
    page.evaluate("for (const folded of document.querySelectorAll('details')) folded.open = true")
    page.evaluate("checkBook.settle()")
    title = page.evaluate("document.querySelector('h1').firstChild.textContent.trim()")
    reader = print_page(page, printBackground=True, scale=0.8)
    page.close()
    return title, reader


def print_page(page: Page, **options: object) -> PdfReader:
    return PdfReader(io.BytesIO(base64.b64decode(page.call("Page.printToPDF", **A4, **options)["data"])))


def number_sheets(writer: PdfWriter, titles: list[str], browser: Browser) -> None:
    """Print the title of its page and its number at the foot of each sheet."""
    feet = "".join(
        f"<div><span>{escape(title)}</span><span>{n}</span></div>" for n, title in enumerate(titles, 1)
    )
    with tempfile.NamedTemporaryFile("w", suffix=".html", encoding="utf-8") as file:
        file.write(f"<meta charset='utf-8'><style>{FOOT}</style>{feet}")
        file.flush()
        page = Page(browser, Path(file.name))
        for sheet, foot in zip(writer.pages, print_page(page, preferCSSPageSize=True).pages, strict=True):
            sheet.merge_page(foot)
            sheet.compress_content_streams()
        page.close()


def link_pages(writer: PdfWriter, first: dict[Path, int]) -> None:
    """Let links to files of the book lead to their first sheets in this PDF; drop those to other files."""
    for sheet in writer.pages:
        for entry in list(sheet.get("/Annots", [])):
            action = entry.get_object().get("/A", {})
            address = urlparse(str(action.get("/URI", "")))
            if address.scheme != "file":
                continue
            number = first.get(Path(unquote(address.path)))
            if number is None:
                sheet["/Annots"].remove(entry)
            else:
                target = [writer.pages[number].indirect_reference, NameObject("/XYZ"), *[NullObject()] * 3]
                move = {NameObject("/S"): NameObject("/GoTo"), NameObject("/D"): ArrayObject(target)}
                entry.get_object()[NameObject("/A")] = DictionaryObject(move)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--html", type=Path, default=ROOT / "_build" / "html", help="folder of the book")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "dpose.pdf", help="the PDF")
    arguments = parser.parse_args()
    html = arguments.html.resolve()
    if not (html / "index.html").exists():
        print(f"error: no pages in {html}; run `make book` first", file=sys.stderr)
        return 1
    writer, first, titles = PdfWriter(), {}, []
    with chromium() as browser:
        for caption, pages in chapters(ROOT / "_toc.yml"):
            part = None
            for name in pages:
                title, reader = sheets(html / f"{name}.html", browser)
                number = first[html / f"{name}.html"] = len(writer.pages)
                writer.append(reader, import_outline=False)
                titles += [title] * len(reader.pages)
                if caption and part is None:
                    part = writer.add_outline_item(title=caption, page_number=number)
                writer.add_outline_item(title=title, page_number=number, parent=part)
                print(f"    {name:30}{len(reader.pages):4} sheets", flush=True)
        number_sheets(writer, titles, browser)
    link_pages(writer, first)
    writer.add_metadata(
        {"/Title": yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["title"]}
    )
    writer.compress_identical_objects()
    writer.write(arguments.out)
    size = arguments.out.stat().st_size / 1e6
    print(f"==> {len(writer.pages)} sheets, {size:.1f} MB: {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
