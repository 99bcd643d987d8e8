"""Interactive plotly figures in pages that need no network, and meshes drawn with them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dpose.figures.colours import MESH_COLOURS
from dpose.figures.page import element

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from IPython.display import HTML

_library_sent = False


def plotly_html(figure: go.Figure, height: int = 460) -> HTML:
    """A plotly figure as HTML for a notebook cell.

    In the book (scripts/build_book.py sets DPOSE_BOOK=1) the output holds the figure only, and the page loads
    `_static/plotly.js` once. Otherwise the first figure of a kernel brings the library of the installed
    plotly package along (4.8 MB).

    Args:
        figure: any plotly figure; background and text take the colours of the page.
        height: pixels; the width is that of the page.
    """
    global _library_sent
    from IPython.display import HTML

    library = ""
    if os.environ.get("DPOSE_BOOK") != "1" and not _library_sent:
        from plotly.offline import get_plotlyjs

        library = f"<script>if (!window.Plotly) {{ {get_plotlyjs()} }}</script>"
        _library_sent = True
    content = json.loads(figure.to_json())
    content["layout"].pop("template", None)
    content["layout"] |= {"autosize": True, "height": height}
    style = f"width:100%;height:{height}px"
    return HTML(library + element("dpose-plotly", "plotly_figure.js", content, style))


CELL = 0.012  # metres, see `decimate`


def mesh_figure(
    meshes: Sequence[np.ndarray], faces: np.ndarray | Sequence[np.ndarray], names: Sequence[str] = ()
) -> go.Figure:
    """Meshes that the reader can turn with the mouse; to be shown with `plotly_html`.

    Vertices are merged and rounded to millimetres, so that a body takes about 100 KB of the page.

    Args:
        meshes: (V, 3) each, metres, camera frame.
        faces: (F, 3) of all meshes, or a list of those of each.
        names: of the meshes, for the legend.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for i, vertices in enumerate(meshes):
        points, triangles = decimate(vertices, faces[i] if isinstance(faces, list) else faces, CELL)
        right, down, forward = np.round(points.T * 1000).astype(np.int16)  # mm
        a, b, c = triangles.T.astype(np.uint16 if len(points) < 2**16 else np.int32)
        figure.add_trace(
            go.Mesh3d(
                x=right,
                y=forward,
                z=-down,  # plotly's z axis points up
                i=a,
                j=b,
                k=c,
                color=MESH_COLOURS[i % len(MESH_COLOURS)],
                name=names[i] if i < len(names) else "",
                showlegend=i < len(names),
                lighting={"ambient": 0.45, "diffuse": 0.7, "specular": 0.15, "roughness": 0.7},
                lightposition={"x": 3000, "y": 3000, "z": -4000},  # relative to the viewer
                hoverinfo="name",
            )
        )
    span = np.ptp(np.concatenate(list(meshes)), axis=0)
    ratio = dict(zip("xzy", 1.3 * span / span.max(), strict=True))  # the camera sees all of it
    camera = {"eye": {"x": 0.0, "y": -1.8, "z": 0.1}, "projection": {"type": "perspective"}}
    axes = {f"{name}axis": {"visible": False} for name in "xyz"}
    figure.update_layout(
        scene={"aspectmode": "manual", "aspectratio": ratio, "camera": camera, **axes},
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        legend={"orientation": "h", "y": 0.02},
    )
    return figure


def decimate(vertices: np.ndarray, faces: np.ndarray, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """Merge the vertices (V, 3) of each cubic cell (side in metres) into their mean; drop collapsed faces."""
    vertices = np.asarray(vertices, np.float64)
    keys = np.floor((vertices - vertices.min(0)) / cell).astype(np.int64)
    _, owner = np.unique(keys, axis=0, return_inverse=True)
    owner = owner.reshape(-1)
    count = np.bincount(owner).astype(np.float64)
    merged = np.stack([np.bincount(owner, vertices[:, axis]) for axis in range(3)], 1) / count[:, None]
    triangles = owner[np.asarray(faces)]
    a, b, c = triangles.T
    return merged, triangles[(a != b) & (b != c) & (c != a)]
