"""Files behind a URL (https, s3, ...), read forwards through `fsspec`, without a copy on disk.

A connection that fails is opened again, and reading resumes at the same byte; after several attempts an error
is raised. Without this, a short interruption would lose the rest of a shard and change the order of the
samples. https uses the proxies of the environment ($https_proxy, ...) and ~/.netrc.
"""

import io
import time
from functools import cache

import fsspec

from dpose.data.shards import MANIFEST, MANIFEST_BYTES, parse_manifest

TRIES = 8  # attempts to read a piece of a shard: a minute
TRIES_SMALL = 4  # attempts to read a small file at the start of a run: four seconds
PAUSE = 0.5  # seconds before the second attempt; doubles each time
BUFFER = 1 << 20  # bytes


def open_url(url: str, tries: int = TRIES) -> io.BufferedReader:
    """A file to read from beginning to end. Errors are raised by the first read, see `RemoteFile`."""
    return io.BufferedReader(RemoteFile(url, tries), BUFFER)


def read_url(url: str) -> bytes:
    """The bytes of a small file, at most `MANIFEST_BYTES` and one. Raises what `RemoteFile` raises."""
    with open_url(url, TRIES_SMALL) as file:
        return file.read(MANIFEST_BYTES + 1)


def check_protocol(url: str) -> None:
    """Raise ValueError, with what to install, if no installed package reads this kind of URL."""
    protocol = url.split("://")[0]
    try:
        fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        hint = "pip install 'dpose[s3]'" if protocol == "s3" else str(error)
        raise ValueError(f"{url}: no installed package reads {protocol}://; {hint}") from error


@cache  # the start of a training reads it in several places
def read_remote_manifest(url: str) -> tuple[str, dict]:
    """The URL of the folder with the shards (`url`, or `shards` below it) and its manifest, read once.

    Raises FileNotFoundError if there is none, ValueError if it is malformed, OSError if it cannot be read.
    """
    for folder in (url, f"{url}/shards"):
        try:
            return folder, parse_manifest(read_url(f"{folder}/{MANIFEST}"), f"{folder}/{MANIFEST}")
        except (FileNotFoundError, PermissionError):  # some hosts answer 403 for missing files
            continue
    raise FileNotFoundError(
        f"no {MANIFEST} at {url}, nor in {url}/shards: it lists the shards (`dpose prepare` writes it); or "
        f"give their names, like {url}/train-{{000000..000123}}.tar"
    )


class RemoteFile(io.RawIOBase):
    """A URL as a stream of bytes.

    Raises FileNotFoundError or PermissionError at once if the server answers so, and OSError naming the URL
    after `tries` failures in a row.
    """

    def __init__(self, url: str, tries: int = TRIES):
        self.url, self.tries, self.at, self.file, self.tag = url, tries, 0, None, None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        for attempt in range(self.tries):
            try:
                if self.file is None:
                    self.file = self._open()
                data = self.file.read(len(buffer))
                break
            except FileNotFoundError as error:
                raise FileNotFoundError(f"{self.url}: not found") from error
            except PermissionError as error:
                raise PermissionError(f"{self.url}: no permission to read it ({error})") from error
            except Exception as error:  # exceptions differ by file system
                self._drop()
                if getattr(error, "status", None) in (401, 403):
                    raise PermissionError(f"{self.url}: no permission to read it ({error})") from error
                if attempt == self.tries - 1:
                    reason = f"{type(error).__name__}: {error}"
                    raise OSError(f"{self.url}: {reason} ({self.tries} tries, at byte {self.at})") from error
                time.sleep(PAUSE * 2**attempt)
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)

    def close(self) -> None:
        self._drop()
        super().close()

    def _open(self):
        """The file, at byte `at`."""
        if not self.url.startswith(("http://", "https://")):
            system, path = fsspec.core.url_to_fs(self.url)
            file = system.open(path, "rb", block_size=4 * BUFFER, cache_type="readahead")
            file.seek(self.at)
            return file
        import aiohttp

        # One request for the whole file: some servers do not support ranges. No limit on the total time, as a
        # shard is read as slowly as the training runs. Any size avoids a request for it.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
        system = fsspec.filesystem("http", client_kwargs={"timeout": timeout, "trust_env": True})
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={self.at}-"} if self.at else {})
        file = system.open(self.url, "rb", block_size=0, size=1, headers=headers)
        tag = file.r.headers.get("ETag")
        if self.at and tag != self.tag:
            file.close()
            raise OSError("the file has changed since its beginning was read")
        self.tag = tag
        missing = 0 if file.r.status == 206 else self.at
        while missing:
            chunk = file.read(min(missing, BUFFER))
            if not chunk:
                raise OSError("the file has become shorter")
            missing -= len(chunk)
        return file

    def _drop(self) -> None:
        file, self.file = self.file, None
        if file is not None:
            file.close()
