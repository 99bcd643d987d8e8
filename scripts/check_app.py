"""Use the page of `dpose app` in headless Chromium with the network cut: an example in, bodies out.

Checked: no request leaves this computer, none fails, nothing is logged as an error, the picture, the bodies
in 3D and the sheet show something, turning changes the bodies, nobody and a damaged file are a sentence, a
window of 390 pixels needs no horizontal scrolling. `--shots DIR` also saves pictures of the page. Exits 1 if
a fault is found. Needs the same as check_book.py.
"""

from __future__ import annotations

import argparse
import base64
import io
import sys
import tempfile
import threading
import time
from pathlib import Path

from check_book import Browser, chromium, faults_in, is_blank

from dpose.app import App, Example, Server, examples
from dpose.detect import NanoDetector
from dpose.predictor import Predictor

SIZES = {"wide": (1280, 900), "narrow": (390, 844)}


def use(browser: Browser, address: str, known: list[Example], damaged: Path, shots: Path | None) -> list[str]:
    """What is wrong with the page at an address. damaged: a file that is no picture."""
    target = browser.call("Target.createTarget", url="about:blank")["targetId"]
    session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network"):
        browser.call(f"{domain}.enable", session)

    def run(script: str):
        options = {"awaitPromise": True, "returnByValue": True}
        answer = browser.call("Runtime.evaluate", session, expression=script, **options)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(condition: str, seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while not run(condition):
            if time.monotonic() > end:
                raise TimeoutError(
                    f"{condition}: not within {seconds} s; the page: {run('status.textContent')}"
                )
            time.sleep(0.2)

    def window(size: str) -> None:
        width, height = SIZES[size]
        browser.call(
            "Emulation.setDeviceMetricsOverride",
            session,
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=size == "narrow",
        )

    def shoot(name: str) -> None:
        if shots is None:
            return
        for theme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": theme}]
            browser.call("Emulation.setEmulatedMedia", session, features=features)
            time.sleep(0.3)
            shot = browser.call("Page.captureScreenshot", session, captureBeyondViewport=True)
            (shots / f"{name}-{theme}.png").write_bytes(base64.b64decode(shot["data"]))

    def seen(selector: str) -> bytes:
        box = run(f"(({{x, y, width, height}}) => ({{x, y: y + scrollY, width, height, scale: 1}}))"
                  f"(document.querySelector({selector!r}).getBoundingClientRect())")  # fmt: skip
        shot = browser.call("Page.captureScreenshot", session, clip=box, captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    faults = []
    window("wide")
    browser.call("Page.navigate", session, url=address)
    wait_for("document.readyState === 'complete'")
    shoot("start")
    done = (
        "document.querySelector('#status').className === '' && [...document.images].every((i) => i.complete)"
    )
    for i, example in enumerate(known):
        run(f"document.querySelectorAll('.examples button')[{i}].click()")
        wait_for(f"document.querySelector('#status').textContent.includes({example.path.name!r}) && {done}")
        time.sleep(0.5)
        for selector in (".photo", "canvas", ".sheet"):
            if is_blank(io.BytesIO(seen(selector))):
                faults.append(f"{example.title}: nothing to see in {selector}")
        for size in SIZES:
            window(size)
            time.sleep(0.3)
            wide = run("document.documentElement.scrollWidth - innerWidth")
            faults += [f"{example.title}, {size}: {wide} pixels wider than the window"] if wide > 0 else []
            shoot(f"{example.path.stem}-{size}")
        window("wide")
    before = seen("canvas")
    run("document.querySelector('[data-yaw=\"-1.5708\"]').click()")
    time.sleep(0.5)
    faults += ["the bodies do not turn"] if seen("canvas") == before else []
    shoot("turned")
    faults += faults_in(browser.events, session, Path("/nowhere"))
    browser.events.clear()

    field = browser.call("Runtime.evaluate", session, expression="document.querySelector('[type=file]')")
    files = {"files": [str(damaged)], "objectId": field["result"]["objectId"]}
    browser.call("DOM.setFileInputFiles", session, **files)
    wait_for("document.querySelector('#status').className === 'fault'")
    if damaged.name not in run("document.querySelector('#status').textContent"):
        faults.append("a damaged file is not named")
    shoot("damaged")
    run("score.value = 0.9; score.oninput(); document.querySelectorAll('.examples button')[0].click()")
    wait_for("document.querySelector('#status').textContent.startsWith('Nobody')")
    shoot("nobody")
    ours = f"request to outside the book: {address}/"
    return [fault for fault in faults if not fault.startswith(ours)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shots", type=Path, help="folder for pictures of the page")
    parser.add_argument("--checkpoint", default="lite")
    parser.add_argument("--examples", type=int, metavar="N", help="only the first N (default: all)")
    arguments = parser.parse_args()
    if arguments.shots:
        arguments.shots.mkdir(parents=True, exist_ok=True)
    with Server(0) as server, tempfile.TemporaryDirectory() as folder, chromium() as browser:
        predictor = Predictor(arguments.checkpoint, NanoDetector(), "cpu")
        known = examples()[: arguments.examples]
        server.app = App(predictor, Path(folder), known)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        damaged = Path(folder, "letter.jpg")
        damaged.write_text("Dear Sir or Madam")
        faults = use(browser, server.address, known, damaged, arguments.shots)
        server.shutdown()
    print(*faults, f"{len(faults)} faults", sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
