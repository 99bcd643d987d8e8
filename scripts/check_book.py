"""Open every page of the built book in headless Chromium with the network cut, and look for faults.

Checked on each page: no request leaves the folder of the book, none fails, nothing is logged as an error,
no TeX is left unrendered, every picture shows something, no alternative text begins as the caption does, no
text in an SVG drawing of the page is smaller than 11 pixels (at the full width of the column; text in bitmaps
cannot be measured), every interactive figure is drawn, every internal link leads somewhere, no cell shows an
exception, tables and code fit in their column, no page and no caption of a table is wider than a window of
390 pixels. axe-core finds nothing critical or serious in the light theme, in the dark one, and at 390 pixels.
The whole book has less than 15 MB, a page less than 1.5 MB beside the files of all pages.
`--shots DIR` also saves pictures of each page in these three forms. Exits 1 if anything is found.

Needs Chromium or Chrome (Debian: apt-get install chromium; or name one in CHROME) and the packages
websocket-client and axe-core-python (axe-core is licensed under the MPL 2.0).
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import io
import itertools
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlparse

import websocket
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",  # WebGL without a GPU, for the 3D figures
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # only the own computer
    "--remote-allow-origins=*",
    "--remote-debugging-port=0",
    "about:blank",
]

WIDTH, NARROW = 1200, 390  # of the window, pixels
# Form, theme, width, and what axe-core looks at: colours, which take it longest, do not depend on the width;
# all else does not depend on the theme.
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
FORMS = (
    ("light", "light", WIDTH, WCAG),
    (
        "dark",
        "dark",
        WIDTH,
        {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}},
    ),
    ("narrow", "light", NARROW, WCAG | {"rules": {"color-contrast": {"enabled": False}}}),
)
ALLOWED: set[tuple[str, str]] = set()  # (rule, place) of findings in the theme that cannot be mended here
BROWSERS_AT_ONCE = min(4, os.cpu_count() or 1)
PAGE_LIMIT, BOOK_LIMIT = 1_500_000, 15_000_000  # bytes

SCRIPTS = Path(__file__).with_suffix(".js")  # what runs inside the page: settle() and inspect()


class Browser:
    """A headless Chromium spoken to over its DevTools protocol."""

    def __init__(self, address: str) -> None:
        self.socket = websocket.create_connection(address, timeout=60, suppress_origin=True)
        self.numbers = itertools.count(1)
        self.events: list[dict] = []

    def call(self, method: str, session: str | None = None, **params: object) -> dict:
        """Send one command and wait for its answer; what happens meanwhile is kept in `events`."""
        self.socket.settimeout(300)
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        self.socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error'].get('message')}")
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, method: str, session: str, seconds: float = 60) -> None:
        """Read events until `method` has happened in `session`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if any(e.get("method") == method and e.get("sessionId") == session for e in self.events):
                return
            self.socket.settimeout(max(0.1, end - time.monotonic()))
            self.events.append(json.loads(self.socket.recv()))
        raise TimeoutError(f"{method} did not happen within {seconds} s")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser, hand it out, end it."""
    program = os.environ.get("CHROME") or next((p for p in map(shutil.which, BROWSERS) if p), None)
    if program is None:
        raise SystemExit(
            "error: no Chromium found (tried: " + ", ".join(BROWSERS) + ").\n"
            "       Debian or Ubuntu: apt-get install chromium. Elsewhere: install Chrome, or set CHROME."
        )
    with tempfile.TemporaryDirectory(prefix="check-book-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [program, f"--user-data-dir={profile}", *FLAGS],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            port_file = Path(profile) / "DevToolsActivePort"
            for _ in range(300):
                if port_file.exists() and len(port_file.read_text().split()) == 2:
                    break
                if process.poll() is not None:
                    raise SystemExit(f"error: {program} ended at once (exit code {process.returncode})")
                time.sleep(0.1)
            else:
                raise SystemExit(f"error: {program} did not open its debugging port within 30 s")
            port, path = port_file.read_text().split()
            yield Browser(f"ws://127.0.0.1:{port}{path}")
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


class Page:
    """A page of the book in a tab of its own."""

    def __init__(self, browser: Browser, path: Path, query: str = "") -> None:
        self.browser = browser
        self.context = browser.call("Target.createBrowserContext")["browserContextId"]
        target = {"url": "about:blank", "browserContextId": self.context}
        self.target = browser.call("Target.createTarget", **target)["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        browser.events.clear()
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.resize(WIDTH)
        self.call("Page.navigate", url=path.as_uri() + query)
        browser.wait_for("Page.loadEventFired", self.session)
        self.evaluate(SCRIPTS.read_text(encoding="utf-8"))
        self.evaluate("checkBook.settle()")

    def call(self, method: str, **params: object) -> dict:
        return self.browser.call(method, self.session, **params)

    def evaluate(self, expression: str) -> Any:
        options = {"awaitPromise": True, "returnByValue": True}
        answer = self.call("Runtime.evaluate", expression=expression, **options)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression[:60]} failed: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def resize(self, width: int, height: int = 1000) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def theme(self, name: str) -> None:
        self.evaluate(f"Object.assign(document.documentElement.dataset, {{theme: {name!r}, mode: {name!r}}})")
        self.evaluate("checkBook.settle()")

    def screenshot(self, **options: object) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot", **options)["data"])

    def whole(self, width: int) -> bytes:
        """A picture of the page from top to bottom."""
        height = self.call("Page.getLayoutMetrics")["cssContentSize"]["height"]
        self.resize(width, int(min(height, 12000)))
        self.evaluate("checkBook.settle()")
        picture = self.screenshot()
        self.resize(width)
        return picture

    def close(self) -> None:
        self.browser.call("Target.closeTarget", targetId=self.target)
        self.browser.call("Target.disposeBrowserContext", browserContextId=self.context)


def visit(browser: Browser, path: Path, html: Path, axe: str | None, shots: Path | None) -> dict:
    """Open one page in its three forms and return {faults, links, ids, pictures, plots, counts}.

    axe: the script of axe-core; None: do without it.
    """
    page = Page(browser, path)
    found = page.evaluate("checkBook.inspect()")
    faults = found["faults"]
    faults += [f"picture of one colour: {file.name}" for file in bitmaps(found) if is_blank(file)]
    for plot in found["plots"]:
        if is_blank(io.BytesIO(page.screenshot(clip=plot["clip"], captureBeyondViewport=True))):
            faults.append(f"interactive figure with nothing in its middle: {plot['name']}")
    if axe:
        page.evaluate(axe)
    for form, theme, width, options in FORMS:
        if form != "light":
            page.resize(width)
            page.theme(theme)
        if width < 600:
            faults += [f"at {width} pixels: {fault}" for fault in page.evaluate("checkBook.overflow()")]
        if axe:
            violations = page.evaluate(f"checkBook.accessibility({json.dumps(options)})")
            faults += [f"{form}: {fault}" for fault in accessibility_faults(violations)]
        if shots is not None:
            name = "-".join(path.relative_to(html).with_suffix("").parts)
            (shots / f"{name}-{form}.png").write_bytes(page.whole(width))
    faults += faults_in(browser.events, page.session, html)
    page.close()
    return found


def accessibility_faults(violations: list[dict]) -> Iterator[str]:
    """A line for each critical or serious finding of axe-core that is not one of the theme's."""
    for violation in violations:
        places = [place for place in violation["places"] if (violation["id"], place) not in ALLOWED]
        if places and violation["impact"] in ("critical", "serious"):
            yield f"axe {violation['id']} ({violation['impact']}, {len(places)}): {places[0][:120]}"


def axe_source() -> str:
    """The script of axe-core."""
    spec = importlib.util.find_spec("axe_core_python")
    if spec is None or spec.origin is None:
        raise SystemExit("error: the package axe-core-python is not installed; `make install` does it")
    return (Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8")


def heavy(html: Path, pages: list[Path]) -> Iterator[tuple[Path, str]]:
    """(page, fault) for a page, or the whole book under its first page, that has too many bytes."""
    used: dict[Path, set[Path]] = {}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        pictures = {page.parent / name for name in re.findall(r'src="([^"]*_images/[^"]+)"', text)}
        used[page] = {page, *(path.resolve() for path in pictures)}
    for page, files in used.items():
        size = sum(path.stat().st_size for path in files if path.is_file())
        if size > PAGE_LIMIT:
            yield page, f"{size / 1e6:.2f} MB with its pictures, more than {PAGE_LIMIT / 1e6} MB"
    total = sum(path.stat().st_size for path in html.rglob("*") if path.is_file())
    print(f"{total / 1e6:.1f} MB in all")
    if total > BOOK_LIMIT:
        yield pages[0], f"the book has {total / 1e6:.1f} MB, more than {BOOK_LIMIT / 1e6} MB"


def bitmaps(found: dict) -> Iterator[Path]:
    """The files of a page's pictures, as far as they are bitmaps and there."""
    for address in found["pictures"]:
        path = Path(unquote(urlparse(address).path))
        if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".gif") and path.is_file():
            yield path


def is_blank(picture: Path | io.BytesIO) -> bool:
    """Whether a picture is of one colour all over."""
    with Image.open(picture) as image:
        return all(high - low < 4 for low, high in image.convert("RGBA").getextrema())


def faults_in(events: list[dict], session: str, html: Path) -> list[str]:
    """What the protocol's events tell: requests to elsewhere or in vain, console errors, exceptions."""
    faults = []
    addresses = {}
    for event in events:
        if event.get("sessionId") != session:
            continue
        method, params = event.get("method"), event["params"]
        if method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            addresses[params["requestId"]] = url
            parts = urlparse(url)
            inside = parts.scheme == "file" and Path(unquote(parts.path)).is_relative_to(html)
            if not inside and parts.scheme not in ("data", "blob", "about"):
                faults.append(f"request to outside the book: {url[:120]}")
        elif method == "Network.loadingFailed" and not params.get("canceled"):
            faults.append(
                f"request failed ({params['errorText']}): {addresses.get(params['requestId'], '?')[:120]}"
            )
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            text = details.get("exception", {}).get("description") or details["text"]
            faults.append(f"exception in a script: {text.splitlines()[0][:160]}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            text = " ".join(str(a.get("value", a.get("description", ""))) for a in params["args"])
            faults.append(f"console error: {text[:160]}")
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            faults.append(
                f"browser error: {params['entry']['text'][:160]} {params['entry'].get('url', '')[:120]}"
            )
    return list(dict.fromkeys(faults))


def redirect(page: Path) -> Path | None:
    """Where a page of one <meta refresh> leads (Jupyter Book's index.html), None for any other page."""
    text = page.read_text(encoding="utf-8")
    match = re.search(
        r"""<meta http-equiv=["']refresh["'] content=["']\d+;\s*url=([^"']+)["']""", text, re.IGNORECASE
    )
    return page.parent / match.group(1) if match and len(text) < 2000 else None


def broken_links(pages: dict[Path, dict], html: Path) -> Iterator[tuple[Path, str]]:
    """(page, fault) for each link to a file that is not there or an anchor that its page does not have."""
    for page, found in pages.items():
        for link in sorted(set(found["links"])):
            address, anchor = urldefrag(link)
            parts = urlparse(address)
            if parts.scheme in ("http", "https", "mailto", "javascript", "data", "blob"):
                continue
            target = Path(unquote(parts.path))
            where = target.relative_to(html) if target.is_relative_to(html) else target
            if not target.exists():
                yield page, f"link to a missing page: {where}"
            elif not target.is_relative_to(html):
                yield page, f"link to outside the book: {where}"
            elif anchor and target in pages and unquote(anchor) not in pages[target]["ids"]:
                yield page, f"link to a missing place: {where}#{anchor}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--html", type=Path, default=ROOT / "_build" / "html", help="folder of the built book"
    )
    parser.add_argument(
        "--shots", type=Path, help="save pictures of each page, light, dark and narrow, in this folder"
    )
    arguments = parser.parse_args()
    html = arguments.html.resolve()
    pages = sorted(p for p in html.rglob("*.html") if "_static" not in p.parts)
    if not pages:
        print(f"error: no pages in {html}; run `make book` first", file=sys.stderr)
        return 1
    if arguments.shots:
        arguments.shots.mkdir(parents=True, exist_ok=True)

    found = {}
    to_visit: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for page in pages:
        if target := redirect(page):
            faults = [] if target.exists() else [f"redirect to a missing page: {target}"]
            found[page] = {"faults": faults, "links": [], "ids": []}
        else:
            to_visit.put(page)
    axe = axe_source()
    code = [page for page in pages if page.is_relative_to(html / "source")]  # alike: one is enough for axe

    def visit_some() -> None:
        with chromium() as browser:
            while not to_visit.empty():
                page = to_visit.get()
                script = None if page in code[1:] else axe
                found[page] = visit(browser, page, html, script, arguments.shots)
                counts = ", ".join(f"{n} {what}" for what, n in found[page]["counts"].items() if n)
                verdict = f"{len(found[page]['faults'])} faults" if found[page]["faults"] else "ok"
                print(f"{page.relative_to(html)}: {verdict}" + (f" ({counts})" if counts else ""), flush=True)

    with ThreadPoolExecutor(BROWSERS_AT_ONCE) as pool:
        for worker in [pool.submit(visit_some) for _ in range(BROWSERS_AT_ONCE)]:
            worker.result()
    found = {page: found[page] for page in pages}
    for page, fault in itertools.chain(broken_links(found, html), heavy(html, pages)):
        found[page]["faults"].append(fault)

    total = 0
    for page, result in found.items():
        for fault in result["faults"]:
            total += 1
            print(f"  {page.relative_to(html)}: {fault}")
    print(f"{len(pages)} pages, {total} faults")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
