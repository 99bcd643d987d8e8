"""Curves: the losses of a run, and the style of all diagrams."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpose.figures.colours import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_UNITS = {
    "total": "weighted sum",
    "depth_l1": "|error|, depth in [0, 1]",
    "depth_ssim": "1 - SSIM",
    "segm": "nats per pixel",
    "pose": "squared, matrix entry",
    "shape": "squared, betas",
    "joints3d": "m²",
    "vertices": "m",
    "joints2d": "squared, half boxes",
}


def read_log(path: str | Path) -> dict[str, np.ndarray]:
    """The columns of a run's `log.csv`. Raises FileNotFoundError, or ValueError if the file is not a log."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or "step" not in rows[0]:
        raise ValueError(f"{path} is not a training log, or it is empty")
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def loss_curves(path: str | Path) -> Figure:
    """Each loss term of a run's `log.csv` against the step, in a panel and unit of its own."""
    import matplotlib.pyplot as plt

    log = read_log(path)
    names = [name for name in _UNITS if name in log and log[name].any()]
    columns = 3
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(7.5, 2.1 * rows), sharex=True, squeeze=False)
    for name, axis in zip(names, axes.flat, strict=False):
        axis.plot(log["step"], log[name], color="#0072B2" if name != "total" else "#D55E00", linewidth=1.3)
        axis.set_title(name, fontsize=9)
        axis.set_ylabel(_UNITS[name], fontsize=9)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    return _by_step(figure, axes)


def validation_curves(validation: str | Path, log: str | Path) -> Figure:
    """The scores of a run's `val.csv`, and the total loss of its `log.csv` if there is one, by step."""
    from matplotlib.figure import Figure  # without pyplot, which keeps figures and may open windows

    scores = read_log(validation)
    panels = [
        ("joints", "mm", {"MPJPE": "mpjpe", "PA-MPJPE": "pa_mpjpe"}),
        ("parts", "mean IoU", {"parts": "parts_miou"}),
        ("depth", "of the best constant's error", {"depth": "depth_ratio"}),
    ]
    panels = [(*about, {k: v for k, v in lines.items() if v in scores}) for *about, lines in panels]
    figure = Figure(figsize=(7.5, 4.5))
    axes = figure.subplots(2, 2, sharex=True)
    for (title, unit, lines), axis in zip(panels, axes.flat, strict=False):
        for (label, name), colour in zip(lines.items(), ("#0072B2", "#D55E00"), strict=False):
            axis.plot(scores["step"], scores[name], ".-", color=colour, linewidth=1.3, label=label)
        if len(lines) > 1:
            axis.legend(fontsize=9)
        axis.set_title(title, fontsize=9)
        axis.set_ylabel(unit, fontsize=9)
    loss = axes.flat[-1]
    loss.set_title("training loss", fontsize=9)
    loss.set_ylabel(_UNITS["total"], fontsize=9)
    if Path(log).exists():
        rows = read_log(log)
        loss.plot(rows["step"], rows["total"], color="#D55E00", linewidth=1.3)
    return _by_step(figure, axes)


def _by_step(figure: Figure, axes: np.ndarray) -> Figure:
    """Style panels of curves from zero up, with the step below the last row."""
    for axis in axes.flat:
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=9)
        style_axis(axis)
    for axis in axes[-1]:
        axis.set_xlabel("step", fontsize=9)
    figure.tight_layout(pad=0.5)
    return figure


def style_axis(axis: Axes) -> None:
    """Style a diagram for light and dark pages: transparent background, faint grid, text in `INK`."""
    axis.figure.patch.set_alpha(0)
    axis.set_facecolor("none")
    axis.set_axisbelow(True)
    axis.grid(color=INK, alpha=0.25, linewidth=0.5)
    axis.tick_params(colors=INK)
    legend = axis.get_legend()
    for text in (axis.title, axis.xaxis.label, axis.yaxis.label, *(legend.get_texts() if legend else ())):
        text.set_color(INK)
    for spine in axis.spines.values():
        spine.set_color(INK)
    if legend:
        legend.get_frame().set_visible(False)


def label_ends(axis: Axes, lines: Mapping[str, tuple[str, float]], gap: float = 0.075) -> None:
    """Names of curves right of a logarithmic axis, moved apart where they would be nearer than `gap`.

    lines: name -> colour and last value. gap: as a share of the axis's height, whose limits must be final.
    """
    low, high = np.log(axis.get_ylim())
    ends = {name: (np.log(last) - low) / (high - low) for name, (_, last) in lines.items()}
    heights: dict[str, float] = {}
    below = -np.inf
    for name, end in sorted(ends.items(), key=lambda item: item[1]):
        heights[name] = below = max(end, below + gap)
    moved = (sum(heights.values()) - sum(ends.values())) / max(1, len(ends))  # the names stay around the ends
    for name, height in heights.items():
        place = {"va": "center", "transform": axis.transAxes}
        axis.text(1.02, height - moved, name, color=lines[name][0], fontsize=9, **place)
