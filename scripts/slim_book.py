"""Make the built book light: drop files that no page uses, store pictures as WebP, shorten the HTML.

scripts/build_book.py calls `slim`. Pages look the same: diagrams are stored without loss, and with loss only
pictures that would be much larger, photographs and renderings. Each picture becomes a link to its file, which
a browser shows in full size: on a phone the labels of a wide figure are too small to read.
"""

from __future__ import annotations

import io
import re
import shutil
import sys
from pathlib import Path

from PIL import Image

UNUSED = (
    "_static/**/*.map",
    "_static/**/*.ttf",  # beside woff2
    "_static/**/*-macros.html",
    "_static/locales",
    "_static/scripts/fontawesome.js*",  # its web fonts draw the icons
    "_static/mathjax/[!to]*",  # all but tex-chtml.js and the fonts in output/chtml/fonts/woff-v2
    "_static/mathjax/tex-[!c]*",
    "_static/mathjax/tex-chtml-*",
    "_static/mathjax/output/svg*",
    "_static/mathjax/output/chtml.js",
    "_static/mathjax/output/chtml/fonts/tex.js",
    "_static/overview.png",  # a copy of the one in _images
    ".buildinfo",
)
# Classes of names, punctuation and spaces, which have the colour of the text in the book's Pygments style.
PLAIN = re.compile(r'<span class="(?:n|p|w|nn)">([^<]*)</span>')
PICTURE = re.compile(r'(<a [^>]*>\s*)?<img [^>]*src="([^"]*_images/[^"]+)"[^>]*>')
LOSSY = 0.6  # stored with loss where that takes less than this share of the size without
MIN_SIZE = 60_000  # bytes below which it is never


def slim(html: Path) -> None:
    """Slim the built book in the folder `html`. Raises FileNotFoundError if it is none."""
    if not (html / "index.html").exists():
        raise FileNotFoundError(f"no built book in {html}")
    for pattern in UNUSED:
        for path in html.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    renamed = store_as_webp(html)
    for page in html.rglob("*.html"):
        page.write_text(slim_page(page.read_text(encoding="utf-8"), renamed), encoding="utf-8")


def store_as_webp(html: Path) -> dict[str, str]:
    """Replace the PNG files of figures; returns the new names by the old ones."""
    renamed = {}
    for path in sorted((html / "_images").glob("*.png")):
        data = as_webp(path)
        if len(data) < path.stat().st_size:
            path.with_suffix(".webp").write_bytes(data)
            path.unlink()
            renamed[path.name] = path.with_suffix(".webp").name
    return renamed


def as_webp(path: Path) -> bytes:
    """A picture as WebP, without loss unless it is large and mostly a photograph."""

    def encode(**options: object) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", method=4, **options)
        return buffer.getvalue()

    with Image.open(path) as image:
        exact = encode(lossless=True, quality=60)
        if len(exact) < MIN_SIZE:
            return exact
        close = encode(quality=92)
        return close if len(close) < LOSSY * len(exact) else exact


def slim_page(text: str, renamed: dict[str, str]) -> str:
    """A page with the new names of its pictures, and without tags and labels that do nothing or harm."""
    text = re.sub(r"(?<=_images/)[\w.-]+\.png", lambda name: renamed.get(name[0], name[0]), text)
    text = PICTURE.sub(link_picture, text)
    text = re.sub(r'\s*<script defer src="[^"]*scripts/fontawesome\.js[^"]*"></script>', "", text)
    # Labels in place of the text that is seen, and a list without items, which screen readers stumble over.
    text = text.replace('<summary aria-label="Toggle hidden content">', "<summary>")
    text = re.sub(r'(<button class="[^"]*search-button-field[^>]*?) aria-label="Search"', r"\1", text)
    text = text.replace('<div role="list" class="citation-list">', '<div class="citation-list">')
    text = re.sub(r'<span class="pre">([^<]*)</span>', r"\1", text)
    return PLAIN.sub(r"\1", text)


def link_picture(match: re.Match[str]) -> str:
    """The tag of a picture in a link to its file, if it is in no link yet."""
    tag, link, address = match.group(0, 1, 2)
    return tag if link else f'<a class="dpose-full" title="Full size" href="{address}">{tag}</a>'


if __name__ == "__main__":
    slim(Path(sys.argv[1]))
