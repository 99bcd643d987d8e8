"""Figures of the notebooks and the book, for readers without a network.

Importing this module imports neither matplotlib nor plotly.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import inspect
import itertools
import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from IPython.display import HTML, Markdown
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from dpose.batch import Batch, Prediction
    from dpose.body import Body

_counter = itertools.count(1)
_library_sent = False

# Draws the figure as soon as the library is there, in the colours of the page's light or dark theme.
_SCRIPT = """
(function () {
  const div = document.getElementById("__ID__");
  const figure = __FIGURE__;
  const root = document.documentElement;
  const ink = () => getComputedStyle(div.parentElement || div).color;
  const layout = () => {
    const grid = "rgba(127,127,127,0.35)";
    const clear = "rgba(0,0,0,0)";
    const out = Object.assign({}, figure.layout, {paper_bgcolor: clear, plot_bgcolor: clear});
    out.colorway = out.colorway || ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"];
    out.font = Object.assign({}, out.font, {color: ink()});
    const axes = Object.keys(out).filter((key) => /^[xy]axis\\d*$/.test(key)).concat(["xaxis", "yaxis"]);
    for (const key of axes) out[key] = Object.assign({gridcolor: grid, zerolinecolor: grid}, out[key]);
    return out;
  };
  const draw = () => window.Plotly.react(div, figure.data, layout(), {responsive: true, displaylogo: false});
  const library = () => {
    if (window.Plotly) return Promise.resolve();
    if (window.dposePlotly) return window.dposePlotly;
    if (root.dataset.content_root === undefined)
      return Promise.reject(new Error("plotly.js is not on this page; run the notebook again from the top"));
    window.dposePlotly = new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = root.dataset.content_root + "_static/plotly.min.js";
      script.onload = resolve;
      script.onerror = () => reject(new Error("cannot load " + script.src));
      document.head.appendChild(script);
    });
    return window.dposePlotly;
  };
  library().then(draw).then(() => {
    div.dataset.drawn = "yes";
    new MutationObserver(draw).observe(root, {attributes: true, attributeFilter: ["data-theme"]});
  }).catch((error) => {
    div.textContent = "This interactive figure could not be drawn: " + error.message + ".";
    console.error(error);
  });
})();
"""


def plotly_html(figure: go.Figure, height: int = 460) -> HTML:
    """An interactive plotly figure as HTML that needs no network: the last expression of a notebook cell.

    In the book (`DPOSE_BOOK=1` in the environment, set by scripts/build_book.py) the output holds the
    figure alone, and the page loads `_static/plotly.min.js` once. Anywhere else the first figure of a
    kernel brings the library of the installed plotly package along (4.8 MB), and the ones after it use
    that.

    Args:
        figure: any plotly figure; its background and text colours are replaced by the page's.
        height: pixels; the width is that of the page.
    """
    global _library_sent
    from IPython.display import HTML

    in_book = os.environ.get("DPOSE_BOOK") == "1"
    library = ""
    if not in_book and not _library_sent:
        from plotly.offline import get_plotlyjs

        library = f"<script>if (!window.Plotly) {{ {get_plotlyjs()} }}</script>"
        _library_sent = True
    content = json.loads(figure.to_json())
    content["layout"].pop("template", None)
    content["layout"]["autosize"] = True
    content["layout"]["height"] = height
    payload = json.dumps(content, separators=(",", ":")).replace("</", "<\\/")
    name = f"dpose-plot-{next(_counter)}-{hashlib.sha256(payload.encode()).hexdigest()[:8]}"
    script = _SCRIPT.replace("__ID__", name).replace("__FIGURE__", payload)
    div = f'<div id="{name}" class="dpose-plotly" style="width:100%;height:{height}px"></div>'
    return HTML(f"{library}{div}<script>{script}</script>")


# --- colours
# ---------------------------------------------------------------------------------------------------------

INK = "#808488"  # text and axes of matplotlib figures: readable on a white page and on a dark one
NOBODY = (34, 36, 40)  # background of part and depth maps
GLOW = np.array([254, 232, 56])  # the bright end of the colour map of depth, cividis


def part_palette() -> np.ndarray:
    """(23, 3) uint8: background, then SMPL-X's 22 body joints.

    No 22 colours stay apart for everybody. So the limbs take Okabe and Ito's colours (left: blue and
    vermilion, right: sky blue and orange; trunk green, head purple), and along a limb the lightness says
    which part it is.
    """
    limbs = {
        (0, 158, 115): (0, 3, 6, 9, 12),  # pelvis, spine, neck
        (204, 121, 167): (15,),  # head
        (0, 114, 178): (13, 16, 18, 20),  # left collar, shoulder, elbow, wrist
        (86, 180, 233): (14, 17, 19, 21),  # the right ones
        (213, 94, 0): (1, 4, 7, 10),  # left hip, knee, ankle, foot
        (240, 190, 40): (2, 5, 8, 11),  # the right ones
    }
    palette = np.zeros((23, 3))
    palette[0] = NOBODY
    for colour, joints in limbs.items():
        for i, joint in enumerate(joints):
            t = 0.0 if len(joints) == 1 else 0.9 * (i / (len(joints) - 1)) - 0.45  # darker to lighter
            end = np.full(3, 255.0 if t > 0 else 0.0)
            palette[joint + 1] = (1 - abs(t)) * np.array(colour) + abs(t) * end
    return palette.round().astype(np.uint8)


def colour_parts(parts: np.ndarray) -> np.ndarray:
    """Part labels 0..22 of any shape (...) -> RGB (..., 3) uint8."""
    return part_palette()[np.asarray(parts)]


def colour_depth(depth: np.ndarray, person: np.ndarray | None = None) -> np.ndarray:
    """Depth in [0, 1] (...) -> RGB (..., 3) uint8, near bright, far dark; not `person`: background."""
    import matplotlib

    depth = np.asarray(depth)
    person = depth > 0 if person is None else np.asarray(person)
    rgb = matplotlib.colormaps["cividis"](1 - np.clip(depth, 0, 1))[..., :3]
    return np.where(person[..., None], (rgb * 255).round().astype(np.uint8), np.uint8(NOBODY))


def colour_values(values: Tensor) -> np.ndarray:
    """Numbers (...) -> RGB (..., 3) uint8, the smallest of them dark blue, the largest yellow."""
    import matplotlib

    values = values.detach().float().cpu().numpy()
    scaled = (values - values.min()) / max(float(np.ptp(values)), 1e-12)
    return (matplotlib.colormaps["cividis"](scaled)[..., :3] * 255).round().astype(np.uint8)


def to_picture(image: Tensor) -> np.ndarray:
    """A network input, (3, S, S) or (B, 3, S, S) normalised, back to RGB (..., S, S, 3) uint8."""
    from dpose.model.inference import IMAGENET_MEAN, IMAGENET_STD

    rgb = np.moveaxis(image.detach().float().cpu().numpy(), -3, -1) * IMAGENET_STD + IMAGENET_MEAN
    return (rgb * 255).round().clip(0, 255).astype(np.uint8)


# --- pictures
# --------------------------------------------------------------------------------------------------------


def overlay(
    picture: np.ndarray, vertices: Tensor, faces: Tensor, cam_int: Tensor, center: Tensor, scale: Tensor
) -> np.ndarray:
    """A mesh (V, 3) in the camera frame over a crop (S, S, 3) uint8 of the box (center, scale): RGB uint8."""
    from dpose.camera import crop_intrinsics
    from dpose.render import shade

    camera = crop_intrinsics(cam_int, center, scale, picture.shape[0])
    return np.asarray(shade(vertices, faces, camera, picture))


def draw_mesh(
    vertices: Tensor, faces: Tensor, cam_int: Tensor, picture: np.ndarray | int, colour: str = "#0072B2"
) -> np.ndarray:
    """A mesh (V, 3) in the camera frame, opaque and in one colour ("#rrggbb"), over a picture: RGB uint8.

    picture: (H, W, 3) uint8, or the side of a square that is empty yet. cam_int: (3, 3) pixels of it.
    """
    from dpose.render import shade

    if isinstance(picture, int):
        picture = np.full((picture, picture, 3), NOBODY, np.uint8)
    red, green, blue = ((int(colour[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5))  # as light, not as code
    return np.asarray(shade(vertices, faces, cam_int, picture, (red, green, blue), opacity=1.0))


def glow(picture: np.ndarray, weights: Tensor) -> np.ndarray:
    """The picture (S, S, 3) uint8, grey and dark, glowing yellow where the weights (s, s) >= 0 are large."""
    from torch.nn import functional as F

    strength = F.interpolate((weights / weights.max())[None, None], picture.shape[:2], mode="bilinear")
    strength = strength[0, 0, ..., None].detach().cpu().numpy()
    dark = 0.5 * (picture @ np.array([0.299, 0.587, 0.114]))[..., None]
    return ((1 - strength) * dark + strength * GLOW).round().astype(np.uint8)


def prediction_pictures(prediction: Prediction, batch: Batch, body: Body, index: int) -> list[np.ndarray]:
    """What a network says about one person of a batch, beside the truth: six pictures of equal size.

    Image, true and predicted parts, true and predicted depth (none without a depth branch), predicted mesh
    over the image. body: with all its faces, on the batch's device.
    """
    from dpose.camera import full_translation

    picture = to_picture(batch["image"][index])
    size = picture.shape[0]
    one = slice(index, index + 1)
    geometry = batch["center"][one], batch["scale"][one]
    translation = full_translation(
        prediction.cam[one], *geometry, batch["img_size"][one], batch["cam_int"][one, 0, 0]
    )
    posed = body(prediction.betas[one], prediction.rotmats[one], translation)
    parts = prediction.parts[index].argmax(0).cpu().numpy()
    depth = np.zeros(parts.shape)
    if prediction.depth is not None:
        depth = prediction.depth[index, 0].float().cpu().numpy()
    maps = (
        colour_parts(batch["parts"][index].cpu().numpy()),
        colour_parts(parts),
        colour_depth(batch["depth"][index, 0].cpu().numpy()),
        colour_depth(depth, parts > 0),
    )
    mesh = overlay(picture, posed.vertices[0], body.faces, batch["cam_int"][index], *(g[0] for g in geometry))
    return [picture, *(_enlarge(m, size) for m in maps), mesh]


PREDICTION_TITLES = ("image", "parts, true", "parts", "depth, true", "depth", "mesh")


def _enlarge(picture: np.ndarray, size: int) -> np.ndarray:
    """(M, M, 3) to (size, size, 3), every pixel repeated."""
    where = np.arange(size) * picture.shape[0] // size
    return picture[where][:, where]


def picture_grid(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str] | Sequence[Sequence[str]] = (),
    labels: Sequence[str] = (),
    side: float = 1.9,
) -> Figure:
    """Pictures (H, W, 3) uint8 in rows and columns; `labels` left of the rows.

    titles: over the columns; or rows of titles, one over every picture.
    """
    import matplotlib.pyplot as plt

    columns = max(len(row) for row in rows)
    lines = [titles] if titles and isinstance(titles[0], str) else titles
    size = (side * columns, side * len(rows) + 0.25 * len(lines))  # inches
    figure, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False)
    _see_through(figure)
    for i, line in enumerate(axes):
        for j, axis in enumerate(line):
            axis.set_xticks([]), axis.set_yticks([])
            axis.set_frame_on(False)
            if j < len(rows[i]):
                axis.imshow(rows[i][j], interpolation="nearest")
            if i < len(lines) and j < len(lines[i]):
                axis.set_title(lines[i][j], color=INK, fontsize=10)
        if i < len(labels):
            line[0].set_ylabel(labels[i], color=INK, fontsize=9)
    figure.tight_layout(pad=0.3)
    return figure


def contact_sheet(pictures: Sequence[np.ndarray], columns: int = 8, gap: int = 2) -> np.ndarray:
    """Equally large pictures (S, S, 3) uint8 side by side as one, in reading order."""
    side = pictures[0].shape[0]
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (side + gap) - gap, columns * (side + gap) - gap, 3), NOBODY, np.uint8)
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        y, x = row * (side + gap), column * (side + gap)
        sheet[y : y + side, x : x + side] = picture
    return sheet


# --- curves
# ----------------------------------------------------------------------------------------------------------


def read_log(path: str | Path) -> dict[str, np.ndarray]:
    """A run's `log.csv` as columns. Raises FileNotFoundError or ValueError if it is none."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or "step" not in rows[0]:
        raise ValueError(f"{path} is no training log, or an empty one")
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def loss_curves(path: str | Path) -> Figure:
    """Every loss term of a run's `log.csv` over the steps, each in its own panel with its own unit."""
    import matplotlib.pyplot as plt

    log = read_log(path)
    units = {
        "total": "weighted sum",
        "depth_l1": "|error|, depth in [0, 1]",
        "depth_ssim": "1 - SSIM",
        "segm": "nats a pixel",
        "pose": "squared, matrix entry",
        "shape": "squared, betas",
        "joints3d": "m²",
        "vertices": "m",
        "joints2d": "squared, half boxes",
    }
    names = [name for name in units if name in log and log[name].any()]
    columns = 3
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(9, 2.1 * rows), sharex=True, squeeze=False)
    _see_through(figure)
    for name, axis in zip(names, axes.flat, strict=False):
        axis.plot(log["step"], log[name], color="#0072B2" if name != "total" else "#D55E00", linewidth=1.3)
        axis.set_title(name, fontsize=9)
        axis.set_ylabel(units[name], fontsize=8)
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=8)
        quiet(axis)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("step", fontsize=8)
    figure.tight_layout(pad=0.5)
    return figure


def quiet(axis: Axes) -> None:
    """Axes of a diagram in the colours of the page, light or dark: no ground, a faint grid, grey ink."""
    _see_through(axis.figure)
    axis.set_facecolor("none")
    axis.set_axisbelow(True)
    axis.grid(color=INK, alpha=0.25, linewidth=0.5)
    axis.tick_params(colors=INK)
    for text in (axis.title, axis.xaxis.label, axis.yaxis.label):
        text.set_color(INK)
    for spine in axis.spines.values():
        spine.set_color(INK)
    if axis.get_legend() is not None:
        axis.get_legend().get_frame().set_visible(False)
        for text in axis.get_legend().get_texts():
            text.set_color(INK)


def _see_through(figure: Figure) -> None:
    """Let the page's own background show, light or dark."""
    figure.patch.set_alpha(0)


# --- meshes
# ----------------------------------------------------------------------------------------------------------


def mesh_figure(
    meshes: Sequence[np.ndarray], faces: np.ndarray, names: Sequence[str] = (), cell: float = 0.012
) -> go.Figure:
    """Meshes (V, 3) in the camera frame, metres, side by side to be turned with the mouse; show by
    `plotly_html`.

    Vertices within cells of `cell` metres are merged and coordinates rounded to millimetres, which brings a
    body to about 150 KB of page.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for i, vertices in enumerate(meshes):
        points, triangles = decimate(vertices, faces, cell)
        x, y, z = (points * [1, -1, -1]).T  # plotly's z points up: camera x, z, y become x, y, z
        mm = lambda value: np.round(value * 1000).astype(np.int16)  # noqa: E731
        a, b, c = triangles.T.astype(np.int32)
        figure.add_trace(
            go.Mesh3d(
                x=mm(x), y=mm(-z), z=mm(y), i=a, j=b, k=c,
                color=MESH_COLOURS[i % len(MESH_COLOURS)],
                name=names[i] if i < len(names) else "",
                showlegend=i < len(names),
                lighting={"ambient": 0.45, "diffuse": 0.7, "specular": 0.15, "roughness": 0.7},
                lightposition={"x": 3000, "y": 3000, "z": -4000},  # in the viewer's frame: he holds the lamp
                hoverinfo="name",
            )
        )  # fmt: skip
    hidden = {"visible": False}
    figure.update_layout(
        scene={
            "aspectmode": "data",
            "xaxis": hidden,
            "yaxis": hidden,
            "zaxis": hidden,
            "camera": {"eye": {"x": 0.0, "y": -1.8, "z": 0.1}, "projection": {"type": "perspective"}},
        },
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        legend={"orientation": "h", "y": 0.02},
    )
    return figure


MESH_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")


def decimate(vertices: np.ndarray, faces: np.ndarray, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """Merge the vertices (V, 3) of each cubic cell (side in metres) into their mean; flat faces go."""
    vertices = np.asarray(vertices, np.float64)
    keys = np.floor((vertices - vertices.min(0)) / cell).astype(np.int64)
    _, owner = np.unique(keys, axis=0, return_inverse=True)
    owner = owner.reshape(-1)
    count = np.bincount(owner).astype(np.float64)
    merged = np.stack([np.bincount(owner, vertices[:, axis]) for axis in range(3)], 1) / count[:, None]
    triangles = owner[np.asarray(faces)]
    a, b, c = triangles.T
    return merged, triangles[(a != b) & (b != c) & (c != a)]


# --- a body to play with
# ---------------------------------------------------------------------------------------------------------


def body_viewer(
    body: Body, betas: int = 4, poses: Mapping[str, np.ndarray] | None = None, height: int = 540
) -> HTML:
    """A body that the reader shapes and poses in the page, without a kernel, a server or a network.

    The page gets the model itself, about 1 MB of it, and computes what `Body` computes
    (dpose/assets/body_viewer.js), with two exceptions: pose correctives are left out, and fingers rest. It
    measures its distance from `Body` and says it. Who makes a page of a licensed body may not publish it.

    Args:
        body: with all its faces.
        betas: how many of the first betas get a slider.
        poses: rotation vectors (num_rotations, 3) to choose from, by the names of their buttons.
        height: of the picture, pixels.
    """
    import torch
    from IPython.display import HTML

    from dpose.body import PARENTS, PART_NAMES, SMPL_JOINT_NAMES, SMPL_PARENTS

    count, vertices = body.num_rotations, body.num_vertices
    smpl = count == len(SMPL_JOINT_NAMES)
    host = {name: value.detach().cpu().double() for name, value in body.named_buffers()}
    weights = host["weights"].numpy().T  # (V, joints)
    carried, movers = np.nonzero(weights)
    directions = host["directions"].numpy().reshape(body.num_betas, 3, vertices)[:betas]
    joint_directions = host["joint_directions"].reshape(body.num_betas, 3, -1)[:betas, :, :count]

    every = max(1, vertices // 200)  # vertices compared in the page
    rng = np.random.default_rng(0)
    shape, pose = rng.normal(size=(1, body.num_betas)), 0.5 * rng.normal(size=(1, count, 3))
    shape[:, betas:] = 0
    like = {"dtype": body.template.dtype, "device": body.template.device}
    with torch.no_grad():
        truth = body(torch.tensor(shape, **like), torch.tensor(pose, **like), form="axis-angle").vertices[0]
    model = {
        "template": _steps(host["template"].numpy().T),
        "directions": [_steps(direction.T) for direction in directions],
        "faces": _base64(host["faces"].numpy(), "<u4"),
        "parts": _base64(host["part_of_vertex"].numpy(), "u1"),
        "counts": _base64(np.bincount(carried, minlength=vertices), "u1"),
        "movers": _base64(movers, "u1"),
        "weights": _base64((weights[carried, movers] * 65535).round(), "<u2"),
        "joints": host["joint_template"][:, :count].T.tolist(),
        "joint_directions": joint_directions.transpose(1, 2).tolist(),
        "parents": (SMPL_PARENTS if smpl else PARENTS)[:count],
        "names": SMPL_JOINT_NAMES if smpl else PART_NAMES,
        "palette": part_palette()[1:][[*range(22), 20, 21][:count]].tolist(),
        "poses": {name: np.asarray(turns).tolist() for name, turns in (poses or {}).items()},
        "centre": ((host["template"].amin(1) + host["template"].amax(1)) / 2).tolist(),
        "height": height,
        "check": {
            "betas": shape[0, :betas].tolist(),
            "pose": pose[0].tolist(),
            "every": every,
            "vertices": _base64(truth[::every].cpu().numpy(), "<f4"),
            "correctives": body.has_pose_directions,
        },
    }
    payload = json.dumps(model, separators=(",", ":")).replace("</", "<\\/")
    script = (Path(__file__).parents[1] / "assets" / "body_viewer.js").read_text(encoding="utf-8")
    name = f"dpose-body-{next(_counter)}-{hashlib.sha256(payload.encode()).hexdigest()[:8]}"
    call = f'(\n{script})(document.getElementById("{name}"), {payload});'
    return HTML(f'<div id="{name}" class="dpose-body"></div><script>{call}</script>')


def _steps(values: np.ndarray) -> dict[str, float | str]:
    """Numbers as 16-bit multiples of a step, the largest of them 32767."""
    step = max(float(np.abs(values).max()) / 32767, 1e-12)
    return {"step": step, "data": _base64((values / step).round(), "<i2")}


def _base64(values: np.ndarray, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()


# --- tables
# ----------------------------------------------------------------------------------------------------------


def html_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str = "",
    ours: Sequence[int] = (),
    align: str = "l",
) -> HTML:
    """A table for a notebook cell and the book.

    Args:
        ours: indices of the rows to set in bold.
        align: one "l" or "r" a column; columns beyond its end are numbers, to the right.
    """
    from html import escape

    from IPython.display import HTML

    kinds = [*align, *"r" * (len(header) - len(align))]

    def line(cells: Sequence[str], tag: str, style: str = "") -> str:
        texts = (escape(str(cell), quote=False) for cell in cells)
        inner = "".join(f'<{tag} class="{k}">{text}</{tag}>' for k, text in zip(kinds, texts, strict=True))
        return f"<tr{style}>{inner}</tr>"

    body = "".join(line(row, "td", ' class="ours"' if i in ours else "") for i, row in enumerate(rows))
    title = f"<caption>{escape(caption, quote=False)}</caption>" if caption else ""
    return HTML(
        f'<table class="dpose">{title}<thead>{line(header, "th")}</thead><tbody>{body}</tbody></table>'
    )


# --- code
# ------------------------------------------------------------------------------------------------------------


def show_source(*things: object) -> Markdown:
    """The code of functions, methods or classes as it runs here: highlighted, and folded away by a click.

    Raises TypeError for what has no Python source.
    """
    from IPython.display import Markdown

    blocks = []
    for thing in things:
        code = textwrap.dedent(inspect.getsource(thing)).rstrip()
        title = f"<code>{thing.__qualname__}</code> in <code>{thing.__module__}</code>"
        summary = f'<details class="dpose" open><summary>{title}</summary>'
        blocks.append(f"{summary}\n\n````python\n{code}\n````\n\n</details>")
    return Markdown("\n\n".join(blocks))
