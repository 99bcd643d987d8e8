"""Shards and manifests of any samples, for tests."""

import tarfile
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path

from dpose.data import shards
from dpose.data.sample import Sample
from dpose.io import replacing


def write_shards(
    samples: Iterable[Sample], folder: Path, split: str, start: int = 0, per_shard: int = 1000
) -> list[Path]:
    """Write samples to `<folder>/<split>-NNNNNN.tar`, `per_shard` to each, numbered from `start`."""
    iterator, written = iter(samples), []
    while (sample := next(iterator, None)) is not None:
        path = Path(folder) / f"{split}-{start + len(written):06d}.tar"
        with replacing(path) as temporary:
            shards.write_tar(chain([sample], islice(iterator, per_shard - 1)), temporary)
        written.append(path)
    return written


def write_manifest(folder: Path, rows: list[dict] | None = None, **about) -> dict:
    """Write a manifest with these rows, by default those of all shards in the folder."""
    if rows is None:
        rows = []
        for path in sorted(folder.glob("*.tar")):
            with tarfile.open(path) as tar:
                samples = sum(member.name.endswith(".json") for member in tar)
            rows.append(shards.shard_row(path.name, path, samples))
    return shards.write_manifest(folder, rows, **about)
