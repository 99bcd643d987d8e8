"""Body models: betas and joint rotations in, posed vertices and joints out.

`Body` (`dpose.body.model`) computes SMPL-X and SMPL. This module resolves which body is meant: the open body
that is part of this package, or one of the licensed files that each user downloads (`dpose.body.files`).
Joints and vertices that are weighted sums of vertices are in `dpose.body.regressors`.

Labels, manifests, checkpoints and results record the name and hash of their body. The recorded body is used;
another raises ValueError. Environment variables only name the folder of licensed files.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path

import torch

from dpose.body import files
from dpose.body.model import FORMS, Body, BodyOutput  # noqa: F401
from dpose.paths import not_empty
from dpose.skeleton import NUM_BODY_JOINTS, NUM_SMPL_JOINTS

DEFAULT_BODY = "smplx-neutral"  # of labels without a column `body`: BEDLAM's published files
OPEN_BODIES = ("open", "open-smpl")  # the open body in SMPL-X's format, and with fewer vertices in SMPL's
BODY_NAMES = OPEN_BODIES + tuple(
    f"{model}-{gender}" for model in ("smplx", "smpl") for gender in files.GENDERS
)

OPEN_BODY = Path(__file__).resolve().parents[1] / "assets" / "smplx" / "SMPLX_NEUTRAL.npz"
OPEN_SMPL = OPEN_BODY.parents[1] / "smpl" / "SMPL_NEUTRAL.npz"
OPEN_FILES = {"open": OPEN_BODY, "open-smpl": OPEN_SMPL}


def num_rotations(name: str) -> int:
    """The number of joint rotations in labels of the body `name`: 24 for SMPL, 22 for SMPL-X."""
    return NUM_SMPL_JOINTS if name == "open-smpl" or name.startswith("smpl-") else NUM_BODY_JOINTS


def load_body(path: str | PathLike | None = None, num_betas: int = 11, vertex_stride: int = 1) -> Body:
    """Read a SMPL-X or SMPL model, .npz or .pkl, as downloaded. Code in a file is never run.

    SMPL-X files with fewer than 400 columns of `shapedirs`, and SMPL files with fewer than 300, hold 10 betas
    (as the smplx package reads them); further betas have no effect.

    Args:
        path: None, the open body; one of `BODY_NAMES`, of which the licensed ones are searched for below
            $DPOSE_BODY_MODELS; or a file. A file called like one of `BODY_NAMES` gets that name.
        num_betas, vertex_stride: see `Body`.
    Raises:
        FileNotFoundError: a file is missing.
        ValueError: it has missing keys, wrong shapes or values, or a pickle with code; or `path` is "".
    """
    path = "open" if path is None else not_empty(path, "body")
    if path in BODY_NAMES:
        name, file = path, OPEN_FILES.get(path) or files.locate(path)
    else:
        file = Path(path).expanduser()
        known = {open_file: name for name, open_file in OPEN_FILES.items()}
        name = known.get(file.resolve()) or files.key_of(file) or "custom"
    return Body(files.read_body(file), num_betas, vertex_stride, name)


class Bodies:
    """Body models by name: `bodies("smplx-neutral")`. Each is read once, with 11 betas, and kept.

    Args:
        device: where they are put.
        given: bodies used instead of reading files of the same name. They are copied if they are on another
            device.
        records: {name: {"hash": ...}} of the data that these bodies are used with, as in manifests and
            checkpoints. Another hash raises ValueError.
    """

    def __init__(
        self,
        device: str | torch.device = "cpu",
        given: Iterable[Body] = (),
        records: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.device, self.records = torch.device(device), records or {}
        self._bodies: dict[str, Body] = {}
        for body in given:
            self._add(body if body.faces.device == self.device else copy.deepcopy(body))

    def __call__(self, name: str) -> Body:
        """The body of this name.

        Raises ValueError for an unknown name or another hash than recorded, and FileNotFoundError, which
        names the download address, for a missing licensed file.
        """
        if name not in self._bodies:
            if name not in BODY_NAMES:
                raise ValueError(f"unknown body {name!r}; choose one of {', '.join(BODY_NAMES)}")
            self._add(load_body(name))
        return self._bodies[name]

    def _add(self, body: Body) -> None:
        check_record(body, self.records.get(body.name), "the data")
        self._bodies[body.name] = body.to(self.device)


def check_record(body: Body, record: Mapping[str, str] | None, what: str) -> None:
    """Raise ValueError if `what` was made with another body than this one.

    record: {"name", "hash"}, as `Body.record`; without one nothing is checked.
    """
    if record and record.get("hash") not in (None, "", body.hash):
        raise ValueError(
            f"{what} belongs to the body {record.get('name', body.name)} ({record['hash']}), not to "
            f"{body.name} ({body.hash}): it was made with another version or file of the body model"
        )
