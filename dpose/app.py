"""`dpose app`: a page on this computer to drop photographs on, and to turn the people in them around.

The server is Python's own, bound to 127.0.0.1, and the page (assets/app.html) consists of one file. It loads
nothing from elsewhere; its content security policy forbids that to the browser, too.
"""

from __future__ import annotations

import base64
import io
import json
import mimetypes
import re
import shutil
import signal
import sys
import tempfile
import threading
import warnings
import zipfile
from collections.abc import Sequence
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np

from dpose import __version__
from dpose.detect import MIN_SCORE, NanoDetector
from dpose.export import KINDS, encode_jpeg, rgb, write
from dpose.model.inference import usable_device
from dpose.paths import data_roots
from dpose.pictures import read_image
from dpose.predictor import Person, Predictor

HOST = "127.0.0.1"
PORT = 7860
KEPT = 8  # results, whose files can be downloaded
MAX_BYTES = 2**28  # of a picture's file
POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; frame-ancestors 'none'"
ERRORS = (ValueError, OSError, ArithmeticError, RuntimeError, MemoryError, cv2.error)
_ASSETS = Path(__file__).parent / "assets"


class Example(NamedTuple):
    """A picture that is on this computer already."""

    title: str
    path: Path


def examples() -> list[Example]:
    """Photographs in the public domain that installed packages bring, and a frame of the open data."""
    import matplotlib  # imported here: only for the places of files
    import skimage.data

    photos, data = Path(skimage.data.__file__).parent, data_roots()[0]
    samples = Path(matplotlib.get_data_path()) / "sample_data"
    frames = data.glob("frames/open_test/png/*/*.png") if isinstance(data, Path) else ()
    known = [
        Example("Eileen Collins (NASA)", photos / "astronaut.png"),
        Example("Cameraman (CC0)", photos / "camera.png"),
        Example("Grace Hopper (US Navy)", samples / "grace_hopper.jpg"),
        *(Example("Rendered people", path) for path in sorted(frames)[4:5]),
    ]
    return [example for example in known if example.path.is_file()]


class App:
    """Predicts the people of one picture at a time and keeps the files of the last results.

    Args:
        predictor: with a detector that has a `min_score`, as those of `dpose.detect`.
        folder: for the files.
        shown: pictures that the page offers.
    """

    def __init__(self, predictor: Predictor, folder: Path, shown: Sequence[Example] = ()) -> None:
        self.predictor, self.folder, self.examples = predictor, folder, list(shown)
        self.lock = threading.Lock()
        self.results: dict[str, Path] = {}  # folders by the results' numbers, the oldest first
        self.count = 0

    def predict(
        self, data: bytes, name: str, focal: float | None = None, min_score: float = MIN_SCORE
    ) -> dict[str, Any]:
        """The people in a picture, as JSON values; their files are in `self.results[result["id"]]`.

        Args:
            data: the content of a file.
            name: of this file.
            focal: focal length in pixels; None: EXIF's, else the image diagonal.
            min_score: people with a smaller score of the detector are left out.
        Raises:
            ValueError: the picture cannot be read, the options are impossible, or the prediction failed.
        """
        if not 0 <= min_score <= 1:
            raise ValueError(f"the minimum score must lie in 0 to 1, got {min_score:g}")
        name = re.sub(r"[^\w. ()-]", "_", Path(name).name)[-80:].lstrip(".") or "picture"
        with self.lock, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            self.count += 1
            number = str(self.count)
            uploaded = self.folder / f"upload-{number}" / name
            uploaded.parent.mkdir()
            try:
                uploaded.write_bytes(data)
                self.predictor.detector.min_score = min_score
                (found,) = self.predictor.stream([uploaded], focal=focal)
            except ERRORS as error:
                text = " ".join(str(error).split()) or type(error).__name__
                raise ValueError(text.replace(f"{uploaded.parent}/", "")) from None
            finally:
                shutil.rmtree(uploaded.parent)
            return self._keep(number, name, found.image, found.people, [str(one.message) for one in caught])

    def _keep(
        self, number: str, name: str, image: np.ndarray, people: list[Person], notes: list[str]
    ) -> dict[str, Any]:
        folder = self.folder / f"result-{number}"
        if people:
            write(people, folder, image, KINDS)
        folder.mkdir(exist_ok=True)
        (folder / "picture.jpg").write_bytes(encode_jpeg(image))
        self.results[number] = folder
        while len(self.results) > KEPT:
            shutil.rmtree(self.results.pop(next(iter(self.results))))
        if not people:
            notes = [
                "Nobody was found. Try a smaller minimum score, or a picture in which people are larger."
            ]
        return {
            "id": number,
            "name": name,
            "size": [image.shape[1], image.shape[0]],
            "focal": float(people[0].cam_int[0, 0]) if people else None,
            "focal_from": people[0].focal_from if people else None,
            "notes": notes,
            "people": [
                {
                    "number": i,
                    "colour": "#{:02x}{:02x}{:02x}".format(*rgb(i)),
                    "box": person.box.round(1).tolist(),
                    "score": None if person.score is None else round(person.score, 2),
                    "distance": round(float(np.linalg.norm(person.joints[0])), 2),
                }
                for i, person in enumerate(people, start=1)
            ],
            "files": sorted(path.name for path in folder.iterdir()),
        }

    def file(self, number: str, name: str) -> bytes | None:
        """A file of a result, or "all.zip"; None if there is no such file (any more)."""
        folder = self.results.get(number)
        try:
            files = {path.name: path for path in folder.iterdir()} if folder else {}
            if name == "all.zip" and files:
                packed = io.BytesIO()
                with zipfile.ZipFile(packed, "w") as archive:
                    for path in files.values():
                        archive.write(path, path.name)
                return packed.getvalue()
            return files[name].read_bytes() if name in files else None
        except FileNotFoundError:  # removed at this moment
            return None

    @cached_property
    def page(self) -> bytes:
        """The page, with small pictures of the examples in it."""
        thumbnails = []
        for example in self.examples:
            picture = read_image(example.path)
            height = round(96 * picture.shape[0] / picture.shape[1])
            small = encode_jpeg(cv2.resize(picture, (96, height), interpolation=cv2.INTER_AREA))
            source = f"data:image/jpeg;base64,{base64.b64encode(small).decode()}"
            thumbnails.append({"title": example.title, "name": example.path.name, "source": source})
        known = {"version": __version__, "examples": thumbnails, "min_score": MIN_SCORE}
        known["max_bytes"] = MAX_BYTES
        content = json.dumps(known).replace("</", "<\\/")
        page = (_ASSETS / "app.html").read_text(encoding="utf-8")
        page = page.replace("MESH_VIEW", (_ASSETS / "mesh_view.js").read_text(encoding="utf-8"), 1)
        return page.replace("KNOWN", content, 1).encode()


class Server(ThreadingHTTPServer):
    """An app on a port of this computer. Raises OSError if the port is not free."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        self.app: App | None = None
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise OSError(f"port {port} cannot be used ({error}); name another by --port") from None

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        app, path = self.server.app, urlsplit(self.path).path
        if not self._is_ours():
            self._send(403, b"", "text/plain")
        elif path == "/":
            self._send(200, app.page, "text/html; charset=utf-8")
        elif match := re.fullmatch(r"/examples/(\d+)", path):
            path = dict(enumerate(one.path for one in app.examples)).get(int(match[1]))
            self._send_file(path and path.read_bytes(), str(path))
        elif match := re.fullmatch(r"/results/(\d+)/([\w.-]+)", path):
            self._send_file(app.file(*match.groups()), match[2])
        else:
            self._send(404, b"", "text/plain")

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        size = self.headers.get("Content-Length", "")
        if not self._is_ours() or url.path != "/predict" or not size.isdigit():
            self._send(403, b"", "text/plain")
            return
        if int(size) > MAX_BYTES:
            self._send_json(413, {"error": f"the file has more than {MAX_BYTES >> 20} MiB"})
            return
        data, options = self.rfile.read(int(size)), parse_qs(url.query)
        try:
            focal, minimum = (_number(options, name) for name in ("focal", "min_score"))
            minimum = MIN_SCORE if minimum is None else minimum
            result = self.server.app.predict(data, options.get("name", [""])[0], focal, minimum)
        except ValueError as error:
            self._send_json(422, {"error": str(error)})
        else:
            self._send_json(200, result)

    def _is_ours(self) -> bool:
        """Whether the request is from the page itself, not from another site that the browser shows."""
        names = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}
        origin = self.headers.get("Origin")
        return self.headers.get("Host") in names and (origin is None or urlsplit(origin).netloc in names)

    def _send_file(self, data: bytes | None, name: str) -> None:
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        self._send(404 if data is None else 200, data or b"", kind)

    def _send_json(self, status: int, content: Any) -> None:
        self._send(status, json.dumps(content).encode(), "application/json")

    def _send(self, status: int, data: bytes, kind: str) -> None:
        try:
            self.send_response(status)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(data))),
                ("Content-Security-Policy", POLICY),
                ("X-Content-Type-Options", "nosniff"),
                ("Cache-Control", "no-store"),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
        except ConnectionError:  # the browser has closed the page
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Requests are not logged."""


def serve(
    checkpoint: str | Path = "lite", port: int = PORT, device: str | None = None, body: str | None = None
) -> None:
    """Runs the app until Ctrl-C or SIGTERM, and removes its files then.

    Args:
        checkpoint, device, body: as for `Predictor`.
        port: on 127.0.0.1; 0: one that is free.
    Raises:
        OSError: the port is not free.
        FileNotFoundError, ValueError: as `Predictor`.
    """
    device = usable_device(device)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    with Server(port) as server, tempfile.TemporaryDirectory(prefix="dpose-app-") as folder:
        predictor = Predictor(checkpoint, NanoDetector(device), device, body=body)
        server.app = App(predictor, Path(folder), examples())
        print(f"{server.address}  (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        finally:
            server.app.lock.acquire()  # the prediction that is being made ends first


def _number(options: dict[str, list[str]], name: str) -> float | None:
    text = options.get(name, [""])[0].strip()
    try:
        return float(text) if text else None
    except ValueError:
        raise ValueError(f"{name} must be a number, got {text!r}") from None
