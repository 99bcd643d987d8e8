"""The command `dpose prepare`: arguments, and what is printed."""

import argparse
from pathlib import Path

from dpose.data.frames import MAX_FAULTS
from dpose.data.prepare.driver import PER_SHARD, PRESETS, SETS, WHOLE, WITH_DEPTH, prepare, set_module
from dpose.data.prepare.plan import VALIDATION
from dpose.data.shards import MANIFEST
from dpose.data.targets import CAMERAS


class _Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    pass


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `dpose prepare`: a subcommand per set, whose help is its module's text."""
    sets = parser.add_subparsers(title="data sets", metavar="SET", dest="set", required=True)
    for name in SETS:
        module = set_module(name)
        command = sets.add_parser(
            name,
            help=module.__doc__.strip().splitlines()[0].replace("%", "%%"),
            description=module.__doc__,
            formatter_class=_Help,
            argument_default=argparse.SUPPRESS,
        )
        add = command.add_argument
        add("--root", required=True, help="folder of the set's files, see above")
        add("--out", required=True, help="output folder: shards go to OUT/shards; one split per folder")
        add("--split", choices=module.SPLITS, default=module.SPLITS[0], help="part of the set")
        side = command.add_mutually_exclusive_group()
        side.add_argument("--size", type=int, help="side of a crop in pixels (default: the preset's)")
        sides = " and ".join(f"{side} pixels for {preset}" for preset, side in PRESETS.items())
        side.add_argument("--preset", choices=PRESETS, default="paper", help=f"crops of {sides}")
        share = "0" if name in WHOLE else f"{VALIDATION} of train, else 0"
        text = "share of the sequences that goes to split val, whose people may also be in train"
        add("--validation", type=float, metavar="SHARE", help=f"{text} (default: {share})")
        add("--workers", type=int, help="processes (default: one per core)")
        add("--per-shard", type=int, default=PER_SHARD, metavar="PEOPLE", help="about how many per shard")
        text = "stop if more frames or people than this cannot be used"
        add("--max-faults", type=int, default=MAX_FAULTS, metavar="N", help=text)
        add("--limit", type=int, metavar="PEOPLE", help="about how many to take, for a trial (default: all)")
        text = (
            "make part K of N, in an array of jobs on a shared folder; the last to finish writes the manifest"
        )
        add("--part", metavar="K/N", help=text)
        text = "view of the part labels: the crop's own, or the released code's, of focal length 5000"
        add("--parts-camera", choices=CAMERAS, default="crop", help=text)
        if name in WITH_DEPTH:
            add("--without-depth", dest="depth", action="store_false", help="prepare people without depth")
        add("--dry-run", action="store_true", help="estimate time and size, and stop")
        add("--progress", action=argparse.BooleanOptionalAction, default=True, help="show progress bars")
        add("--debug", action="store_true", help="show the traceback of an error")


def run(args: argparse.Namespace) -> None:
    """`dpose prepare`."""
    given = {key: value for key, value in vars(args).items() if key not in ("set", "run", "debug", "preset")}
    manifest = prepare(args.set, **{"size": PRESETS[args.preset]} | given, say=print)
    if manifest is None:
        return
    folder, faults = Path(args.out).expanduser() / "shards", manifest["faults"]
    people = ", ".join(f"{split} {count}" for split, count in manifest["splits"].items())
    print(f"{folder}: {people} people in {len(manifest['shards'])} shards")
    for rule, count in manifest["dropped"].items():
        print(f"left out: {count} people, {rule}")
    if faults:
        where = folder / MANIFEST
        print(f"{len(faults)} frames or people could not be used, listed in {where}; the first: {faults[0]}")
