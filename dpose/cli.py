"""The command `dpose`: make or prepare data, train, evaluate, predict, convert checkpoints, look around.

Only the parser lives here; a subcommand imports what it needs when it runs, so that `dpose --help` is quick.
A mistake of the user's ends in one line and exit status 2; `--debug` shows where it came from.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence

from dpose import __version__

COMMANDS = {
    "synth": "make the open data set: people rendered from an open body model",
    "prepare": "a data set's files, BEDLAM's for one, into shards to train from",
    "train": "train a network, or go on with a run that was interrupted",
    "evaluate": "measure a checkpoint on a split, with baselines",
    "predict": "body, depth and parts of one person in a photograph",
    "convert": "a released checkpoint into one of ours, or back",
    "doctor": "what is installed, which files are found, and what the missing ones are for",
    "install-neural-renderer": "build the paper's renderer of part labels, on CUDA (optional: Warp does it)",
}
BODY_HELP = (
    "SMPL-X file, .npz or .pkl, or a body's name (default: the body that the data or the checkpoint name)"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (0, or 2 for a mistake in the input)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    args = _parser(arguments).parse_args(arguments)
    try:
        args.run(args)
    except KeyboardInterrupt:
        print("dpose: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ArithmeticError, RuntimeError, MemoryError) as error:
        if args.debug:
            raise
        print(f"dpose: error: {_one_line(error)}", file=sys.stderr)
        return 2
    return 0


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dpose",
        description="Human pose and shape from one image, with depth and body parts on the way.",
        epilog="`dpose COMMAND --help` explains a command. The open data lies in a per-user cache folder "
        "unless --data or $DPOSE_DATA says otherwise.",
    )
    parser.add_argument("--version", action="version", version=f"dpose {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    for name, text in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name == chosen:  # the others' arguments may take an import to know
            globals()[f"_add_{name.replace('-', '_')}"](command)
    return parser


def _add_synth(parser: argparse.ArgumentParser) -> None:
    from dpose import synthetic

    synthetic.add_arguments(parser)
    parser.set_defaults(run=synthetic.run)


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    from dpose.data import prepare

    prepare.add_arguments(parser)
    parser.set_defaults(run=prepare.run)


def _add_train(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    unset = argparse.SUPPRESS
    add(
        "--preset",
        default="auto",
        help="mini, mini-no-depth, paper, paper-no-depth, or auto: paper on a GPU, mini otherwise",
    )
    add(
        "--data",
        nargs="+",
        metavar="DATA",
        help="folder or URL, or several to mix (default: $DPOSE_DATA, else the open data)",
        default=unset,
    )
    add(
        "--mix",
        nargs="+",
        type=float,
        metavar="WEIGHT",
        help="how often each of several DATA gives a sample (default: by their numbers of samples)",
        default=unset,
    )
    add("--out", help="run folder (default: runs/PRESET)", default=unset)
    add("--steps", type=int, help="optimizer steps (default: the preset's recipe)", default=unset)
    add("--batch-size", type=int, help="samples a step, over all devices (default: recipe)", default=unset)
    add("--lr", type=float, help="learning rate (default: recipe)", default=unset)
    add(
        "--recipe",
        help="a preset's, or released: as the authors' code (default: the preset's)",
        default=unset,
    )
    add("--seed", type=int, default=0, help="of weights, data order and augmentation")
    add("--overwrite", action="store_true", help="replace an earlier run in the run folder")
    add("--resume", metavar="CKPT", help="last.ckpt of a run to go on with", default=unset)
    add(
        "--init",
        metavar="FILE",
        help="weights a new run starts from: a checkpoint of the preset, or HRNet's of COCO keypoints "
        "(pose_hrnet_w48_256x192.pth) for the encoder, as the paper does",
        default=unset,
    )
    add("--body", metavar="FILE", help=BODY_HELP, default=unset)
    add("--accelerator", default="auto", help="cpu, cuda, ... as lightning names them")
    add("--devices", type=_devices, default=1, help="how many devices, or auto for all")
    add("--strategy", default="auto", help="lightning's name of how several devices share the work")
    add("--precision", choices=["32", "bf16", "auto"], help="of the network (default: recipe)", default=unset)
    add("--workers", type=int, help="loader processes a device (default: spare cores)", default=unset)
    add(
        "--max-bad",
        type=int,
        metavar="SAMPLES",
        help="unreadable samples that a loader process skips in an epoch (default: 20)",
        default=unset,
    )
    add("--log-every", type=int, default=20, help="steps a row of log.csv")
    add("--checkpoint-minutes", type=float, default=5.0, help="so much work a killed run loses at most")
    add("--progress", action=argparse.BooleanOptionalAction, help="show a progress line", default=True)
    parser.set_defaults(run=_train)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--checkpoint", default="mini", help="a .safetensors or released .ckpt, or the name of a shipped one")
    add("--data", help="data root ($DPOSE_DATA, else the open data, if not given)")
    add("--split", default="test", help="train, val or test")
    add(
        "--protocol",
        help="which joints are compared: smplx24 (BEDLAM), smpl24 (RICH), h36m14 or smpl22 (3DPW and EMDB by "
        "their code or the paper's text); all but the first need matrices: the open body's, or for licensed "
        "bodies those below $DPOSE_BODY_MODELS (default: the data set's own)",
    )
    add(
        "--focal",
        choices=["label", "diagonal"],
        default="label",
        help="focal length that is passed to the network: the label's, or the image diagonal, as in the "
        "released evaluation",
    )
    add(
        "--depth-rule",
        choices=["paper", "released"],
        help="how depth becomes a target (default: as in the checkpoint's training)",
    )
    add("--out", metavar="JSON", help="file for the results")
    add("--samples", type=int, help="number of samples, taken from all over the split (default: all)")
    add("--batch-size", type=int, default=64, help="images at once; no influence on the results")
    add("--workers", type=int, default=1, help="loader processes")
    add("--device", help="cpu, cuda, ... (cuda where there is one, if not given)")
    add("--body", metavar="FILE", help=BODY_HELP)
    add("--progress", action=argparse.BooleanOptionalAction, help="show a progress line", default=True)
    parser.set_defaults(run=_evaluate)


def _add_predict(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("image", help="photograph (JPEG, PNG, ...)")
    add(
        "--box",
        type=_box,
        metavar="X,Y,W,H",
        help="the person, tightly, in pixels from the top left corner (the whole image, if not given)",
    )
    add("--out", default="prediction", metavar="FOLDER", help="folder to write to")
    add("--checkpoint", default="mini", help="a .safetensors or released .ckpt, or the name of a shipped one")
    add("--focal", type=float, metavar="PX", help="focal length in pixels (the image diagonal, if not given)")
    add("--body", metavar="FILE", help=BODY_HELP)
    add("--device", help="cpu, cuda, ... (cuda where there is one, if not given)")
    parser.set_defaults(run=_predict)


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.description += (
        " The direction follows from IN. A .ckpt, the authors' or one laid out like it, becomes a "
        ".safetensors: the network alone, without body models and optimizer, and with nothing pickled. (The "
        "other commands take the .ckpt as well.) A .safetensors of the preset 'paper' becomes a .ckpt that "
        "the authors' code loads with strict=False, as the body models are missing; other presets that code "
        "cannot build. Weights and batch norms come through bit for bit where they are float32, and become "
        "float32 where they are not."
    )
    parser.add_argument(
        "source", metavar="IN", help="checkpoint to read: .ckpt, .safetensors or a shipped name"
    )
    parser.add_argument("target", metavar="OUT", help="file to write: .safetensors from a .ckpt, else .ckpt")
    parser.set_defaults(run=_convert)


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--body-models", metavar="FOLDER", help="licensed body files ($DPOSE_BODY_MODELS, if not given)")
    add("--data", help="data root ($DPOSE_DATA, else the open data, if not given)")
    parser.set_defaults(run=_doctor)


def _add_install_neural_renderer(parser: argparse.ArgumentParser) -> None:
    parser.description += (
        " Downloads the source of neural-renderer-pytorch 1.1.3 from PyPI, replaces the names that torch has "
        "changed since, and installs what it builds into the environment that dpose runs in. Needs a CUDA "
        "device, torch with CUDA, and the CUDA toolkit's compiler."
    )
    parser.set_defaults(run=_install_neural_renderer)


def _train(args: argparse.Namespace) -> None:
    from dpose.training import TrainConfig, train

    options = {name: value for name, value in vars(args).items() if name not in ("run", "debug")}
    result = train(TrainConfig(**options))
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return  # of several processes, one speaks
    print(
        f"{result.steps} steps, {result.images_per_second:.0f} images/s, loss {result.losses['total']:.4g}\n"
        f"checkpoint  {result.checkpoint}\nlog         {result.log}\nresume with --resume {result.resume}"
    )


def _evaluate(args: argparse.Namespace) -> None:
    from dpose.evaluate import evaluate, format_table

    options = {name: value for name, value in vars(args).items() if name not in ("run", "debug")}
    print(format_table(evaluate(**options)))
    if args.out:
        print(f"written to {args.out}")


def _predict(args: argparse.Namespace) -> None:
    from dpose.predict import FILES, predict

    predict(
        args.image,
        args.box,
        args.checkpoint,
        args.out,
        focal=args.focal,
        body=args.body,
        device=args.device,
    )
    print(f"written to {args.out}: {', '.join(FILES)}")


def _convert(args: argparse.Namespace) -> None:
    from pathlib import Path

    from dpose.model import checkpoint, released
    from dpose.model.network import parameter_table
    from dpose.results import file_hash

    source, target = checkpoint.resolve(args.source), Path(args.target)
    to_ours = released.is_torch_file(source)
    suffix = ".safetensors" if to_ours else ".ckpt"
    if target.suffix != suffix:
        raise ValueError(f"{args.source} becomes a {suffix} file; {target} is called otherwise")
    if target.exists():
        raise FileExistsError(f"{target} is there already; remove it or name another file")
    model, story = checkpoint.read(source)
    origin = {"checkpoint": source.name, "sha256": file_hash(source)}
    write = checkpoint.save if to_ours else checkpoint.save_released
    write(model, target, story | {"converted_from": origin})
    total = parameter_table(model)[-1]
    print(f"{total.parameters:,} parameters and {total.buffers:,} buffers written to {target}")


def _doctor(args: argparse.Namespace) -> None:
    from dpose.tools.doctor import report

    print(report(args.body_models, args.data))


def _install_neural_renderer(args: argparse.Namespace) -> None:
    from dpose.tools.install_neural_renderer import install

    install()


def _box(text: str) -> tuple[float, ...]:
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected four numbers x,y,width,height, got {text!r}") from None
    return x, y, width, height


def _devices(text: str) -> int | str:
    if text == "auto" or (text.isdigit() and int(text) > 0):
        return text if text == "auto" else int(text)
    raise argparse.ArgumentTypeError(f"expected a number of devices or 'auto', got {text!r}")


def _one_line(error: BaseException) -> str:
    """The message without line breaks; of an error from a loader process, the original one only."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, MemoryError):
        return f"out of memory: {lines[0]}"
    if "Original Traceback" in str(error):
        return re.sub(r"^[\w.]*[A-Z]\w*: ", "", lines[-1])  # without the exception's name
    return " ".join(lines)


if __name__ == "__main__":
    sys.exit(main())
