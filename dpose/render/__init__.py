"""Meshes to images by ray casting: face ids, depth, body-part labels and shaded overlays.

One backend, NVIDIA Warp, on CPU and CUDA alike: no display, no OpenGL. (For part labels alone the paper's
renderer can take its place on CUDA.) Cameras are pinholes in the OpenCV frame (x right, y down, z forward)
and pixels are continuous, pixel (i, j) having its centre at (j + 0.5, i + 0.5), so a crop is rendered in its
true perspective by giving its own intrinsics (`dpose.camera.crop_intrinsics`). Part labels supervise the
segmentation decoder (paper section 3.5); depth of the scene is the data set's own, and not made here.
"""

import torch

from dpose.render import neural, raycast
from dpose.render.raycast import join_people, render_mesh, shade

__all__ = ["join_people", "render_mesh", "render_parts", "shade"]


def render_parts(
    vertices: torch.Tensor,
    body: torch.nn.Module,
    cam_int: torch.Tensor,
    size: int | tuple[int, int],
    backend: str = "warp",
) -> torch.Tensor:
    """Body-part labels (B, H, W) uint8: 0 background, j + 1 joint j's part (paper section 3.5).

    vertices: (B, V, 3) metres, camera frame; or (B, P, V, 3), P people in each picture, who hide one another:
    the nearest is seen, and those behind the camera are not. body: gives `faces` and `part_of_vertex`, the
    same for all. cam_int: (B, 3, 3) pixels. size: side, or (height, width).
    A pixel takes the part of the hit triangle's vertex nearest to it in barycentric terms, so that borders
    run along the surface and not along the triangulation. backend: "warp", or "neural_renderer", the paper's,
    which needs CUDA and `dpose install-neural-renderer` and gives the same labels but for pixels on edges and
    for faces that reach behind the camera, which it leaves out.
    Raises ValueError for other shapes and backends and for vertices of another body, RuntimeError for a
    backend that is not there.
    """
    if backend not in ("warp", "neural_renderer"):
        raise ValueError(f"unknown backend {backend!r}; there are 'warp' and 'neural_renderer'")
    render = raycast.render_parts if backend == "warp" else neural.render_parts
    return render(vertices, body, cam_int, size)
