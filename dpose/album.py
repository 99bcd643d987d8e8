"""`dpose predict`: photographs, folders of them, and films to folders of results.

Each picture gets a folder of its own (`dpose.export.write`), and so does each film (`write_film`). What has a
folder is left alone: an interrupted command goes on where it was. Files that cannot be read are counted.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dpose.export import DEFAULT, RECORD, amass, check_kinds, colour, write
from dpose.film import FilmWriter, follow, frame_count, frame_rate, is_film, json_line
from dpose.io import check_folder, replacing_folder, write_json
from dpose.predictor import Person, Predictor, list_images, overlay
from dpose.track import Smoother


class _Nobody(Exception):
    """Ends the writing of a folder without people."""


@dataclass
class Summary:
    """What `predict_files` did."""

    written: list[Path] = field(default_factory=list)  # folders
    people: int = 0  # in these; in a film the number of tracks
    present: int = 0  # pictures and films whose folder was there before
    empty: list[Path] = field(default_factory=list)  # pictures and films without people
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
    smooth: bool = False,
    progress: bool = True,
) -> Summary:
    """Predicts the people of image files and films and writes a folder for each one with people below `out`.

    Args:
        predictor: what finds and predicts people.
        inputs: image files, films, and folders of images.
        out: folder for the results; that of a picture is named after its file.
        boxes, focal, cam_int: as for `Predictor`; boxes only with one picture.
        save: kinds of files, see `dpose.export.KINDS`.
        overwrite: predict also the pictures whose folder is there, and replace it.
        smooth: filter the motion of people in films (`dpose.track.Smoother`).
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
    todo, films = {}, {}
    for path, name in zip(files, _names(files), strict=True):
        if (out / name / RECORD).exists() and not overwrite:
            summary.present += 1
        else:
            (films if is_film(path) else todo)[str(path)] = out / name
    if boxes is not None and films:
        raise ValueError("boxes belong to a picture; the people of a film are found by the detector")
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
    for path, folder in films.items():
        try:
            tracks = write_film(
                predictor,
                path,
                folder,
                focal=focal,
                cam_int=cam_int,
                save=save,
                smooth=smooth,
                progress=progress,
            )
        except (ValueError, OSError) as error:
            unreadable(path, error)
            continue
        if tracks == 0:
            summary.empty.append(Path(path))
            continue
        summary.written.append(folder)
        summary.people += tracks
    return summary


def write_film(
    predictor: Predictor,
    path: str | Path,
    folder: str | Path,
    *,
    focal: float | None = None,
    cam_int: Any = None,
    save: Sequence[str] = DEFAULT,
    smooth: bool = False,
    progress: bool = True,
) -> int:
    """Predicts the people of a film and writes a folder, which appears when all its files are complete.

    - `people.jsonl`: a line per person and frame (`dpose.film.json_line`);
    - `overlay.mp4`: the bodies over the film, each track in its colour ("overlay"; needs PyAV);
    - `people.npz`: the same numbers as arrays, a row per line ("params");
    - `track-1-amass.npz`: a track in AMASS's layout ("amass"), frames in which it is not seen left out;
    - `people.json`: frames per second, numbers of frames, lines and tracks.

    Returns:
        The number of tracks; nothing is written if it is 0.
    Raises:
        As `dpose.film.follow` and `FilmWriter`.
    """
    rate, smoother = frame_rate(path), Smoother(predictor.body) if smooth else None
    seen: dict[int, list[Person]] = {}
    lines = frames = 0
    with suppress(_Nobody), replacing_folder(folder, RECORD) as staging, ExitStack() as stack:
        out = stack.enter_context(open(staging / "people.jsonl", "w", encoding="utf-8"))
        film = None
        bar = tqdm(total=frame_count(path) or None, desc=Path(path).name, unit="frame", disable=not progress)
        stack.enter_context(bar)
        for seconds, picture in follow(predictor, path, smoother=smoother, focal=focal, cam_int=cam_int):
            if "overlay" in save:
                if film is None:
                    height, width = picture.image.shape[:2]
                    film = stack.enter_context(FilmWriter(staging / "overlay.mp4", rate, (width, height)))
                colours = [colour(person.track) for person in picture.people]
                film.write(overlay(picture.people, picture.image, color=colours))
            for person in picture.people:
                out.write(json_line(person, seconds) + "\n")
                light = replace(person, vertices=None, parts=None, depth=None, crop=None)
                seen.setdefault(person.track, []).append(light)
            lines, frames = lines + len(picture.people), frames + 1
            bar.update()
        stack.close()
        if not seen:
            raise _Nobody
        if "params" in save:
            with open(staging / "people.npz", "wb") as file:
                np.savez(file, **_columns(seen, rate))
        if "amass" in save:
            for track, people in seen.items():
                with open(staging / f"track-{track}-amass.npz", "wb") as file:
                    np.savez(file, **amass(people, rate))
        about = {"source": Path(path).name, "frames_per_second": rate, "frames": frames}
        write_json(staging / RECORD, about | {"lines": lines, "tracks": len(seen), "smoothed": smooth})
    return len(seen)


def _columns(seen: dict[int, list[Person]], rate: float) -> dict[str, np.ndarray]:
    """All people of a film as arrays of R rows, by frame and track."""
    rows = sorted((one for people in seen.values() for one in people), key=lambda one: (one.frame, one.track))
    names = ("frame", "track", "box", "global_orient", "body_pose", "betas", "transl", "joints", "joints2d")
    columns = {name: np.stack([getattr(person, name) for person in rows]) for name in names}
    scores = np.array([np.nan if person.score is None else person.score for person in rows], np.float32)
    return columns | {
        "score": scores,
        "time": columns["frame"] / rate,
        "cam_int": rows[0].cam_int,
        "image_size": np.array(rows[0].image_size),
        "num_betas": np.int64(len(rows[0].betas)),
        "body": np.str_(rows[0].body),
    }


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
