"""Data made by an array of jobs: `--part K/N` of `dpose synth` and `dpose prepare`.

Part K of N makes every N-th shard, beginning with the K-th, with the name that it has in a run without parts.
Parts run in any order, on several machines at a time if they share the folder, and again after an
interruption. Beside the shards each keeps `part-KKKK-of-NNNN.json`. A part that finds all shards made writes
the manifest, which is then that of a run without parts; two that do so at the same time write the same. As a
SLURM array:

    #SBATCH --array=1-16
    dpose synth --root /shared/open --train 1000000 --part $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from dpose.io import write_json

PART_FILE = re.compile(r"part-(\d{4,})-of-(\d{4,})\.json")
NAMED = 5  # missing parts that a message names


class Part(NamedTuple):
    """One of several parts, counted from 1."""

    number: int
    parts: int

    def share(self, jobs: list) -> list:
        """This part's jobs, of those of all parts."""
        return jobs[self.number - 1 :: self.parts]

    def write(self, folder: Path, command: str, complete: bool, **more: Any) -> None:
        """Write the part's file. command: which makes the data, for messages. more: to be kept with it."""
        name = f"part-{self.number:04d}-of-{self.parts:04d}.json"
        write_json(folder / name, {"command": command, "complete": complete, **more}, indent=None)


def parse_part(text: str) -> Part:
    """The part "K/N". Raises ValueError for anything else."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    part = Part(*map(int, found.groups())) if found else Part(0, 0)
    if not 1 <= part.number <= part.parts:
        raise ValueError(f"part {text!r}: expected K/N with K from 1 to N, for instance 3/16")
    return part


def read_parts(folder: Path) -> dict[Part, dict[str, Any]]:
    """The content of the files that parts have written to a folder; a damaged file counts as missing."""
    contents = {}
    for path in sorted(folder.glob("part-*.json")):
        if found := PART_FILE.fullmatch(path.name):
            try:
                content = json.loads(path.read_text())
                contents[Part(*map(int, found.groups()))] = content | {"complete": bool(content["complete"])}
            except (OSError, ValueError, KeyError, TypeError):
                continue
    return contents


def unfinished_parts(folder: Path) -> str | None:
    """What a folder without a manifest still needs, for messages; None if it was not made in parts."""
    contents = read_parts(folder)
    if not contents:
        return None
    last = max(contents, key=lambda part: (contents[part]["complete"], part))
    done = {part.number for part in contents if part.parts == last.parts and contents[part]["complete"]}
    return describe_missing(set(range(1, last.parts + 1)) - done, last.parts, contents[last]["command"])


def describe_missing(numbers: set[int], parts: int, command: str) -> str:
    """A sentence that names parts to run."""
    if not numbers:
        return f"all {parts} parts are made but not merged: run `{command} ... --part 1/{parts}` again"
    named = [str(number) for number in sorted(numbers)[:NAMED]]
    more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
    what = (
        f"parts {', '.join(named)}{more} of {parts} are"
        if len(numbers) > 1
        else f"part {named[0]} of {parts} is"
    )
    return f"{what} missing or unfinished: run `{command} ... --part {named[0]}/{parts}`"
