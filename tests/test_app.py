"""`dpose app`: a picture in, people and files out, on this computer alone; and the page in a browser."""

import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from dpose import app as app_module
from dpose.app import KEPT, App, Server, examples
from dpose.cli import main
from dpose.detect import NanoDetector
from dpose.export import rgb
from dpose.predictor import Predictor

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(scope="module")
def predictor():
    return Predictor("mini", NanoDetector(), "cpu", fast=False)


@pytest.fixture
def app(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr(app_module, "KINDS", ("overlay", "mesh", "params", "json"))  # sheets take time
    return App(predictor, tmp_path, examples())


@pytest.fixture
def server(app):
    with Server(0) as server:
        server.app = app
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def encoded(picture: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, picture[..., ::-1])[1].tobytes()


def ask(server, method, path, data=None, **headers):
    """Status and content."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=120)
    connection.request(method, path, data, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_a_picture_becomes_people_with_the_files_of_dpose_predict(app):
    result = app.predict(encoded(skimage.data.astronaut()), "../My photo #1.png")

    (person,) = result["people"]
    (expected,) = app.predictor(skimage.data.astronaut())
    assert person["box"] == pytest.approx(expected.box, abs=0.1)
    assert person["score"] == pytest.approx(expected.score, abs=0.01)
    assert person["distance"] == pytest.approx(np.linalg.norm(expected.joints[0]), abs=0.01)
    assert bytes.fromhex(person["colour"][1:]) == bytes(rgb(1))
    assert result["size"] == [512, 512] and result["name"] == "My photo _1.png"
    assert result["focal_from"] == "diagonal" and result["focal"] == pytest.approx(np.hypot(512, 512))
    files = {"overlay.jpg", "scene.glb", "person-1.npz", "people.json", "picture.jpg"}
    assert set(result["files"]) == files
    with zipfile.ZipFile(io.BytesIO(app.file(result["id"], "all.zip"))) as archive:
        assert set(archive.namelist()) == files and archive.testzip() is None
    people = json.loads(app.file(result["id"], "people.json"))
    assert people["source"] == "My photo _1.png" and len(people["people"]) == 1
    assert [path.name for path in app.folder.iterdir()] == [f"result-{result['id']}"]  # no upload is left


def test_nobody_is_a_sentence_with_the_picture(app):
    coffee = skimage.data.coffee()
    result = app.predict(encoded(coffee), "coffee.png")
    assert result["people"] == [] and "Nobody" in result["notes"][0]
    assert result["files"] == ["picture.jpg"]
    shown = cv2.imdecode(np.frombuffer(app.file(result["id"], "picture.jpg"), np.uint8), 1)[..., ::-1]
    assert np.abs(shown.astype(int) - coffee).mean() < 5


def test_the_minimum_score_holds_for_one_picture(app):
    data = encoded(skimage.data.astronaut())
    assert [len(app.predict(data, "a.png", None, score)["people"]) for score in (0.95, 0.3)] == [0, 1]


def test_focal_lengths_are_given_or_of_the_exif_data(app):
    given = [app.predict(encoded(skimage.data.astronaut()), "a.png", f) for f in (700.0, 1400.0)]
    first, second = (result["people"][0]["distance"] for result in given)
    assert second / first == pytest.approx(2, rel=0.1) and given[0]["focal_from"] == "given"
    photo, file = Image.fromarray(skimage.data.astronaut()), io.BytesIO()
    exif = photo.getexif()
    exif.get_ifd(0x8769)[0xA405] = 50  # millimetres at 35 mm film
    photo.save(file, "JPEG", exif=exif)
    result = app.predict(file.getvalue(), "a.jpg")
    assert result["focal_from"] == "EXIF"
    assert result["focal"] == pytest.approx(50 * np.hypot(512, 512) / np.hypot(36, 24), rel=1e-5)
    result = app.predict(encoded(skimage.data.astronaut()), "a.png", 50.0)
    assert f"{50 * np.hypot(512, 512) / np.hypot(36, 24):.0f}" in result["notes"][0]  # as of 50 millimetres


@pytest.mark.parametrize(
    ("data", "name", "options", "fact"),
    [
        (b"Dear Sir or Madam", "letter.jpg", {}, "letter.jpg"),
        (b"", "", {}, "picture"),
        (b"\0\0\0 ftypheic" + bytes(99), "IMG_1.HEIC", {}, "HEIC"),
        (encoded(np.zeros((64, 64, 3), np.uint8))[:90], "half.png", {}, "half.png"),
        (encoded(np.zeros((64, 64, 3), np.uint8)), "a.png", {"focal": -3.0}, "-3"),
        (encoded(np.zeros((64, 64, 3), np.uint8)), "a.png", {"min_score": 2.0}, "2"),
    ],
)
def test_what_cannot_be_predicted_is_a_sentence_without_the_server_s_folders(data, name, options, fact, app):
    with pytest.raises(ValueError, match=fact) as caught:
        app.predict(data, name, **options)
    assert str(app.folder) not in str(caught.value) and "\n" not in str(caught.value)
    assert list(app.folder.iterdir()) == []


def test_files_of_old_results_are_removed(app):
    data = encoded(np.zeros((64, 64, 3), np.uint8))
    ids = [app.predict(data, "black.png")["id"] for _ in range(KEPT + 2)]
    assert [bool(app.file(number, "picture.jpg")) for number in ids] == [False] * 2 + [True] * KEPT
    assert len(list(app.folder.iterdir())) == KEPT


def test_the_server_answers_this_computer_only(server):
    assert server.server_address[0] == "127.0.0.1"
    with (
        pytest.raises(OSError),
        socket.create_connection((socket.gethostname(), server.server_port), 2) as it,
    ):
        if it.getpeername()[0].startswith("127."):
            raise ConnectionError  # the computer's name is the loopback address
    here = f"127.0.0.1:{server.server_port}"
    assert ask(server, "GET", "/", Host=here)[0] == 200
    assert ask(server, "GET", "/", Host=f"evil.example:{server.server_port}")[0] == 403
    picture = encoded(np.zeros((64, 64, 3), np.uint8))
    for origin, status in (("https://evil.example", 403), (f"http://{here}", 200)):
        assert ask(server, "POST", "/predict?name=a.png", picture, Host=here, Origin=origin)[0] == status


def test_the_page_loads_nothing_from_elsewhere(server):
    page = ask(server, "GET", "/")[1].decode()
    assert "://" not in page and "src=" not in page.replace('alt=""', "")
    for i, example in enumerate(server.app.examples):
        assert ask(server, "GET", f"/examples/{i}") == (200, example.path.read_bytes())
    assert {"astronaut.png", "camera.png", "grace_hopper.jpg"} <= {
        one.path.name for one in server.app.examples
    }


def test_requests_get_the_result_its_files_and_nothing_else(server):
    picture = encoded(skimage.data.astronaut())
    status, content = ask(server, "POST", "/predict?name=a.png&focal=700&min_score=0.3", picture)
    result = json.loads(content)
    assert status == 200 and result["focal"] == 700 and len(result["people"]) == 1
    assert ask(server, "GET", f"/results/{result['id']}/scene.glb")[1].startswith(b"glTF")
    for path in ("people.json/..", "../../../etc/passwd", "%2e%2e/people.json", "other.jpg"):
        assert ask(server, "GET", f"/results/{result['id']}/{path}")[0] == 404
    for path in ("/results/99/people.json", "/examples/99", "/favicon.ico"):
        assert ask(server, "GET", path)[0] == 404
    for query, fact in (("focal=wide", "wide"), ("min_score=nan", "nan"), ("focal=inf", "inf")):
        status, content = ask(server, "POST", f"/predict?name=a.png&{query}", picture)
        assert status == 422 and fact in json.loads(content)["error"]


def test_a_port_in_use_is_named(capsys):
    with Server(0) as other:
        assert main(["app", "--port", str(other.server_port), "--device", "cpu"]) == 2
    assert str(other.server_port) in capsys.readouterr().err
    assert main(["app", "--port", "70000"]) == 2


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_without_traceback_or_files(number, status, tmp_path):
    command = [sys.executable, "-m", "dpose.cli", "app", "--port", "0", "--checkpoint", "mini"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == status and "Traceback" not in errors
    assert not list(tmp_path.glob("dpose-app-*"))


def test_the_page_works_in_a_browser_without_network():
    pytest.importorskip("websocket")
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))):
        pytest.skip("Chromium is not installed")
    command = [sys.executable, str(SCRIPTS / "check_app.py"), "--checkpoint", "mini", "--examples", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
