"""What the data sets' modules share on the way from raw ground truth to label files.

`converted` keeps a made label file as long as what it was made from stays the same.
"""

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from dpose.data.frames import Skipped
from dpose.data.labels import Labels
from dpose.files import replacing


def converted(
    out: str | os.PathLike,
    name: str,
    sources: list[Path],
    version: int,
    make: Callable[[Skipped], Labels | None],
    skipped: Skipped,
) -> Path | None:
    """The label file `<out>/labels/<name>.npz`: made by `make`, unless it is there and made from the same.

    sources: the files that it is made from. version: of the conversion; raise it when its results change.
    `make` reports what it leaves out to the `Skipped` it gets, and returns None where nobody is left: then
    there is no label file, and so is the answer. Beside the labels lies `<name>.json` with the sources' sizes
    and times and with what was left out, which a later call reports again.
    """
    labels = Path(out) / "labels" / f"{name}.npz"
    beside = labels.with_suffix(".json")
    stats = [(path, path.stat()) for path in map(Path, sources)]
    made_from = {
        "version": version,
        "sources": [[path.name, stat.st_size, stat.st_mtime_ns] for path, stat in stats],
    }
    try:
        record = json.loads(beside.read_text())
        if record["made_from"] == made_from and (labels.is_file() or not record["people"]):
            for rule, count in record["dropped"].items():
                skipped.drop(rule, count)
            for fault in record["faults"]:
                skipped.fault(fault)
            return labels if record["people"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # none, or not one of ours: made again
    dropped, faults = Counter(skipped.dropped), len(skipped.faults)
    table = make(skipped)
    beside.unlink(missing_ok=True)  # so that labels never lie beside another one's record
    labels.unlink(missing_ok=True)
    if table is not None:
        table.save(labels)
    record = {
        "made_from": made_from,
        "people": 0 if table is None else len(table),
        "dropped": dict(skipped.dropped - dropped),
        "faults": skipped.faults[faults:],
    }
    beside.parent.mkdir(parents=True, exist_ok=True)
    with replacing(beside) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
    return labels if table is not None else None
