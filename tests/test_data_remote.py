"""Shards behind a URL: streamed, tried again where a connection breaks, and clear about what is not there."""

import http.server
import json
import threading
import time
import warnings
from pathlib import Path

import fsspec
import numpy as np
import pytest
from data_people import keys, random_sample
from shard_files import write_manifest, write_shards

from dpose.config import MINI
from dpose.data import remote
from dpose.data.fingerprint import data_fingerprint, data_samples
from dpose.data.loader import make_loader
from dpose.data.shards import MANIFEST
from dpose.data.sources import TooManyBadSamples
from dpose.paths import data_roots

EVERYONE = sorted(f"p{i}" for i in range(10))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    rng = np.random.default_rng(0)
    write_shards([random_sample(rng, f"p{i}", size=160) for i in range(10)], folder, "train", per_shard=4)
    write_shards([random_sample(rng, "v0", size=160)], folder, "val")
    write_manifest(folder)
    return folder


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder on a free port, as badly as `faults` says: {name: [what happens at each request]}.

    A fault is a status to answer with, or the bytes after which the connection is cut. ranges: whether it
    knows the header Range. asked: (name, first byte asked for, status) of every request; headers: theirs.
    """

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.faults, self.ranges, self.asked, self.headers = folder, {}, True, [], []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):  # noqa: N802 (http.server's name)
        name = self.path.lstrip("/")
        path, start = self.server.folder / name, 0
        fault = self.server.faults[name].pop(0) if self.server.faults.get(name) else None
        status = fault if fault in (403, 404, 500, 503) else 200 if path.is_file() else 404
        wanted = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if status == 200 and wanted and self.server.ranges:
            start, status = wanted, 206
        self.server.asked.append((name, wanted, status))
        self.server.headers.append(self.headers)
        body = path.read_bytes()[start:] if status < 300 else b"no"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status < 300:
            self.send_header("ETag", f'"{path.stat().st_ino}"')
        self.end_headers()
        if status < 300 and fault is not None:
            self.wfile.write(body[:fault])
            self.wfile.flush()
            time.sleep(0.1)  # so that the client has it before the end
            self.connection.close()
        else:
            self.wfile.write(body)


@pytest.fixture
def server(folder, monkeypatch):
    monkeypatch.setattr(remote, "PAUSE", 0.001)
    remote.read_remote_manifest.cache_clear()  # another server may have had this port
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_url_gives_what_its_folder_gives(server, folder, workers):
    here, there = (make_loader(data, "train", MINI, 4, workers=workers) for data in (folder, server.url))
    for one, two in zip(here, there, strict=True):
        assert one["key"] == two["key"] and (one["image"] == two["image"]).all()
    loader = make_loader(server.url + "/", "train", MINI, 1, train=True, infinite=False, workers=workers)
    assert sorted(keys(loader)) == EVERYONE


def test_a_pattern_of_names_needs_no_manifest(server):
    pattern = f"{server.url}/train-{{000000..000002}}.tar"
    assert sorted(keys(make_loader(pattern, "train", MINI, 4))) == EVERYONE
    seen = []
    for rank in range(2):
        loader = make_loader(pattern, "train", MINI, 1, train=True, infinite=False)
        loader.dataset.rank, loader.dataset.world = rank, 2
        seen.append(keys(loader))
    assert sorted(seen[0] + seen[1]) == EVERYONE and all(seen)
    assert not [name for name, _, _ in server.asked if name.endswith(".json")]
    with pytest.raises(FileNotFoundError, match="val"):
        make_loader(pattern, "val", MINI, 4)


def test_nothing_is_written_to_disk(server, tmp_path, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert sorted(keys(make_loader(server.url, "train", MINI, 4))) == EVERYONE
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_cut_in_mid_shard_is_taken_up_where_it_broke(server, ranges):
    server.ranges = ranges
    server.faults = {"train-000000.tar": [5000, 20000, 1], "train-000001.tar": [503, 500]}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert keys(make_loader(server.url, "train", MINI, 4, max_bad=0)) == EVERYONE
    begins = [(first, status) for name, first, status in server.asked if name == "train-000000.tar"]
    assert begins[0] == (0, 200) and [first for first, _ in begins] == sorted(first for first, _ in begins)
    assert begins[-1][0] > 0 and begins[-1][1] == (206 if ranges else 200)


def test_a_short_outage_costs_nothing(monkeypatch, server):
    server.faults = {"train-000000.tar": [503] * 7}
    waited = []
    monkeypatch.setattr(remote, "PAUSE", 0.5)
    monkeypatch.setattr(remote.time, "sleep", waited.append)
    assert keys(make_loader(server.url, "train", MINI, 4, max_bad=0)) == EVERYONE
    assert sum(waited) > 60


@pytest.mark.parametrize("fault", [500, 404, 403])
def test_a_shard_that_stays_away_is_skipped_counted_and_named(server, fault):
    server.faults = {"train-000001.tar": [fault] * 99}
    url = f"{server.url}/train-000001.tar"
    with pytest.warns(UserWarning, match=rf"a shard, 4 samples.*{url}"):
        assert keys(make_loader(server.url, "train", MINI, 4)) == ["p0", "p1", "p2", "p3", "p8", "p9"]
    tries = [status for name, _, status in server.asked if name == "train-000001.tar"]
    assert tries == [fault] * (remote.TRIES if fault == 500 else 1)
    with pytest.raises(TooManyBadSamples, match=rf"1 .limit 0.*{url}"):
        keys(make_loader(server.url, "train", MINI, 4, max_bad=0))


def test_a_shard_that_always_breaks_gives_what_came_before(server):
    server.faults = {"train-000000.tar": [40_000] + [0] * 99}
    with pytest.warns(UserWarning, match=r"\d samples.*000000\.tar.*8 tries.*40000"):
        got = keys(make_loader(server.url, "train", MINI, 4))
    assert 4 < len(got) < 10 and set(got) > {"p4", "p9"}


def test_a_shard_cut_short_on_the_server_is_noticed(folder, tmp_path, server):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    whole = (tmp_path / "train-000002.tar").read_bytes()
    (tmp_path / "train-000002.tar").write_bytes(whole[: len(whole) // 2])
    server.folder = tmp_path
    with pytest.warns(UserWarning, match=r"train-000002\.tar"):
        keys(make_loader(server.url, "train", MINI, 4))


def test_what_is_not_there_is_said_at_once(server, folder):
    with pytest.raises(FileNotFoundError, match=r"test-\*\.tar.*http.*train, val"):
        make_loader(server.url, "test", MINI, 4)
    with pytest.raises(FileNotFoundError, match=r"manifest\.json.*/nothing.*train-\{000000\.\."):
        make_loader(f"{server.url}/nothing", "train", MINI, 4)
    remote.read_remote_manifest.cache_clear()
    server.faults = {MANIFEST: [500] * 9}
    with pytest.raises(OSError, match=r"manifest\.json: .*500.*4 tries"):
        make_loader(server.url, "train", MINI, 4)
    with pytest.raises(ValueError, match="nonsense://"):
        make_loader("nonsense://somewhere", "train", MINI, 4)


def test_a_manifest_is_asked_for_once(server):
    for split in ("train", "val"):
        make_loader(server.url, split, MINI, 4)
    assert data_samples(server.url, "train") == 10
    assert [name for name, _, _ in server.asked] == [MANIFEST]


def test_a_file_that_changes_while_it_is_read_is_not_read_on(server, folder, tmp_path):
    path = tmp_path / "train-000000.tar"
    path.write_bytes((folder / "train-000000.tar").read_bytes())
    server.folder, server.faults = tmp_path, {path.name: [5000]}
    file = remote.RemoteFile(f"{server.url}/{path.name}")
    file.readinto(bytearray(2000))
    (tmp_path / "new").write_bytes(path.read_bytes())
    (tmp_path / "new").replace(path)
    with pytest.raises(OSError, match=r"train-000000\.tar.*changed"):
        while file.readinto(bytearray(2000)):
            pass


def test_files_come_as_they_are_through_the_proxy_and_with_the_password_of_the_environment(
    server, tmp_path, monkeypatch
):
    (tmp_path / "netrc").write_text("machine data.example login someone password secret")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", server.url)
    with pytest.raises(OSError, match=r"data\.example/train-000000\.tar"):  # this proxy knows no full URLs
        remote.read_url("http://data.example/train-000000.tar")
    assert server.asked[0][0].endswith("data.example/train-000000.tar")
    assert server.headers[0]["Accept-Encoding"] == "identity"
    assert server.headers[0]["Authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    "url", ["https://me:secret@host/set", "https://secret@host/set", "https://host/a-000.tar?sig=secret"]
)
def test_a_url_with_a_secret_is_refused_without_telling_it(url):
    with pytest.raises(ValueError, match=r"\.netrc") as error:
        make_loader(url, "train", MINI, 4)
    assert "secret" not in str(error.value)
    assert data_roots("abfs://container@account.dfs.core.windows.net/set") and data_roots("s3://a/b?c")


def test_s3_says_what_to_install(monkeypatch):
    def missing(protocol):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(ValueError, match=r"s3://bucket/set: .*pip install 'dpose\[s3\]'"):
        make_loader("s3://bucket/set", "train", MINI, 4)


def test_other_file_systems_are_read_and_taken_up_too(folder, monkeypatch):
    """fsspec's file system in memory stands for S3: both give files that can seek."""
    monkeypatch.setattr(remote, "PAUSE", 0.001)
    memory = fsspec.filesystem("memory")
    for path in folder.iterdir():
        memory.pipe(f"/bucket/shards/{path.name}", path.read_bytes())
    real, broken = memory.open, []

    def flaky(path, *args, **options):
        file = real(path, *args, **options)
        read, left = file.read, [2]

        def once(size=-1):
            left[0] -= 1
            if path.endswith("train-000000.tar") and left[0] == 0 and len(broken) < 2:
                broken.append(file.tell())
                raise ConnectionResetError("gone")
            return read(min(size, 9000))

        file.read = once
        return file

    monkeypatch.setattr(type(memory), "open", lambda self, *args, **options: flaky(*args, **options))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert keys(make_loader("memory://bucket", "train", MINI, 4, max_bad=0)) == EVERYONE
    assert len(broken) == 2


def test_a_remote_set_has_its_folders_fingerprint_and_numbers(server, folder):
    assert data_fingerprint(server.url) == data_fingerprint(folder)
    assert data_samples(server.url, "train") == 10
    pattern = f"{server.url}/train-{{000000..000002}}.tar"
    assert data_samples(pattern, "train") is None and len(data_fingerprint(pattern)) == 16
    assert json.loads(remote.read_url(f"{server.url}/{MANIFEST}"))["splits"] == {"train": 10, "val": 1}
