"""Shards: samples in WebDataset tar files, `<split>-NNNNNN.tar`, written atomically.

A sample is four members: `<key>.jpg` (quality 95), `<key>.depth.png` (16 bit: 0 = none, 1..65535 linear
between the label's `depth_range` in metres; absent without depth), `<key>.parts.png` (8 bit) and `<key>.json`
(the label). `manifest.json` beside them lists every shard with its samples, bytes and hash. No pickle
anywhere.

Reading compares the size of a shard with the manifest, not its hash, which would read all data twice. The
fingerprint in results is made from the hashes; `sha256sum` checks a copy of the shards with them.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dpose.body import BODY_NAMES
from dpose.data.sample import BadSample, Sample, check_label, naming
from dpose.data.targets import decode_depth, encode_depth
from dpose.io import file_hash, replacing

JPEG_QUALITY = 95
MANIFEST = "manifest.json"
MANIFEST_BYTES = 1 << 26
FORMAT = 1


def write_tar(
    samples: Iterable[Sample], path: str | os.PathLike, bad: Callable[[str], object] | None = None
) -> int:
    """The samples as one tar file; returns how many.

    bad: called with a message for each malformed sample, which is left out; without it a malformed sample
    raises ValueError. A key seen twice always does. After an exception the file is incomplete.
    """
    seen, count = set(), 0
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:  # as USTAR, but for long names
        for sample in samples:
            key = sample["label"]["key"]
            if key in seen:
                raise ValueError(f"sample key {key!r} occurs twice")
            seen.add(key)
            try:
                members = encode_sample(sample)
            except ValueError as error:
                if bad is None:
                    raise
                bad(str(error))
                continue
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            count += 1
    return count


def write_manifest(folder: str | os.PathLike, shards: list[dict], **about) -> dict:
    """Write `manifest.json` of the folder's shards (whole or not at all); returns it.

    shards: a row for each as `shard_row` makes it. `about` is anything worth keeping with the data:
    generator, version, seed, source.
    """
    splits = {}
    for shard in shards:
        splits[shard["split"]] = splits.get(shard["split"], 0) + shard["samples"]
    fingerprint = hashlib.sha256("".join(shard["sha256"] for shard in shards).encode()).hexdigest()
    manifest = {"format": FORMAT, **about, "splits": splits, "fingerprint": fingerprint, "shards": shards}
    with replacing(Path(folder) / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def shard_row(name: str, path: Path, samples: int) -> dict:
    """What the manifest says of a shard; `path` may still be a temporary name."""
    row = {"name": name, "split": name.rsplit("-", 1)[0], "samples": samples}
    return row | {"bytes": path.stat().st_size, "sha256": file_hash(path)}


def read_manifest(folder: str | os.PathLike) -> dict | None:
    """The folder's manifest, or None if it has none. Raises ValueError if it cannot be read."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        return parse_manifest(file.read(MANIFEST_BYTES + 1), path)


def parse_manifest(text: bytes, where: str | os.PathLike) -> dict:
    """A manifest as `write_manifest` writes it. Raises ValueError, naming `where`, for anything else."""
    try:
        if len(text) > MANIFEST_BYTES:
            raise ValueError(f"larger than {MANIFEST_BYTES} bytes")
        manifest = json.loads(text)
        _check_manifest(manifest)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{where}: not a manifest of shards, make the data again ({str(error)[:200]})"
        ) from error
    return manifest


def _check_manifest(manifest: Any) -> None:
    """Raise ValueError for what readers could not rely on."""

    def count(value: Any) -> bool:
        return type(value) is int and 0 <= value < 1 << 53

    def name(value: Any) -> bool:
        return isinstance(value, str) and 0 < len(value) <= 200 and "/" not in value

    def body(key: str, record: Any) -> bool:
        known = key in BODY_NAMES and isinstance(record, dict)
        return known and all(isinstance(record.get(field), str) for field in ("name", "hash"))

    if not isinstance(manifest, dict) or not isinstance(manifest.get("shards"), list):
        raise ValueError("it has no list 'shards'")
    for number, row in enumerate(manifest["shards"]):
        fits = isinstance(row, dict) and name(row.get("name")) and name(row.get("split"))
        if not fits or not count(row.get("samples")) or not count(row.get("bytes")):
            raise ValueError(f"its shard {number} lacks name, split, samples or bytes, or has them wrong")
    splits, bodies = manifest.get("splits", {}), manifest.get("bodies", {})
    if not isinstance(splits, dict) or not all(map(count, splits.values())):
        raise ValueError("'splits' must map splits to numbers of samples")
    if not isinstance(bodies, dict) or not all(body(*item) for item in bodies.items()):
        raise ValueError("'bodies' must map names of body models to their name and hash")
    if not isinstance(manifest.get("fingerprint", ""), str):
        raise ValueError("'fingerprint' must be text")


# --- one sample <-> its members -----------------------------------------------------------------------------


def check_sample(sample: Sample) -> Sample:
    """The sample with its label as `check_label` returns it.

    Raises BadSample as `check_label` does, and for pictures whose shapes or types do not fit together. The
    values of depth are not looked at.
    """
    checked = Sample(**sample | {"label": check_label(sample["label"])})
    _check_pictures(checked)
    return checked


def _check_pictures(sample: Sample) -> None:
    image, depth, parts = sample["image"], sample["depth"], sample["parts"]
    side = image.shape[0]
    if image.shape != (side, side, 3) or image.dtype != np.uint8:
        raise BadSample(f"image is {image.dtype} {image.shape}, expected uint8 (P, P, 3)")
    if parts.shape != (side, side) or parts.dtype != np.uint8 or parts.max() > 22:
        raise BadSample(f"parts are {parts.dtype} {parts.shape}, expected uint8 (P, P) in 0..22")
    if depth is not None and depth.shape != (side, side):
        raise BadSample(f"depth is {depth.shape}, expected (P, P)")


def encode_sample(sample: Sample) -> dict[str, bytes]:
    """A sample's members by extension.

    Raises BadSample, naming the sample, as `check_sample` does, and for negative or non-finite depth.
    """
    image, depth, parts, label = sample["image"], sample["depth"], sample["parts"], dict(sample["label"])
    with naming(f"sample {label.get('key')}"):
        check_sample(sample)
        if depth is not None and (not np.isfinite(depth).all() or (depth < 0).any()):
            raise BadSample("depth must be finite and not negative")
    members = {"jpg": _encode(".jpg", image[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)}
    if depth is not None:
        codes, label["depth_range"] = encode_depth(depth)
        members["depth.png"] = _encode(".png", codes, cv2.IMWRITE_PNG_COMPRESSION, 3)
    label["has_depth"] = depth is not None and label["has_depth"]
    members["parts.png"] = _encode(".png", parts, cv2.IMWRITE_PNG_COMPRESSION, 6)
    text = json.dumps(label, separators=(",", ":"), allow_nan=False, default=np.ndarray.tolist)
    members["json"] = text.encode()
    return members


def decode_sample(members: Mapping[str, bytes], codes: bool = False) -> Sample:
    """The inverse of `encode_sample`, up to JPEG and 16 bits; the label's numbers are arrays.

    codes: leave depth in its 16-bit codes, see `encode_depth`; the label's `depth_range` goes with them.
    Raises BadSample, naming the member or field, for what is damaged and as `check_sample` does.
    """
    try:
        label = json.loads(members["json"])
    except KeyError as error:
        raise BadSample(f"{error} is missing") from error
    except (ValueError, RecursionError) as error:
        raise BadSample(f"the label is not JSON ({str(error)[:80]})") from error
    label, depth = check_label(label), None
    image = _decode(members, "jpg", cv2.IMREAD_COLOR_RGB)
    parts = _decode(members, "parts.png", cv2.IMREAD_UNCHANGED)
    if label["has_depth"]:
        if "depth_range" not in label:
            raise BadSample("the label has depth but no 'depth_range'")
        depth = _decode(members, "depth.png", cv2.IMREAD_UNCHANGED)
        if depth.dtype != np.uint16:
            raise BadSample("depth.png must be 16 bit")
        if not codes:
            depth = decode_depth(depth, label["depth_range"])
    sample = Sample(image=image, depth=depth, parts=parts, label=label)
    _check_pictures(sample)
    return sample


def _encode(extension: str, array: np.ndarray, *options: int) -> bytes:
    ok, data = cv2.imencode(extension, array, list(options))
    if not ok:
        raise ValueError(f"OpenCV could not encode a {extension} of shape {array.shape}")
    return data.tobytes()


def _decode(members: Mapping[str, bytes], extension: str, flag: int) -> np.ndarray:
    data = members.get(extension)
    if not data:
        raise BadSample(f"{extension} is missing or empty")
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:  # more pixels than OpenCV reads, or than there is memory for
        array = None
    if array is None:
        raise BadSample(f"{extension} cannot be decoded; the shard is damaged")
    return array
