"""An interactive body with sliders, in a page; it needs no kernel, server or network."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from dpose.figures.colours import part_palette
from dpose.figures.page import element

if TYPE_CHECKING:
    from IPython.display import HTML

    from dpose.body import Body


def body_viewer(body: Body, betas: int = 4, poses: Mapping[str, np.ndarray] | None = None) -> HTML:
    """A body with sliders for shape and pose.

    The page contains about 1 MB of the model and computes what `Body` computes (assets/body_viewer.js),
    without pose correctives and with fingers at rest. It compares itself with `Body` and displays the
    distance. A page made from a licensed body must not be published.

    Args:
        body: with all its faces.
        betas: number of sliders, for the first betas.
        poses: rotation vectors (num_rotations, 3) by the names of their buttons.
    """
    from IPython.display import HTML

    from dpose.skeleton import PARENTS, PART_NAMES, SMPL_JOINT_NAMES, SMPL_PARENTS

    count, vertices = body.num_rotations, body.num_vertices
    smpl = count == len(SMPL_JOINT_NAMES)
    model = {name: value.detach().cpu().double() for name, value in body.named_buffers()}
    weights = model["weights"].numpy().T  # (V, joints)
    carried, movers = np.nonzero(weights)
    directions = model["directions"].numpy().reshape(body.num_betas, 3, vertices)[:betas]
    joint_directions = model["joint_directions"].reshape(body.num_betas, 3, -1)[:betas, :, :count]
    template = model["template"]
    return HTML(
        element(
            "dpose-body",
            "body_viewer.js",
            {
                "template": _quantised(template.numpy().T),
                "directions": [_quantised(direction.T) for direction in directions],
                "faces": _base64(model["faces"].numpy(), "<u2" if vertices < 2**16 else "<u4"),
                "parts": _base64(model["part_of_vertex"].numpy(), "u1"),
                "counts": _base64(np.bincount(carried, minlength=vertices), "u1"),
                "movers": _base64(movers, "u1"),
                "weights": _base64((weights[carried, movers] * 65535).round(), "<u2"),
                "joints": model["joint_template"][:, :count].T.tolist(),
                "joint_directions": joint_directions.transpose(1, 2).tolist(),
                "parents": (SMPL_PARENTS if smpl else PARENTS)[:count],
                "names": SMPL_JOINT_NAMES if smpl else PART_NAMES,
                "palette": part_palette()[1:][[*range(22), 20, 21][:count]].tolist(),
                "poses": {name: np.asarray(turns).tolist() for name, turns in (poses or {}).items()},
                "centre": ((template.amin(1) + template.amax(1)) / 2).tolist(),
                "height": 540,
                "check": _check(body, betas),
            },
            library="mesh_view.js",
        )
    )


@torch.no_grad()
def _check(body: Body, betas: int) -> dict:
    """Vertices of a random body, which the page compares with its own."""
    rng = np.random.default_rng(0)
    shape, pose = rng.normal(size=(1, body.num_betas)), 0.5 * rng.normal(size=(1, body.num_rotations, 3))
    shape[:, betas:] = 0
    every = max(1, body.num_vertices // 200)
    like = {"dtype": body.template.dtype, "device": body.template.device}
    posed = body(torch.tensor(shape, **like), torch.tensor(pose, **like), form="axis-angle")
    return {
        "betas": shape[0, :betas].tolist(),
        "pose": pose[0].tolist(),
        "every": every,
        "vertices": _base64(posed.vertices[0, ::every].cpu().numpy(), "<f4"),
        "correctives": body.has_pose_directions,
    }


def _quantised(values: np.ndarray) -> dict[str, float | str]:
    """Numbers as 16-bit multiples of a step, the largest of them 32767."""
    step = max(float(np.abs(values).max()) / 32767, 1e-12)
    return {"step": step, "data": _base64((values / step).round(), "<i2")}


def _base64(values: np.ndarray, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()
