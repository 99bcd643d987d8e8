"""What identifies a data set in results and checkpoints: its fingerprint and its numbers of samples."""

import hashlib
from pathlib import Path
from typing import Any

from dpose.data.generated import generated
from dpose.data.remote import read_remote_manifest
from dpose.data.shards import read_manifest
from dpose.paths import is_generated, is_url, shard_folder


def data_fingerprint(root: str | Path) -> str:
    """16 hexadecimal digits that change when the data at `root` change.

    From the manifest's fingerprint; else names and sizes of the files; for a URL pattern, a hash of the
    pattern; for the generator, see `Generated.fingerprint`. root: a folder or a URL, as for
    `dpose.data.loader.make_loader`.
    """
    if is_generated(root):
        return generated(root).fingerprint
    manifest = _manifest(root)
    if manifest is not None and "fingerprint" in manifest:
        return manifest["fingerprint"][:16]
    if is_url(root):
        return hashlib.sha256(root.encode()).hexdigest()[:16]
    digest = hashlib.sha256()
    for path in sorted(shard_folder(root).glob("*.tar")) or sorted((Path(root) / "labels").glob("*.npz")):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
    return digest.hexdigest()[:16]


def data_samples(root: str | Path, split: str) -> int | None:
    """Number of samples of a split by the manifest at `root`; None without one, or for the generator."""
    return (_manifest(root) or {}).get("splits", {}).get(split)


def _manifest(root: str | Path) -> dict[str, Any] | None:
    if not is_url(root):
        return read_manifest(shard_folder(root))
    return None if root.endswith(".tar") or is_generated(root) else read_remote_manifest(root)[1]
