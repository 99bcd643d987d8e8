"""Ray casting of meshes: face ids, depth, body-part labels and shaded overlays.

NVIDIA Warp casts the rays on CPU and CUDA; no display and no OpenGL are needed. For part labels on CUDA the
paper's renderer is available as an alternative (`dpose.render.neural`). Cameras are pinholes in the OpenCV
frame (x right, y down, z forward). Pixels are continuous: pixel (i, j) has its centre at (j + 0.5, i + 0.5),
so a crop is rendered with its own intrinsics (`dpose.camera.crop_intrinsics`). Part labels supervise the
segmentation decoder (paper section 3.5). Depth from `render_mesh` is not used for training.
"""

import torch

from dpose.render import neural, raycast
from dpose.render.raycast import join_faces, render_mesh
from dpose.render.shading import shade

__all__ = ["join_faces", "render_mesh", "render_parts", "shade"]


def render_parts(
    vertices: torch.Tensor,
    body: torch.nn.Module,
    cam_int: torch.Tensor,
    size: int | tuple[int, int],
    backend: str = "warp",
) -> torch.Tensor:
    """Body-part labels (B, H, W) uint8: 0 is the background, j + 1 the part of joint j (paper section 3.5).

    The label of a pixel is the part of the corner of the hit face with the largest barycentric weight, so
    that borders between parts follow the surface and not the triangulation.

    Args:
        vertices: (B, V, 3) metres, camera frame; or (B, P, V, 3) for P people per picture, who occlude one
            another. What lies behind the camera is not visible.
        body: provides `faces` and `part_of_vertex`.
        cam_int: (B, 3, 3) pixels.
        size: side, or (height, width).
        backend: "warp", or "neural_renderer", the paper's renderer, which needs CUDA and
            `dpose install-neural-renderer`. The labels agree except for pixels on edges and for faces that
            extend behind the camera, which neural_renderer leaves out.

    Raises:
        ValueError: wrong shapes, vertices of another body or not finite, an unknown backend.
        RuntimeError: the backend is not installed.
    """
    if backend not in ("warp", "neural_renderer"):
        raise ValueError(f"unknown backend {backend!r}; choose 'warp' or 'neural_renderer'")
    if vertices.ndim not in (3, 4) or vertices.shape[-1] != 3:
        raise ValueError(f"vertices must be (B, V, 3) or (B, P, V, 3), got {tuple(vertices.shape)}")
    if vertices.shape[-2] != len(body.part_of_vertex):
        raise ValueError(
            f"got {vertices.shape[-2]} vertices per person, but this body has {len(body.part_of_vertex)}; "
            "several people must be (B, P, V, 3)"
        )
    points = vertices if vertices.ndim == 3 else vertices.flatten(1, 2)  # one mesh per picture
    shape = raycast.picture_shape(points, body.faces, cam_int, size)
    label = raycast.label_pixels if backend == "warp" else neural.label_pixels
    return label(points, body.faces, body.part_of_vertex, cam_int, shape)
