"""The command `dpose`: make or prepare data, train, evaluate, predict, convert checkpoints.

Parses arguments and calls the functions behind each command. A subcommand imports what it needs when it runs,
so that `dpose --help` is fast. An error with a message ends in one line and exit status 2; `--debug` shows
the traceback.
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections.abc import Sequence

from dpose import __version__

BODY_HELP = "SMPL-X file, .npz or .pkl, or the name of a body (default: as recorded with data and checkpoint)"
SHARED = {  # options of several commands
    "--checkpoint": {
        "default": "lite",
        "help": "a .safetensors file, a released .ckpt, or the name of a shipped network",
    },
    "--data": {"help": "data folder (default: $DPOSE_DATA, else the open data)"},
    "--body": {"metavar": "BODY", "help": BODY_HELP},
    "--device": {"help": "cpu, cuda, cuda:1, ... (default: cuda if there is one)"},
}
SPLIT_OPTIONS = {"data", "split", "protocol", "focal", "depth_rule", "samples"}  # of `dpose evaluate`
KEYPOINT_OPTIONS = {"images", "box_factor", "min_joints"}
ERRORS = (ValueError, OSError, ArithmeticError, RuntimeError, MemoryError, ModuleNotFoundError)
NUMBERS = ("--box", "--cam-int")  # options whose value may begin with a minus


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Appends defaults other than None and False, wraps paragraphs, and keeps indented ones as they are."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            part if part.startswith(" ") else super(Help, self)._fill_text(part, width, indent)
            for part in text.split("\n\n")
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns the exit status: 0, or what a command returns; 2 for errors with a message; 130 after Ctrl-C,
    143 after SIGTERM.
    """
    arguments = _join_numbers(sys.argv[1:] if arguments is None else arguments)
    args = _parser(arguments).parse_args(arguments)
    plain, warnings.formatwarning = warnings.formatwarning, _format_warning
    try:
        return args.run(args) or 0
    except KeyboardInterrupt as interrupt:
        print(f"dpose: {interrupt if interrupt.args else 'interrupted'}", file=sys.stderr)
        return 130
    except SystemExit as stop:  # a training run that was stopped
        if str(stop):
            print(f"dpose: {stop}", file=sys.stderr)
        return stop.code
    except (*ERRORS, _opencv_error()) as error:
        if args.debug:
            raise
        notes = getattr(error, "__notes__", [])
        print(f"dpose: error: {'; '.join([_one_line(error), *notes])}", file=sys.stderr)
        return 2
    finally:
        warnings.formatwarning = plain


def _opencv_error() -> type[Exception]:
    """`cv2.error`, if OpenCV is in use; it is not an OSError, ValueError or RuntimeError."""
    return getattr(sys.modules.get("cv2"), "error", ValueError)


def _join_numbers(arguments: Sequence[str]) -> list[str]:
    """`--box -5,0,9,9` as `--box=-5,0,9,9`: argparse takes a value with a leading minus for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in NUMBERS and re.match(r"-[\d.]", argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _format_warning(message: Warning | str, *where: object) -> str:
    return f"dpose: warning: {message}\n"


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dpose",
        description="Human pose and shape from one image, with depth and body parts as intermediate results.",
        epilog="`dpose COMMAND --help` explains a command. The open data are in a cache folder of the user, "
        "unless --data or $DPOSE_DATA names another folder.",
    )
    parser.add_argument("--version", action="version", version=f"dpose {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    for name, (text, add_arguments) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            formatter_class=Help,
        )
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name == chosen:  # some commands need an import to know their arguments
            add_arguments(command)
    return parser


def _add_shared(parser: argparse.ArgumentParser, *names: str) -> None:
    for name in names:
        parser.add_argument(name, **SHARED[name])


def _add_synth(parser: argparse.ArgumentParser) -> None:
    from dpose import synthetic

    synthetic.add_arguments(parser)
    parser.set_defaults(run=synthetic.run)


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    from dpose.data import prepare

    prepare.add_arguments(parser)
    parser.set_defaults(run=prepare.run)


def _add_train(parser: argparse.ArgumentParser) -> None:
    from dpose.training import PRECISIONS

    parser.description += (
        " Options not given follow from the preset's recipe; with --resume, from the run in the checkpoint, "
        "which continues with the same optimizer state and, with the same numbers of devices and workers, "
        "the same data order. Such a run may change --steps, --lr, --accelerator, --devices, "
        "--nodes, --accumulate, --strategy, --workers, --log-every, --max-bad, --checkpoint-minutes, "
        "--tensorboard, --validate-every, --val-data, and --data to where the same data were moved. On the "
        "CPU every process uses one thread, unless $OMP_NUM_THREADS is set."
    )
    parser.set_defaults(run=_train)
    parser.argument_default = argparse.SUPPRESS  # options that are not given: see TrainConfig
    add = parser.add_argument
    add(
        "--preset",
        help="paper, lite or mini, or one of them with -no-depth; paper or lite with -hmr, -cliff or -pare, "
        "the heads of other methods; lite-no-attention; or auto: paper on a GPU, else lite (default: auto)",
    )
    add(
        "--data",
        nargs="+",
        metavar="DATA",
        help="folder or URL; synth: (or synth:seed=7,size=280) for people rendered while training, without "
        "files; or several of these to mix (default: $DPOSE_DATA, else the open data)",
    )
    add(
        "--mix",
        nargs="+",
        type=float,
        metavar="WEIGHT",
        help="relative frequency of each of several DATA (default: their numbers of samples)",
    )
    add("--out", metavar="FOLDER", help="run folder (default: runs/PRESET)")
    add("--steps", type=int, help="optimizer steps (default: recipe)")
    add("--batch-size", type=int, help="samples per step, over all devices (default: recipe)")
    add("--lr", type=float, help="learning rate (default: recipe)")
    add("--recipe", help="a preset's name, or released: settings of the authors' code (default: preset's)")
    add("--seed", type=int, help="random seed of initial weights, data order and augmentation (default: 0)")
    add("--overwrite", action="store_true", help="move an earlier run in FOLDER to FOLDER.1 (or .2, ...)")
    add("--resume", metavar="CKPT", help="last.ckpt of the run to continue")
    add(
        "--init",
        metavar="FILE",
        help="weights that a new run starts from: a checkpoint of the preset; HRNet's of COCO keypoints "
        "(pose_hrnet_w48_256x192.pth) for the encoder, as in the paper; or random (default: lite's backbone "
        "as shipped, the rest random)",
    )
    add("--body", metavar="BODY", help="body file or name; it must be the body that the data name")
    add("--accelerator", help="cpu, cuda, ... as lightning names them (default: auto)")
    add(
        "--devices",
        type=_devices,
        help="number of devices of each node, or auto: all GPUs, or a process per core (default: the "
        "launcher's; 1 GPU; auto on the CPU)",
    )
    add(
        "--nodes",
        type=int,
        help="number of machines. Start the command on each, with the same data and a shared run folder: by "
        "torchrun (torchrun --nnodes 2 --nproc-per-node 8 ... -m dpose.cli train ...), by srun (with "
        "--ntasks-per-node), or with MASTER_ADDR, MASTER_PORT and NODE_RANK set (default: the launcher's; 1)",
    )
    add(
        "--accumulate",
        type=int,
        metavar="COUNT",
        help="handle the batch of a step in COUNT pieces, for less memory; batch norms and means of losses "
        "are over a piece (default: 1)",
    )
    add("--strategy", help="lightning's name for how several devices share the work (default: auto)")
    add(
        "--precision",
        choices=[*PRECISIONS, "auto"],
        help="32: strict float32; tf32; tf32-conv: TF32 in convolutions alone, PyTorch's default; bf16: in "
        "the network; auto: bf16 where the hardware computes in it (default: recipe)",
    )
    add("--workers", type=int, help="loader processes per device (default: spare cores)")
    add(
        "--max-bad",
        type=int,
        metavar="COUNT",
        help="unreadable samples, and damaged shards, that a loader process skips per epoch (default: 20)",
    )
    add("--log-every", type=int, metavar="STEPS", help="steps per row of log.csv (default: 20)")
    add("--checkpoint-minutes", type=float, help="a run that is killed loses at most this (default: 5)")
    add(
        "--validate-every",
        type=int,
        metavar="STEPS",
        help="steps between validations on 256 people of the validation split, never of the test split; they "
        "make val.csv, best.safetensors (smallest MPJPE), samples/ and curves.png; 0: none (default: a "
        "twentieth of the run, at least 200)",
    )
    add(
        "--val-data",
        nargs="+",
        metavar="DATA",
        help="data with a validation split (default: those of --data that have one)",
    )
    add("--tensorboard", action=argparse.BooleanOptionalAction, help="log for TensorBoard as well")
    add("--progress", action=argparse.BooleanOptionalAction, help="show a progress line", default=True)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.argument_default = argparse.SUPPRESS  # of options that are not given: see `evaluate`
    add = parser.add_argument
    _add_shared(parser, "--checkpoint", "--data")
    add("--split", help="train, val, test, or hard, which `dpose synth --hard` makes (default: test)")
    add(
        "--protocol",
        help="which joints are compared: smplx24 (BEDLAM), smpl24 (RICH), h36m14 or smpl22 (3DPW and EMDB by "
        "their code or the paper's text); all but the first need matrices: the open body's, or for licensed "
        "bodies those below $DPOSE_BODY_MODELS (default: the data set's own)",
    )
    add(
        "--focal",
        choices=["label", "diagonal"],
        help="focal length that is passed to the network: the label's, or the image diagonal, as in the "
        "released evaluation (default: label)",
    )
    add(
        "--depth-rule",
        choices=["paper", "released"],
        help="how depth becomes a target (default: as in the checkpoint's training)",
    )
    add(
        "--out",
        metavar="JSON",
        help="file for the results; of a split also NAME.people.npz beside it, the errors of each person",
    )
    add("--samples", type=int, help="number of samples, taken from all over the split (default: all)")
    add("--batch-size", type=int, help="samples per batch, without influence on the results (default: 64)")
    add("--workers", type=int, help="loader processes (default: 1)")
    keypoints = parser.add_argument_group("2D keypoints in photographs, instead of a split")
    keypoints.add_argument("--keypoints", metavar="JSON", help="annotations in COCO's format")
    keypoints.add_argument("--images", metavar="FOLDER", help="folder of the images that JSON names")
    keypoints.add_argument(
        "--box-factor",
        type=float,
        metavar="F",
        help="side of the square that the network receives / longer side of the annotated box (default: 1.2)",
    )
    keypoints.add_argument(
        "--min-joints",
        type=int,
        metavar="N",
        help="annotated limb joints that a person must have (default: 1)",
    )
    _add_shared(parser, "--device", "--body")
    add("--progress", action=argparse.BooleanOptionalAction, help="show a progress line", default=True)
    parser.set_defaults(run=_evaluate)


def _add_predict(parser: argparse.ArgumentParser) -> None:
    from dpose.export import DEFAULT, KINDS

    parser.description += (
        " People are found by a detector (NanoDet, in the package), unless --box names them. Each picture "
        "with people gets a folder below --out, named after its file. A picture that has one is left alone: "
        "an interrupted command goes on where it was. The orientation in a photo's EXIF data is applied "
        "first; the focal length is EXIF's, else the image diagonal, and distances are proportional to it."
    )
    parser.epilog = (
        "Exit status: 0; 2 for a mistake in input; 3 if nobody was found (nothing is written); 4 if some "
        "files could not be read.\n\n" + SMPLX_RECIPE
    )
    add = parser.add_argument
    add("inputs", nargs="*", metavar="FILE", help="photographs (JPEG, PNG, ...), folders of them, films")
    add(
        "--box",
        type=_numbers,
        action="append",
        metavar="X,Y,W,H",
        help="a visible person, tightly, in pixels of the upright image: left, top, width, height; may "
        "extend beyond the image; the network receives a square of its longer side; may be repeated "
        "(default: the detector's)",
    )
    add("--out", default="prediction", metavar="FOLDER", help="folder to write to")
    add(
        "--save",
        default=",".join(DEFAULT),
        metavar="KIND,...",
        help=f"what to write: {', '.join(KINDS)}",
    )
    add("--overwrite", action="store_true", help="predict pictures again that have a folder, and replace it")
    add("--smooth", action="store_true", help="filter the motion of people in films (One-Euro)")
    add(
        "--camera",
        metavar="N",
        help="a live camera by its number, or a film that plays one, instead of FILE; ends with Ctrl-C",
    )
    add("--stream", action="store_true", help="with --camera: print a line of JSON per person and frame")
    add("--detector", default="nanodet", metavar="FILE", help="nanodet, or a detector in an ONNX file")
    add(
        "--min-score",
        type=float,
        default=0.3,
        metavar="S",
        help="least score of people, 0 to 1",
    )
    camera = parser.add_mutually_exclusive_group()
    camera.add_argument("--focal", type=float, metavar="PX", help="focal length in pixels")
    camera.add_argument(
        "--cam-int",
        type=_numbers,
        metavar="FX,FY,CX,CY",
        help="focal lengths and principal point in pixels, for instance of a cropped photo",
    )
    _add_shared(parser, "--checkpoint", "--body", "--device")
    add("--progress", action=argparse.BooleanOptionalAction, help="show a progress line", default=True)
    parser.set_defaults(run=_predict)


def _add_app(parser: argparse.ArgumentParser) -> None:
    parser.description += (
        " Drop a photograph on the page, or choose an example: it shows the people found, their bodies in "
        "3D, parts and depth, and offers the files that `dpose predict` writes. The server answers this "
        "computer alone, and nothing is loaded from or sent to the network. Ctrl-C ends it."
    )
    parser.add_argument("--port", type=int, default=7860, help="of 127.0.0.1; 0: one that is free")
    _add_shared(parser, "--checkpoint", "--body", "--device")
    parser.set_defaults(run=_app)


def _add_experiment(parser: argparse.ArgumentParser) -> None:
    parser.description += (
        " Without --list it trains and measures the runs that have no record yet, for hours; an interrupted "
        "one goes on where it was. ablation: D-PoSE with and without depth, and other heads on the same "
        "encoder, several seeds each. encoder: with and without depth, the backbone trained, too (both: the "
        "book's page on depth)."
    )
    add = parser.add_argument
    add("name", choices=["ablation", "encoder"], help="which experiment")
    add("--list", action="store_true", help="print the runs and their errors, and do nothing")
    add("--variants", nargs="+", metavar="VARIANT", help="only these (default: all)")
    add("--seeds", type=int, metavar="N", help="seeds of each variant (default: the experiment's)")
    add("--images", type=int, metavar="N", help="training images of a run; with --out and --runs")
    add("--out", metavar="FOLDER", help="for the records (default: results/NAME)")
    add("--runs", metavar="FOLDER", help="for the training runs (default: runs/NAME)")
    add("--split", default="test", help="on which the networks are measured; with --out (default: test)")
    add("--jobs", type=int, metavar="N", help="runs at the same time (default: one per core; on a GPU one)")
    add("--accelerator", default="auto", help="cpu or cuda")
    _add_shared(parser, "--data")
    parser.set_defaults(run=_experiment)


SMPLX_RECIPE = """\
person-1.npz has the SMPL-X parameters with the names and shapes of the smplx package. In Python,

  p = np.load("prediction/photo/person-1.npz")
  options = {"use_pca": False, "flat_hand_mean": True, "num_betas": int(p["num_betas"])}
  names = ("betas", "global_orient", "body_pose", "transl")
  mesh = smplx.create(FOLDER, "smplx", **options)(**{k: torch.from_numpy(p[k]) for k in names})

makes the mesh in the camera frame: x right, y down, z forward, metres (in scene.glb it is turned by 180
degrees about x). FOLDER contains smplx/SMPLX_NEUTRAL.npz; for the shipped network take dpose/assets."""


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.description += (
        " The direction follows from IN. A .ckpt, the authors' or one of the same layout, becomes a "
        ".safetensors: the network without body models and optimizer, and without pickles. (The other "
        "commands read the .ckpt as well.) A .safetensors of the preset 'paper' becomes a .ckpt that the "
        "authors' code loads with strict=False, because the body models are missing; that code cannot "
        "build other presets. float32 weights are kept bit for bit, others become float32. If OUT ends "
        "in .onnx, a checkpoint of any kind becomes a graph for other programs, whose metadata describe its "
        "inputs and outputs. The batch size is free. This needs the packages onnx and onnxscript."
    )
    parser.add_argument("source", metavar="IN", help="checkpoint: .ckpt, .safetensors or a shipped name")
    parser.add_argument(
        "target",
        metavar="OUT",
        help="file to write: .onnx; else .safetensors from a .ckpt, and .ckpt from ours",
    )
    parser.set_defaults(run=_convert)


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--body-models", metavar="FOLDER", help="licensed body files (default: $DPOSE_BODY_MODELS)"
    )
    _add_shared(parser, "--data")
    parser.set_defaults(run=_doctor)


def _add_install_neural_renderer(parser: argparse.ArgumentParser) -> None:
    parser.description += (
        " Downloads the source of neural-renderer-pytorch 1.1.3 from PyPI, replaces names that torch has "
        "changed since, and installs the result into the environment of dpose. Needs a CUDA device, torch "
        "with CUDA, and the compiler of the CUDA toolkit."
    )
    parser.set_defaults(run=_install_neural_renderer)


def _train(args: argparse.Namespace) -> None:
    from dpose.training import TrainConfig, on_cuda, train
    from dpose.training.environment import first_process

    options = {name: value for name, value in vars(args).items() if name not in ("run", "debug")}
    if "resume" not in options and not on_cuda(options.get("accelerator", "auto")):
        options.setdefault("devices", "auto")
    result = train(TrainConfig(**options))
    if not first_process():
        return  # one process of several prints
    best = f"best        {result.best}\n" if result.best else ""
    print(
        f"{result.steps} steps, {result.images_per_second:.0f} images/s, loss {result.losses['total']:.4g}\n"
        f"checkpoint  {result.checkpoint}\n{best}log         {result.log}\n"
        f"resume with --resume {result.resume}"
    )


def _evaluate(args: argparse.Namespace) -> None:
    options = {name: value for name, value in vars(args).items() if name not in ("run", "debug")}
    annotations = options.pop("keypoints", None)
    others = KEYPOINT_OPTIONS if annotations is None else SPLIT_OPTIONS
    if wrong := sorted(options.keys() & others):
        kind = "can only be given with" if annotations is None else "cannot be given with"
        raise ValueError(f"--{wrong[0].replace('_', '-')} {kind} --keypoints")
    if annotations is None:
        from dpose.evaluate import evaluate, format_table

        result = evaluate(**options)
    else:
        from dpose.keypoints import evaluate_keypoints, format_table

        if "images" not in options:
            raise ValueError("--keypoints needs --images, the folder of the images")
        result = evaluate_keypoints(annotations, **options)
    print(format_table(result))
    if "out" in options:
        print(f"written to {args.out}")


def _experiment(args: argparse.Namespace) -> None:
    from dpose.experiment import perform, runs, table

    for name in ("seeds", "images", "jobs"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(args, name)}")
    todo = runs(args.name, args.out, args.runs, args.variants, args.seeds)
    if not args.list:
        # such runs must not count as the experiment's
        if args.images is not None and None in (args.out, args.runs):
            raise ValueError("--images needs folders of its own: name them with --out and --runs")
        if args.split != "test" and args.out is None:
            raise ValueError("--split needs a folder of its own for the records: name it with --out")
        options = {name: getattr(args, name) for name in ("images", "split", "jobs", "accelerator")}
        perform(args.name, todo, args.data, **options, done=lambda run: print(f"written to {run.record}"))
    print(table(todo))


def _predict(args: argparse.Namespace) -> int:
    from dpose.album import predict_files
    from dpose.detect import NanoDetector, OnnxDetector
    from dpose.film import run_camera
    from dpose.model.inference import usable_device
    from dpose.predictor import Predictor
    from dpose.track import Smoother

    if (args.camera is None) == (not args.inputs):
        raise ValueError("name photographs, folders or films, or a --camera")
    if args.stream != (args.camera is not None):
        raise ValueError("--camera and --stream belong together")
    cam_int = args.cam_int
    if cam_int is not None:
        fx, fy, cx, cy = cam_int
        cam_int = [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]
    device = usable_device(args.device)
    detector = None
    if args.box is None and args.detector == "nanodet":
        detector = NanoDetector(device, args.min_score)
    elif args.box is None:
        detector = OnnxDetector(args.detector, min_score=args.min_score)
    predictor = Predictor(args.checkpoint, detector, device, body=args.body)
    if args.camera is not None:
        camera = int(args.camera) if args.camera.isdigit() else args.camera
        smoother = Smoother(predictor.body) if args.smooth else None
        run_camera(predictor, camera, sys.stdout, smoother=smoother, focal=args.focal, cam_int=cam_int)
        return 0
    summary = predict_files(
        predictor,
        args.inputs,
        args.out,
        boxes=args.box,
        focal=args.focal,
        cam_int=cam_int,
        save=args.save.split(","),
        overwrite=args.overwrite,
        smooth=args.smooth,
        progress=args.progress,
    )
    print(summary)
    if summary.written:
        print(f"written to {summary.written[0] if len(summary.written) == 1 else args.out}")
    names = {"given": "as given", "EXIF": "of the EXIF data", "diagonal": "unknown; image diagonal used"}
    for source, count in summary.focal_from.items():
        print(f"focal length {names[source]}: {count} of {len(summary.written)}; distances are in proportion")
    if summary.failed:
        return 4
    return 0 if summary.written or summary.present else 3


def _app(args: argparse.Namespace) -> None:
    from dpose.app import serve

    serve(args.checkpoint, args.port, args.device, args.body)


def _convert(args: argparse.Namespace) -> None:
    from pathlib import Path

    from dpose.io import file_hash
    from dpose.model import checkpoint, released
    from dpose.model.network import parameter_table
    from dpose.model.onnx_file import export_onnx

    source, target = checkpoint.resolve(args.source), Path(args.target)
    to_ours = released.is_torch_file(source)
    suffix = ".safetensors" if to_ours else ".ckpt"
    if target.suffix not in (suffix, ".onnx"):
        raise ValueError(f"{args.source} becomes a {suffix} or .onnx file, but {target} has another suffix")
    if target.exists():
        raise FileExistsError(f"{target} exists; remove it or name another file")
    if target.suffix == ".onnx":
        print(f"written to {export_onnx(source, target)}")
        return
    model, metadata = checkpoint.read(source)
    origin = {"checkpoint": source.name, "sha256": file_hash(source)}
    write = checkpoint.save if to_ours else checkpoint.save_released
    write(model, target, metadata | {"converted_from": origin})
    total = parameter_table(model)[-1]
    print(f"{total.parameters:,} parameters and {total.buffers:,} buffers written to {target}")


def _doctor(args: argparse.Namespace) -> None:
    from dpose.tools.doctor import report

    print(report(args.body_models, args.data))


def _install_neural_renderer(args: argparse.Namespace) -> None:
    from dpose.tools.install_neural_renderer import install

    install()


def _numbers(text: str) -> tuple[float, ...]:
    """Four numbers, separated by commas."""
    try:
        first, second, third, fourth = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected four numbers a,b,c,d, got {text!r}") from None
    return first, second, third, fourth


def _devices(text: str) -> int | str:
    if text == "auto" or (text.isdigit() and int(text) > 0):
        return text if text == "auto" else int(text)
    raise argparse.ArgumentTypeError(f"expected a number of devices or 'auto', got {text!r}")


def _one_line(error: BaseException) -> str:
    """The message without line breaks; of an error from a loader process only the original message."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, MemoryError):
        return f"out of memory: {lines[0]}"
    if "Original Traceback" in str(error):
        return re.sub(r"^[\w.]*[A-Z]\w*: ", "", lines[-1])  # without the exception's name
    return " ".join(lines)


COMMANDS = {  # name: what it does, and the function that adds its arguments
    "synth": ("make the open data set: people rendered from an open body model", _add_synth),
    "prepare": ("convert the files of a data set, for instance BEDLAM, to shards for training", _add_prepare),
    "train": ("train a network, or continue an interrupted run", _add_train),
    "evaluate": ("measure a checkpoint on a split, or on 2D keypoints, with baselines", _add_evaluate),
    "experiment": ("train and measure the networks of a comparison that the book shows", _add_experiment),
    "predict": ("predict bodies, depth and parts of the people in photographs", _add_predict),
    "app": ("open a page on this computer that predicts the people of photographs dropped on it", _add_app),
    "convert": ("convert a released checkpoint to one of ours, or back, or a network to ONNX", _add_convert),
    "doctor": ("show what is installed, which files are found, and what missing files are for", _add_doctor),
    "install-neural-renderer": (
        "build the paper's renderer of part labels, on CUDA (optional: Warp renders them too)",
        _add_install_neural_renderer,
    ),
}

if __name__ == "__main__":
    sys.exit(main())
