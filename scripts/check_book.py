"""Open every page of the built book in headless Chromium with the network cut, and look for faults.

Checked on each page: no request leaves the folder of the book, none fails, nothing is logged as an error,
no TeX is left unrendered, every picture shows something, every interactive figure is drawn, every internal
link leads somewhere, no cell shows an exception. `--shots DIR` also saves a picture of each page in the
light and the dark theme. Exits 1 if anything is found.

Needs Chromium or Chrome (Debian: apt-get install chromium; or name one in CHROME) and the package
websocket-client.
"""

from __future__ import annotations

import argparse
import base64
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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

SCRIPTS = Path(__file__).with_suffix(".js")  # what runs inside the page: settle() and inspect()


class Browser:
    """A headless Chromium spoken to over its DevTools protocol."""

    def __init__(self, address: str) -> None:
        self.socket = websocket.create_connection(address, timeout=120, suppress_origin=True)
        self.numbers = itertools.count(1)
        self.events: list[dict] = []

    def call(self, method: str, session: str | None = None, **params: object) -> dict:
        """Send one command and wait for its answer; what happens meanwhile is kept in `events`."""
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


def visit(browser: Browser, page: Path, html: Path, shots: Path | None) -> dict:
    """Open one page and return {faults, links, ids, pictures, plots, counts}."""
    context = browser.call("Target.createBrowserContext")["browserContextId"]
    target = browser.call(
        "Target.createTarget", url="about:blank", browserContextId=context, width=1400, height=1000
    )["targetId"]
    session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    browser.events.clear()
    for domain in ("Page", "Runtime", "Log", "Network"):
        browser.call(f"{domain}.enable", session)
    browser.call("Page.navigate", session, url=page.as_uri())
    browser.wait_for("Page.loadEventFired", session)
    evaluate = {"awaitPromise": True, "returnByValue": True}
    browser.call("Runtime.evaluate", session, expression=SCRIPTS.read_text(encoding="utf-8"))
    browser.call("Runtime.evaluate", session, expression="checkBook.settle()", **evaluate)
    answer = browser.call("Runtime.evaluate", session, expression="checkBook.inspect()", **evaluate)
    if "exceptionDetails" in answer:
        raise RuntimeError(f"the inspection failed on {page}: {answer['exceptionDetails']}")
    found = answer["result"]["value"]
    found["faults"] += faults_in(browser.events, session, html)
    found["faults"] += [f"picture of one colour: {path.name}" for path in bitmaps(found) if is_blank(path)]
    for plot in found["plots"]:
        shot = browser.call("Page.captureScreenshot", session, clip=plot["clip"], captureBeyondViewport=True)
        if is_blank(io.BytesIO(base64.b64decode(shot["data"]))):
            found["faults"].append(f"interactive figure with nothing in its middle: {plot['name']}")
    if shots is not None:
        for theme in ("light", "dark"):
            switch = f"Object.assign(document.documentElement.dataset, {{theme: {theme!r}, mode: {theme!r}}})"
            browser.call("Runtime.evaluate", session, expression=switch, **evaluate)
            height = browser.call("Page.getLayoutMetrics", session)["cssContentSize"]["height"]
            size = {"width": 1400, "height": int(min(height, 12000)), "deviceScaleFactor": 1, "mobile": False}
            browser.call("Emulation.setDeviceMetricsOverride", session, **size)
            browser.call("Runtime.evaluate", session, expression="checkBook.settle()", **evaluate)
            shot = browser.call("Page.captureScreenshot", session)
            name = "-".join(page.relative_to(html).with_suffix("").parts)
            (shots / f"{name}-{theme}.png").write_bytes(base64.b64decode(shot["data"]))
    browser.call("Target.closeTarget", targetId=target)
    browser.call("Target.disposeBrowserContext", browserContextId=context)
    return found


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
        "--shots", type=Path, help="save a picture of each page, light and dark, in this folder"
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
    with chromium() as browser:
        for page in pages:
            if target := redirect(page):
                faults = [] if target.exists() else [f"redirect to a missing page: {target}"]
                found[page] = {"faults": faults, "links": [], "ids": []}
                continue
            found[page] = visit(browser, page, html, arguments.shots)
            counts = ", ".join(f"{n} {what}" for what, n in found[page]["counts"].items() if n)
            verdict = f"{len(found[page]['faults'])} faults" if found[page]["faults"] else "ok"
            print(f"{page.relative_to(html)}: {verdict}" + (f" ({counts})" if counts else ""), flush=True)
    for page, fault in broken_links(found, html):
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
