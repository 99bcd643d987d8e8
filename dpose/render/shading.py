"""A shaded mesh over a photograph.

The faces are drawn, not found by rays (`dpose.render.raycast`), which takes a fraction of the time where a
body covers many pixels. Two Warp kernels do it on the CPU: `_draw` notes the nearest face of each sample,
`_shade` lights it.
"""

import threading
from collections.abc import Sequence

import numpy as np
import torch
import warp as wp

from dpose.render.raycast import REACH, check_range, join_faces, picture_shape

_SAMPLES_AT_ONCE = 2**20  # a photograph of 12 megapixels would take gigabytes at once
_LARGE = 2**24  # pixels: beyond this edges are not smoothed
_GAMMA = 1 / 2.2
_lock = threading.Lock()  # the first launch loads the kernels
# Directions towards three lights fixed to the camera (behind its left side, at the right, above), and powers.
_LIGHTS = ((-0.5, -0.6, -0.7), (0.8, -0.1, -0.5), (0.0, -1.0, 0.1))
_POWERS, _AMBIENT = (0.75, 0.25, 0.2), 0.18


@wp.func
def _on_rays(p0: wp.vec3, p1: wp.vec3, p2: wp.vec3) -> wp.mat33:
    """The plane of a face: times a ray (x, y, 1), 1 / z there, and the weights of p0 and p1 there, over z."""
    e0 = p0 - p2
    e1 = p1 - p2
    normal = wp.cross(e0, e1)
    volume = wp.dot(p2, normal)
    if wp.abs(volume) < 1.0e-20:  # seen from the side
        return wp.mat33(0.0)
    return wp.matrix_from_rows(normal, wp.cross(e1, p2), wp.cross(p2, e0)) / volume


@wp.func
def _ray(camera: wp.vec4, row: int, column: int) -> wp.vec3:
    """Through the centre of a sample; camera: fx, fy, cx, cy in samples."""
    x = (float(column) + 0.5 - camera[2]) / camera[0]
    return wp.vec3(x, (float(row) + 0.5 - camera[3]) / camera[1], 1.0)


@wp.kernel(enable_backward=False)
def _draw(
    points: wp.array(dtype=wp.vec3),
    faces: wp.array2d(dtype=wp.int32),
    camera: wp.vec4,
    keys: wp.array2d(dtype=wp.uint64),
):
    """Draw a face: raise its samples' keys, which are the bits of 1 / z and of the face's number + 1."""
    f = wp.tid()
    p0 = points[faces[f, 0]]
    p1 = points[faces[f, 1]]
    p2 = points[faces[f, 2]]
    low = wp.vec2(0.0, 0.0)
    high = wp.vec2(float(keys.shape[1] - 1), float(keys.shape[0] - 1))
    if wp.min(wp.min(p0[2], p1[2]), p2[2]) > 1.0e-3:
        size = wp.vec2(camera[0], camera[1])
        centre = wp.vec2(camera[2] - 0.5, camera[3] - 0.5)
        a = wp.cw_mul(wp.vec2(p0[0], p0[1]) / p0[2], size) + centre
        b = wp.cw_mul(wp.vec2(p1[0], p1[1]) / p1[2], size) + centre
        c = wp.cw_mul(wp.vec2(p2[0], p2[1]) / p2[2], size) + centre
        low = wp.max(low, wp.min(wp.min(a, b), c))
        high = wp.min(high, wp.max(wp.max(a, b), c))
    elif wp.max(wp.max(p0[2], p1[2]), p2[2]) <= 0.0:
        return
    plane = _on_rays(p0, p1, p2)
    for row in range(int(wp.ceil(low[1])), int(wp.floor(high[1])) + 1):
        for column in range(int(wp.ceil(low[0])), int(wp.floor(high[0])) + 1):
            at = plane * _ray(camera, row, column)
            margin = 1.0e-4 * at[0]  # no gap between neighbours
            if at[0] > 0.0 and wp.min(wp.min(at[1], at[2]), at[0] - at[1] - at[2]) >= -margin:
                key = (wp.uint64(wp.cast(at[0], wp.uint32)) << wp.uint64(32)) | wp.uint64(f + 1)
                wp.atomic_max(keys, row, column, key)


@wp.kernel(enable_backward=False)
def _shade(
    points: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    faces: wp.array2d(dtype=wp.int32),
    colors: wp.array(dtype=wp.vec3),
    camera: wp.vec4,
    keys: wp.array2d(dtype=wp.uint64),
    samples: int,
    opacity: float,
    lights: wp.mat33,
    powers: wp.vec3,
    ambient: float,
    gamma: float,
    image: wp.array3d(dtype=wp.uint8),
):
    """Lay the faces of a pixel's samples over it. colors: of each person, after the gamma correction."""
    i, j = wp.tid()
    color = wp.vec3(0.0)
    hits = float(0.0)  # noqa: UP018 (this declares a variable)
    for sample in range(samples * samples):
        row = i * samples + sample // samples
        column = j * samples + sample % samples
        key = keys[row, column]
        if key > wp.uint64(0):
            f = int(key & wp.uint64(0xFFFFFFFF)) - 1
            a = faces[f, 0]
            b = faces[f, 1]
            c = faces[f, 2]
            at = _on_rays(points[a], points[b], points[c]) * _ray(camera, row, column)
            normal = at[1] * normals[a] + at[2] * normals[b] + (at[0] - at[1] - at[2]) * normals[c]
            shares = wp.max(lights * wp.normalize(normal), wp.vec3(0.0))
            light = wp.pow(ambient + wp.dot(powers, shares), gamma)
            color += wp.min(light * colors[f // (faces.shape[0] // colors.shape[0])], wp.vec3(1.0))
            hits += 1.0
    if hits > 0.0:
        share = opacity * hits / float(samples * samples)
        for k in range(3):
            value = float(image[i, j, k]) * (1.0 - share) + 255.0 * color[k] / hits * share
            image[i, j, k] = wp.uint8(value + 0.5)


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

    Both sides of a face are visible; everything in front of the pinhole is drawn. Computed on the CPU.

    Args:
        vertices: (V, 3) metres, camera frame, or (P, V, 3) for several people, who occlude one another.
        faces: (F, 3).
        cam_int: (3, 3) pixels of `image`.
        image: (H, W, 3) uint8.
        color: linear RGB albedo, of everybody or of each of the P people.
        opacity: of the mesh, 0 to 1.
        samples: along each side of a pixel, averaged; 1 where the mesh covers more than 16 megapixels.

    Raises:
        ValueError: wrong shapes, or vertices that are not finite.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be (H, W, 3) uint8, got {image.dtype} {image.shape}")
    points = torch.as_tensor(vertices, dtype=torch.float32).detach().cpu()
    faces = faces.cpu()
    colors = torch.tensor(color, dtype=torch.float32).expand(len(points) if points.ndim == 3 else 1, 3)
    if points.ndim == 3:
        if len(points) == 0:
            return image.copy()
        points, faces = points.flatten(0, 1), join_faces(faces, *points.shape[:2])
    camera = torch.as_tensor(cam_int, dtype=torch.float32).cpu()
    picture_shape(points[None], faces, camera[None], image.shape[:2])
    check_range(faces, len(points))
    if not points.abs().max() <= REACH:
        raise ValueError(f"vertices must be finite and at most {REACH:g} m from the camera")
    top, bottom, left, right = _window(points, camera, *image.shape[:2])
    if (bottom - top) * (right - left) > _LARGE:
        samples = 1
    mesh = (
        wp.from_torch(points.contiguous(), dtype=wp.vec3),
        wp.from_torch(vertex_normals(points, faces.long()), dtype=wp.vec3),
        wp.from_torch(faces.to(torch.int32).contiguous()),
        wp.from_torch((colors**_GAMMA).contiguous(), dtype=wp.vec3),
    )
    drawn = image.copy()
    rows = max(1, _SAMPLES_AT_ONCE // (max(1, right - left) * samples**2))
    for start in range(top, bottom, rows) if left < right else ():
        part = drawn[start : min(start + rows, bottom), left:right]
        moved = camera - camera.new_tensor([[0, 0, left], [0, 0, start], [0, 0, 0]])
        part[:] = _shade_part(mesh, moved * samples, part, opacity, samples)
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
    mesh: Sequence[wp.array], cam_int: torch.Tensor, image: np.ndarray, opacity: float, samples: int
) -> np.ndarray:
    """`shade` of a piece. mesh: points, normals, faces, colours. cam_int: in samples."""
    points, normals, faces, colors = mesh
    height, width = image.shape[:2]
    camera = wp.vec4(*cam_int[[0, 1, 0, 1], [0, 1, 2, 2]].tolist())
    keys = wp.zeros((height * samples, width * samples), dtype=wp.uint64, device="cpu")
    out = torch.from_numpy(np.ascontiguousarray(image))
    lights = torch.nn.functional.normalize(torch.tensor(_LIGHTS), dim=-1).numpy()
    light = [wp.mat33(lights), wp.vec3(*_POWERS), _AMBIENT, _GAMMA]
    inputs = [points, normals, faces, colors, camera, keys, samples, opacity, *light]
    with _lock:
        wp.launch(_draw, faces.shape[0], [points, faces, camera, keys], device="cpu")
        wp.launch(_shade, (height, width), inputs, [wp.from_torch(out)], device="cpu")
    return out.numpy()
