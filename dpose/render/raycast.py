"""Rays against triangle meshes with Warp: the first hit of each pixel, for a batch of cameras.

The bounding-volume tree of a mesh is built once per set of faces and refitted to new vertices. All bodies
share their faces, so part labels of a training set are cheap. On a CPU each torch thread has its own tree
and processes its share of the bodies; on CUDA each body has a tree and one launch renders them all.

There is no near plane: everything in front of the pinhole is visible, including the front part of a face
that extends behind it.
"""

import contextlib
import ctypes
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from typing import Any

import numpy as np
import torch
import warp as wp

from dpose.io import no_native_messages

REACH = 1.0e6  # metres: length of a ray
_KEPT = 4  # sets of faces whose trees are kept


def _init_warp() -> None:
    """`wp.init()` without its banner, and without its C++ code's warning that there is no CUDA driver."""
    wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)
    quiet: contextlib.AbstractContextManager = contextlib.nullcontext()
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        quiet = no_native_messages()
    with quiet:
        wp.init()


_init_warp()


@wp.func
def _ray(camera: wp.vec4, row: int, column: int) -> wp.vec3:
    """Direction through the centre of a pixel; camera: fx, fy, cx, cy."""
    x = (float(column) + 0.5 - camera[2]) / camera[0]
    y = (float(row) + 0.5 - camera[3]) / camera[1]
    return wp.normalize(wp.vec3(x, y, 1.0))


@wp.kernel(enable_backward=False)
def _trace(
    meshes: wp.array(dtype=wp.uint64),
    cameras: wp.array(dtype=wp.vec4),
    face: wp.array3d(dtype=wp.int32),
    depth: wp.array3d(dtype=wp.float32),
):
    b, i, j = wp.tid()
    ray = _ray(cameras[b], i, j)
    hit = wp.mesh_query_ray(meshes[b], wp.vec3(0.0, 0.0, 0.0), ray, 1.0e6)
    if hit.result:
        face[b, i, j] = hit.face
        depth[b, i, j] = hit.t * ray[2]
    else:
        face[b, i, j] = -1
        depth[b, i, j] = 0.0


@wp.kernel(enable_backward=False)
def _label(
    meshes: wp.array(dtype=wp.uint64),
    cameras: wp.array(dtype=wp.vec4),
    part_of_vertex: wp.array(dtype=wp.int32),
    label: wp.array3d(dtype=wp.uint8),
):
    b, i, j = wp.tid()
    ray = _ray(cameras[b], i, j)
    hit = wp.mesh_query_ray(meshes[b], wp.vec3(0.0, 0.0, 0.0), ray, 1.0e6)
    found = wp.int32(0)
    if hit.result:
        # u and v are the weights of the first and second corner.
        rest = 1.0 - (hit.u + hit.v)
        corner = wp.int32(0)
        if hit.v > hit.u:
            corner = 1
        if rest > wp.max(hit.u, hit.v):
            corner = 2
        found = part_of_vertex[wp.mesh_get_index(meshes[b], 3 * hit.face + corner)] + 1
    label[b, i, j] = wp.uint8(found)


_lock = threading.Lock()  # two callers at once would refit each other's trees
_kept: list[tuple[tuple, np.ndarray, list[wp.Mesh]]] = []  # key, faces, meshes; the last used one is last


def _meshes(
    points: torch.Tensor, faces: torch.Tensor, people: int, count: int, stream: torch.cuda.Stream | None
) -> list[wp.Mesh]:
    """At least `count` meshes with these faces; their trees hold vertices of some earlier call.

    points: (B, people * V, 3), the vertices of new trees. Kernels of different CUDA streams may run at the
    same time, so each stream has its own trees.
    """
    vertices = points.shape[1] // people
    key, table = (points.device, stream and stream.cuda_stream, people, vertices), faces.cpu().numpy()
    for index, (other_key, other_table, _) in enumerate(_kept):
        if key == other_key and np.array_equal(table, other_table):
            _kept.append(_kept.pop(index))
            break
    else:
        check_range(faces, vertices)
        _kept.append((key, table.copy(), []))
        if len(_kept) > _KEPT:
            (device, *_), _, old = _kept.pop(0)
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # a kernel may still read the trees
            old.clear()
    meshes = _kept[-1][2]
    while len(meshes) < count:
        indices = join_faces(faces.to(points.device, torch.int32), people, vertices).flatten()
        first = points[len(meshes)].clone()
        meshes.append(wp.Mesh(points=wp.from_torch(first, dtype=wp.vec3), indices=wp.from_torch(indices)))
    return meshes


def _cast(
    kernel: wp.Kernel,
    vertices: torch.Tensor,
    faces: torch.Tensor,
    cam_int: torch.Tensor,
    inputs: list[wp.array],
    outputs: list[wp.array],
    people: int = 1,
) -> None:
    """Launch `kernel(meshes, cameras, *inputs, *outputs)` for each pixel of the outputs (B, H, W).

    vertices: (B, people * V, 3). faces: (F, 3), of one person. cam_int: (B, 3, 3).
    """
    batch, height, width = outputs[0].shape
    if batch == 0 or people == 0:
        return
    device = vertices.device
    points = vertices.detach().float().contiguous()
    cameras = torch.stack([cam_int[:, 0, 0], cam_int[:, 1, 1], cam_int[:, 0, 2], cam_int[:, 1, 2]], dim=-1)
    cameras = wp.from_torch(cameras.detach().to(device, torch.float32).contiguous(), dtype=wp.vec4)
    stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
    values: Any = points if stream else points.numpy()  # torch's threads would go on spinning on our cores
    if not (values.min() >= -REACH and values.max() <= REACH):  # each ray would visit all faces
        raise ValueError(f"vertices must be finite and at most {REACH:g} m from the camera")
    # Warp's loop over pixels uses one core, so on a CPU each thread launches one body at a time.
    per_launch, threads = (batch, 1) if stream else (1, min(torch.get_num_threads(), batch))
    warp_stream: Any = wp.stream_from_torch(stream) if stream else None

    def render_share(thread: int) -> None:
        own = meshes[thread * per_launch : (thread + 1) * per_launch]
        ids = wp.from_torch(torch.tensor([mesh.id for mesh in own], device=device), dtype=wp.uint64)
        for start in range(thread * per_launch, batch, threads * per_launch):
            bodies = slice(start, start + per_launch)
            for mesh, vertices in zip(own, points[bodies], strict=True):
                wp.copy(mesh.points, wp.from_torch(vertices, dtype=wp.vec3))
                mesh.refit()
            wp.launch(
                kernel,
                dim=(per_launch, height, width),
                inputs=[ids, cameras[bodies], *inputs],
                outputs=[output[bodies] for output in outputs],
                device=cameras.device,
            )

    with _lock, wp.ScopedStream(warp_stream):
        meshes = _meshes(points, faces, people, threads * per_launch, stream)
        if threads == 1:
            render_share(0)
        else:
            wp.load_module(device=cameras.device)
            with ThreadPoolExecutor(threads) as workers:
                list(workers.map(render_share, range(threads)))


def check_range(faces: torch.Tensor, count: int) -> None:
    """Raise ValueError if faces refer to vertices outside 0 .. count - 1."""
    low, high = int(faces.min()), int(faces.max())
    if not 0 <= low <= high < count:
        raise ValueError(f"faces refer to vertices {low} to {high}, but there are {count}")


def picture_shape(
    vertices: torch.Tensor,
    faces: torch.Tensor,
    cam_int: torch.Tensor,
    size: int | tuple[int, int],
) -> tuple[int, int, int]:
    """Shape (B, height, width) of what these arguments render to. Raises ValueError for wrong shapes."""
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, Integral) for side in sides):
        raise ValueError(f"size must be an integer number of pixels, or (height, width), got {size!r}")
    height, width = map(int, sides)
    if height < 1 or width < 1:
        raise ValueError(f"size must be positive, got {height} x {width} pixels")
    if vertices.ndim != 3 or vertices.shape[-1] != 3:
        raise ValueError(f"vertices must be (B, V, 3), got {tuple(vertices.shape)}")
    if cam_int.shape != (len(vertices), 3, 3):
        raise ValueError(f"cam_int must be ({len(vertices)}, 3, 3), got {tuple(cam_int.shape)}")
    if faces.ndim != 2 or faces.shape[-1] != 3 or len(faces) == 0:
        raise ValueError(f"faces must be (F, 3) with F > 0, got {tuple(faces.shape)}")
    if faces.is_floating_point() or faces.is_complex() or faces.dtype == torch.bool:
        raise ValueError(f"faces must be integers, got {faces.dtype}")
    return len(vertices), height, width


def render_mesh(
    vertices: torch.Tensor, faces: torch.Tensor, cam_int: torch.Tensor, size: int | tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Nearest face per pixel and its depth along z, for a batch of meshes with the same faces.

    Args:
        vertices: (B, V, 3) metres, camera frame.
        faces: (F, 3) integers. Both sides of a face are visible.
        cam_int: (B, 3, 3) pixels.
        size: side, or (height, width).

    Returns:
        Face ids (B, H, W) int32, -1 where no face is hit, and depth (B, H, W) float32 in metres, 0 there.

    Raises:
        ValueError: wrong shapes or dtypes, or vertices that are not finite.
    """
    shape, device = picture_shape(vertices, faces, cam_int, size), vertices.device
    face = torch.empty(shape, dtype=torch.int32, device=device)
    depth = torch.empty(shape, dtype=torch.float32, device=device)
    _cast(_trace, vertices, faces, cam_int, [], [wp.from_torch(face), wp.from_torch(depth)])
    return face, depth


def label_pixels(
    points: torch.Tensor,
    faces: torch.Tensor,
    part_of_vertex: torch.Tensor,
    cam_int: torch.Tensor,
    shape: tuple[int, int, int],
) -> torch.Tensor:
    """The labels of `dpose.render.render_parts` for checked arguments.

    points: (B, P * V, 3). faces: (F, 3) and part_of_vertex: (V,) of one person. shape: of the labels.
    """
    label = torch.zeros(shape, dtype=torch.uint8, device=points.device)
    people = points.shape[1] // len(part_of_vertex)
    parts = wp.from_torch(part_of_vertex.to(points.device, torch.int32).repeat(people))
    _cast(_label, points, faces, cam_int, [parts], [wp.from_torch(label)], people)
    return label


def join_faces(faces: torch.Tensor, people: int, count: int) -> torch.Tensor:
    """Faces (people * F, 3) of one mesh of several people, from the faces (F, 3) of one.

    count: vertices per person. Face i of the result is face i % F of person i // F.
    """
    offsets = count * torch.arange(people, device=faces.device, dtype=faces.dtype)
    return (faces + offsets[:, None, None]).flatten(0, 1)
