"""A shaded mesh over a photograph."""

from collections.abc import Sequence

import numpy as np
import torch

from dpose.render.raycast import check_range, join_faces, picture_shape, trace_pixels

_RAYS_AT_ONCE = 2**20  # a photograph of 12 megapixels would take gigabytes at once
_LARGE = 2**24  # pixels: beyond this edges are not smoothed


def shade(
    vertices: torch.Tensor | np.ndarray,
    faces: torch.Tensor,
    cam_int: torch.Tensor | np.ndarray,
    image: np.ndarray,
    color: tuple[float, float, float] | Sequence[tuple[float, float, float]] = (0.62, 0.76, 0.94),
    opacity: float = 0.92,
    samples: int = 2,
) -> np.ndarray:
    """A shaded mesh over `image`: (H, W, 3) uint8. Pixels outside the mesh keep their values.

    Args:
        vertices: (V, 3) metres, camera frame, or (P, V, 3) for several people, who occlude one another.
        faces: (F, 3).
        cam_int: (3, 3) pixels of `image`.
        image: (H, W, 3) uint8.
        color: linear RGB albedo, of everybody or of each of the P people.
        opacity: of the mesh, 0 to 1.
        samples: rays along each side of a pixel, averaged; 1 where the mesh covers more than 16 megapixels.

    Raises:
        ValueError: wrong shapes, or vertices that are not finite.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be (H, W, 3) uint8, got {image.dtype} {image.shape}")
    points = torch.as_tensor(vertices, dtype=torch.float32)
    faces = faces.to(points.device)
    colors = points.new_tensor(color).expand(len(points) if points.ndim == 3 else 1, 3)
    colors = colors.repeat_interleave(len(faces), 0)  # of each face of each person
    if points.ndim == 3:
        if len(points) == 0:
            return image.copy()
        points, faces = points.flatten(0, 1), join_faces(faces, *points.shape[:2])
    camera = torch.as_tensor(cam_int, dtype=torch.float32, device=points.device)
    picture_shape(points[None], faces, camera[None], image.shape[:2])
    check_range(faces, len(points))
    normals, drawn = vertex_normals(points, faces.long()), image.copy()
    top, bottom, left, right = _window(points, camera, *image.shape[:2])
    if (bottom - top) * (right - left) > _LARGE:
        samples = 1
    rows = max(1, _RAYS_AT_ONCE // (max(1, right - left) * samples**2))
    for start in range(top, bottom, rows) if left < right else ():
        part = drawn[start : min(start + rows, bottom), left:right]
        moved = camera - camera.new_tensor([[0, 0, left], [0, 0, start], [0, 0, 0]])
        part[:] = _shade_part(points, faces, normals, moved, part, colors, opacity, samples)
    return drawn


def vertex_normals(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """Area-weighted unit normals (V, 3) of one mesh: vertices (V, 3), faces (F, 3)."""
    a, b, c = vertices[faces[:, 0]], vertices[faces[:, 1]], vertices[faces[:, 2]]
    face_normal = torch.linalg.cross(b - a, c - a)
    normal = torch.zeros_like(vertices)
    for corner in range(3):
        normal.index_add_(0, faces[:, corner], face_normal)
    return torch.nn.functional.normalize(normal, dim=-1)


def _window(points: torch.Tensor, camera: torch.Tensor, height: int, width: int) -> tuple[int, int, int, int]:
    """Bounding box (top, bottom, left, right) of the points (V, 3) in a picture, in pixels."""
    pixels = points[:, :2] / points[:, 2:] * camera[[0, 1], [0, 1]] + camera[:2, 2]
    if not (points[:, 2].min() > 0 and pixels.isfinite().all()):
        return 0, height, 0, width  # a mesh that extends behind the camera may be visible anywhere
    size = pixels.new_tensor([width, height])
    left, top = (pixels.amin(0) - 1).floor().clamp(min=0).minimum(size).int().tolist()
    right, bottom = (pixels.amax(0) + 1).ceil().clamp(min=0).minimum(size).int().tolist()
    return top, bottom, left, right


def _shade_part(
    points: torch.Tensor,
    faces: torch.Tensor,
    normals: torch.Tensor,
    camera: torch.Tensor,
    image: np.ndarray,
    colors: torch.Tensor,
    opacity: float,
    samples: int,
) -> np.ndarray:
    """`shade` with known vertex normals and colours of faces, in one piece: a hundred bytes per ray."""
    height, width = image.shape[:2]
    finer = camera * camera.new_tensor([[samples], [samples], [1]])
    face, _, bary = trace_pixels(points[None], faces, finer[None], (height * samples, width * samples))
    hit = face[0] >= 0
    first, second = bary[0][hit].unbind(-1)  # (N,), for the rays that hit
    weights = torch.stack([first, second, 1 - first - second], dim=-1)
    normal = (normals[faces[face[0][hit].long()].long()] * weights[..., None]).sum(-2)  # (N, 3)
    normal = torch.nn.functional.normalize(normal, dim=-1)
    # Three lights fixed to the camera: from behind its left side, from the right, from above.
    lights = points.new_tensor([[-0.5, -0.6, -0.7], [0.8, -0.1, -0.5], [0.0, -1.0, 0.1]])
    power = points.new_tensor([0.75, 0.25, 0.2])
    light = (torch.nn.functional.normalize(lights, dim=-1) @ normal.T).clamp(min=0)  # (3, N)
    light = (0.18 + power @ light)[:, None]
    rgb = points.new_zeros(*hit.shape, 3)
    rgb[hit] = (light * colors[face[0][hit].long()]).clamp(0, 1) ** (1 / 2.2)

    def average(x: torch.Tensor) -> torch.Tensor:
        return x.view(height, samples, width, samples, -1).mean((1, 3))

    cover = average(hit[..., None].float())
    rgb = average(rgb) / cover.clamp(min=1e-6)
    cover = cover * opacity
    photo = torch.as_tensor(image.astype(np.float32) / 255, device=points.device)
    out = photo * (1 - cover) + rgb * cover
    return (out * 255).round().clamp(0, 255).byte().cpu().numpy()
