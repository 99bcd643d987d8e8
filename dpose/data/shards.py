"""Shards: samples in WebDataset tar files, `<split>-NNNNNN.tar`, each there whole or not at all.

A sample is four members: `<key>.jpg` (quality 95), `<key>.depth.png` (16 bit: 0 = none, 1..65535 linear
between the label's `depth_range` in metres; absent without depth), `<key>.parts.png` (8 bit) and `<key>.json`
(the label). `manifest.json` beside them lists every shard with its samples, bytes and hash. No pickle
anywhere.

Reading compares a shard's bytes with the manifest, not its hash: that would be to read all data twice. The
hashes make the fingerprint that results carry, and `sha256sum` checks a copy of the shards with them.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, islice
from pathlib import Path

import cv2
import numpy as np

from dpose.body import BODY_NAMES, DEFAULT_BODY, num_rotations
from dpose.data.sample import Sample
from dpose.data.targets import decode_depth, encode_depth
from dpose.io import replacing

JPEG_QUALITY = 95
MANIFEST = "manifest.json"
FORMAT = 1


class BadSample(ValueError):
    """A sample that cannot be read; the loader counts these and goes on up to a limit."""


def write_shards(
    samples: Iterable[Sample], folder: str | os.PathLike, split: str, start: int = 0, per_shard: int = 1000
) -> list[Path]:
    """Write samples to `<folder>/<split>-NNNNNN.tar`, `per_shard` to each, numbered from `start`.

    Returns the shards written.

    A shard takes its final name only once complete: an exception (also in `samples`) leaves those before it
    and nothing of itself. Processes may write the same folder at once if their shard numbers differ; call
    `write_manifest` when all are done. Raises ValueError on a malformed sample or a key seen twice.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    iterator, written, seen = iter(samples), [], set()
    while (sample := next(iterator, None)) is not None:
        path = folder / f"{split}-{start + len(written):06d}.tar"
        with replacing(path) as temporary:
            write_tar(chain([sample], islice(iterator, per_shard - 1)), temporary, seen)
        written.append(path)
    return written


def write_tar(
    samples: Iterable[Sample],
    path: str | os.PathLike,
    seen: set[str] | None = None,
    bad: Callable[[str], object] | None = None,
) -> int:
    """The samples as one tar file; returns how many. seen: keys of other files, which may not come again.

    bad: is told of a malformed sample, which is then left out; without it, as always on a key seen twice, it
    raises ValueError, and the file is of no use.
    """
    seen, count = set() if seen is None else seen, 0
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


def write_manifest(folder: str | os.PathLike, shards: list[dict] | None = None, **about) -> dict:
    """Write `manifest.json` of the folder's shards (whole or not at all); returns it.

    shards: a row for each as `shard_row` makes it (None: the folder is scanned). `about` is anything worth
    keeping with the data: generator, version, seed, source.
    """
    folder = Path(folder)
    if shards is None:
        shards = []
        for path in sorted(folder.glob("*.tar")):
            with tarfile.open(path) as tar:
                samples = sum(member.name.endswith(".json") for member in tar)
            shards.append(shard_row(path.name, path, samples))
    splits = {}
    for shard in shards:
        splits[shard["split"]] = splits.get(shard["split"], 0) + shard["samples"]
    fingerprint = hashlib.sha256("".join(shard["sha256"] for shard in shards).encode()).hexdigest()
    manifest = {"format": FORMAT, **about, "splits": splits, "fingerprint": fingerprint, "shards": shards}
    with replacing(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def shard_row(name: str, path: Path, samples: int) -> dict:
    """What the manifest says of a shard; `path` may still be a temporary name."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    row = {"name": name, "split": name.rsplit("-", 1)[0], "samples": samples}
    return row | {"bytes": path.stat().st_size, "sha256": digest}


def read_manifest(folder: str | os.PathLike) -> dict | None:
    """The folder's manifest, or None when it has none. Raises ValueError when it cannot be read."""
    path = Path(folder) / MANIFEST
    return parse_manifest(path.read_bytes(), path) if path.is_file() else None


def parse_manifest(text: bytes, where: str | os.PathLike) -> dict:
    """A manifest as `write_manifest` writes it; `where` it is, for messages. Raises ValueError otherwise."""
    wrong = f"{where}: not a manifest, write it again with write_manifest"
    try:
        manifest = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{wrong} (no JSON: {error})") from error
    kinds = {"name": str, "split": str, "samples": int, "bytes": int}
    if not isinstance(manifest, dict) or not isinstance(manifest.get("shards"), list):
        raise ValueError(f"{wrong} (it has no list 'shards')")
    if not isinstance(manifest.get("splits", {}), dict):
        raise ValueError(f"{wrong} ('splits' is no table)")
    for number, row in enumerate(manifest["shards"]):
        fits = isinstance(row, dict) and all(isinstance(row.get(key), kind) for key, kind in kinds.items())
        if not fits or "/" in row["name"] or min(row["samples"], row["bytes"]) < 0:
            raise ValueError(f"{wrong} (its shard {number} lacks {', '.join(kinds)}, or has them wrong)")
    return manifest


# --- one sample <-> its members -----------------------------------------------------------------------------


SIZES = {"betas": 11, "trans": 3, "center": 2, "img_size": 2, "cam_int": 9}


def check_sample(sample: Sample) -> None:
    """Raise BadSample (of malformed values TypeError, ValueError, KeyError) on a sample of no use.

    That is on shapes that do not fit together, numbers that are not finite, a box below a pixel or smaller
    than the cut, an unknown body, a person behind the camera. Depth's numbers are not looked at.
    """
    image, depth, parts, label = sample["image"], sample["depth"], sample["parts"], sample["label"]
    key, body, side = label["key"], label.get("body", DEFAULT_BODY), image.shape[0]
    if not key or set(key) & set("./\\"):
        raise BadSample(f"sample key {key!r} must be non-empty, without '.' and '/'")
    if body not in BODY_NAMES:
        raise BadSample(f"sample {key}: unknown body {body!r}")
    joints = list(chain.from_iterable(label["joints2d"]))
    sizes = SIZES | {"pose": 3 * num_rotations(body)}
    wrong = [name for name, size in sizes.items() if len(label[name]) != size]
    if wrong or len(joints) != 72:
        raise BadSample(f"sample {key}: '{(wrong or ['joints2d'])[0]}' has too many or too few numbers")
    numbers = [*chain.from_iterable(label[name] for name in sizes), *joints, label["scale"], label["margin"]]
    if not np.isfinite(np.array(numbers, np.float64)).all():
        raise BadSample(f"sample {key}: its label holds a number that is not finite")
    if not (200 * label["scale"] >= 1 and label["margin"] >= 1):
        raise BadSample(
            f"sample {key}: the box is {200 * label['scale']:g} pixels wide, its margin {label['margin']:g}; "
            "both must be at least 1"
        )
    positive = [*label["img_size"], label["cam_int"][0], label["cam_int"][4], label["trans"][2]]
    if not min(positive) > 0:
        raise BadSample(f"sample {key}: image, focal length and distance must be above 0, are {positive}")
    if image.shape != (side, side, 3) or image.dtype != np.uint8:
        raise BadSample(f"sample {key}: image is {image.dtype} {image.shape}, expected uint8 (P, P, 3)")
    if parts.shape != (side, side) or parts.dtype != np.uint8 or parts.max() > 22:
        raise BadSample(
            f"sample {key}: parts are {parts.dtype} {parts.shape}, expected uint8 (P, P) in 0..22"
        )
    if depth is not None and depth.shape != (side, side):
        raise BadSample(f"sample {key}: depth is {depth.shape}, expected (P, P)")


def encode_sample(sample: Sample) -> dict[str, bytes]:
    """A sample's members by extension. Raises what `check_sample` does, and BadSample on impossible depth."""
    check_sample(sample)
    image, depth, parts, label = sample["image"], sample["depth"], sample["parts"], dict(sample["label"])
    key = label["key"]
    members = {"jpg": _encode(".jpg", image[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)}
    if depth is not None:
        if not np.isfinite(depth).all() or (depth < 0).any():
            raise BadSample(f"sample {key}: depth must be finite and not negative")
        codes, label["depth_range"] = encode_depth(depth)
        members["depth.png"] = _encode(".png", codes, cv2.IMWRITE_PNG_COMPRESSION, 3)
    label["has_depth"] = depth is not None and bool(label["has_depth"])
    members["parts.png"] = _encode(".png", parts, cv2.IMWRITE_PNG_COMPRESSION, 6)
    members["json"] = json.dumps(label, separators=(",", ":"), allow_nan=False).encode()
    return members


def decode_sample(members: Mapping[str, bytes], codes: bool = False) -> Sample:
    """The inverse of `encode_sample`, up to JPEG and 16 bits. Raises BadSample naming the broken member.

    codes: leave depth in its 16-bit codes, see `encode_depth`; label's `depth_range` goes with them.
    What it returns may still be of no use, see `check_sample`.
    """
    try:
        label = json.loads(members["json"])
        key = label["key"]
    except KeyError as error:
        raise BadSample(f"sample lacks {error}") from error
    except ValueError as error:
        raise BadSample(f"label is not JSON ({error})") from error
    image = _decode(members, "jpg", cv2.IMREAD_COLOR_RGB, key)
    parts = _decode(members, "parts.png", cv2.IMREAD_UNCHANGED, key)
    depth = None
    if label.get("has_depth"):
        if "depth_range" not in label:
            raise BadSample(f"{key}: label has depth but no depth_range")
        depth = _decode(members, "depth.png", cv2.IMREAD_UNCHANGED, key)
        if depth.dtype != np.uint16 or not np.isfinite(label["depth_range"]).all():
            raise BadSample(f"{key}: depth.png must be 16 bit and depth_range finite")
        if not codes:
            depth = decode_depth(depth, label["depth_range"])
    return Sample(image=image, depth=depth, parts=parts, label=label)


def _encode(extension: str, array: np.ndarray, *options: int) -> bytes:
    ok, data = cv2.imencode(extension, array, list(options))
    if not ok:
        raise ValueError(f"OpenCV could not encode a {extension} of shape {array.shape}")
    return data.tobytes()


def _decode(members: Mapping[str, bytes], extension: str, flag: int, key: str) -> np.ndarray:
    data = members.get(extension)
    if not data:
        raise BadSample(f"{key}: {extension} is missing or empty")
    array = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    if array is None:
        raise BadSample(f"{key}: {extension} cannot be decoded; the shard is damaged")
    return array
