"""`dpose predict`: photographs, folders of them, and films to folders of results.

Each picture gets a folder of its own (`dpose.export.write`). A picture whose folder is there is left alone:
an interrupted command goes on where it was. Files that cannot be read are counted and left out.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dpose.export import DEFAULT, check_kinds, write
from dpose.io import check_folder
from dpose.predictor import Predictor, list_images

RECORD = "people.json"


@dataclass
class Summary:
    """What `predict_files` did."""

    written: list[Path] = field(default_factory=list)  # folders
    people: int = 0  # in these
    present: int = 0  # pictures whose folder was there before
    empty: list[Path] = field(default_factory=list)  # pictures without people
    failed: dict[Path, str] = field(default_factory=dict)  # files that could not be read, and why
    focal_from: Counter = field(default_factory=Counter)  # pictures by `Person.focal_from`

    def __str__(self) -> str:
        def count(number: int, thing: str) -> str:
            return f"{number:,} {thing}{'' if number == 1 else 's'}"

        people = "1 person" if self.people == 1 else f"{self.people:,} people"
        parts = [f"{people} in {count(len(self.written), 'picture')}"]
        if self.present:
            parts.append(f"{self.present:,} done before")
        if self.empty:
            parts.append(f"nobody found in {count(len(self.empty), 'picture')}")
        if self.failed:
            parts.append(f"{count(len(self.failed), 'file')} could not be read")
        return "; ".join(parts)


def predict_files(
    predictor: Predictor,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    boxes: Sequence[Sequence[float]] | None = None,
    focal: float | None = None,
    cam_int: Any = None,
    save: Sequence[str] = DEFAULT,
    overwrite: bool = False,
    progress: bool = True,
) -> Summary:
    """Predicts the people of image files and writes a folder for each picture with people below `out`.

    Args:
        predictor: what finds and predicts people.
        inputs: image files and folders of them.
        out: folder for the results; that of a picture is named after its file.
        boxes, focal, cam_int: as for `Predictor`; boxes only with one picture.
        save: kinds of files, see `dpose.export.KINDS`.
        overwrite: predict also the pictures whose folder is there, and replace it.
        progress: show a progress bar, and a line for each file that cannot be read, on stderr.
    Raises:
        FileNotFoundError: one of `inputs` is missing; nothing is done then.
        ValueError: boxes with several pictures; an unknown kind; or the only file cannot be read.
        FileExistsError: a folder of results is something else.
    """
    check_kinds(save)
    files = _files(inputs)
    if boxes is not None and len(files) > 1:
        raise ValueError(f"boxes belong to one picture, but there are {len(files)}")
    out, summary = check_folder(out), Summary()
    todo = {}
    for path, name in zip(files, _names(files), strict=True):
        if (out / name / RECORD).exists() and not overwrite:
            summary.present += 1
        else:
            todo[str(path)] = out / name
    bar = tqdm(total=len(todo), desc="predict", unit="picture", disable=not (progress and len(todo) > 1))

    def unreadable(source: str, error: Exception) -> None:
        if len(files) == 1:
            raise error
        summary.failed[Path(source)] = str(error)
        bar.update()
        if progress:
            tqdm.write(f"dpose: {error}", file=sys.stderr)

    with bar:
        found = predictor.stream(list(todo), boxes, focal=focal, cam_int=cam_int, failed=unreadable)
        for picture in found:
            bar.update()
            if not picture.people:
                summary.empty.append(Path(picture.source))
                continue
            folder = todo[picture.source]
            write(picture.people, folder, picture.image, save)
            summary.written.append(folder)
            summary.people += len(picture.people)
            summary.focal_from[picture.people[0].focal_from] += 1
    return summary


def _files(inputs: Sequence[str | Path]) -> list[Path]:
    """The image files of files and folders, each once. Raises FileNotFoundError, or ValueError for none."""
    files: dict[Path, None] = {}
    for one in map(Path, inputs):
        if not one.exists():
            raise FileNotFoundError(f"no image at {one}")
        files |= dict.fromkeys(list_images(one) if one.is_dir() else [one])
    if not files:
        raise ValueError("there are no pictures")
    return list(files)


def _names(files: Sequence[Path]) -> list[str]:
    """A folder's name for each file: its stem; where that is not unique, its whole name or a number more."""
    stems = Counter(path.stem for path in files)
    names: dict[str, None] = {}
    for path in files:
        name = path.stem if stems[path.stem] == 1 else path.name.replace(".", "-")
        unique, number = name, 2
        while unique in names:
            unique, number = f"{name}-{number}", number + 1
        names[unique] = None
    return list(names)
