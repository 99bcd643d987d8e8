"""Data sets to shards: `dpose prepare SET`, in parallel, and resumable after an interruption.

A data set's module (`dpose.data.sets`) converts its files to frame sets. The frames of each, in an order
shuffled once, are distributed to jobs of about `per_shard` people, whole frames only (`plan`). A job (`job`)
makes

    <out>/shards/<split>-NNNNNN.json   its record: what it was made from, counts, hash, what was left out
    <out>/shards/<split>-NNNNNN.tar    the shard

The record is written first; both atomically. A job whose shard and record exist is not repeated. When all are
done (`driver`), `manifest.json` lists them. With `--part K/N` an array of jobs shares the work
(`dpose.data.parts`). `command` has the arguments of the command line.
"""

from dpose.data.prepare.command import add_arguments, run
from dpose.data.prepare.driver import PRESETS, SETS, prepare, prepare_scenes, set_module

__all__ = ["PRESETS", "SETS", "add_arguments", "prepare", "prepare_scenes", "run", "set_module"]
