"""Rays against triangle meshes with Warp: what each pixel of a batch of cameras hits first.

The bounding-volume tree of a topology is built once and refitted to new vertices, which is what makes part
labels of a training set cheap: all bodies share their faces. On a CPU each of torch's threads has a tree of
its own and goes through its share of the bodies; on CUDA each body has one, and one launch sees to all.

There is no near plane: whatever lies in front of the pinhole is seen, and a face that reaches behind it is
seen as far as it lies in front.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np
import torch
import warp as wp

from dpose.render.warp_setup import init_warp

init_warp()

_MAX_TOPOLOGIES = 4
_RAYS_AT_ONCE = 2**20  # of a shaded picture: a photograph of 12 megapixels would take gigabytes otherwise


@dataclass
class _Pool:
    """Meshes of one topology, as many as were ever needed at once."""

    faces: torch.Tensor  # the tensor itself: while it lives, its address cannot become another topology's
    meshes: list[wp.Mesh] = field(default_factory=list)
    read: torch.cuda.Event | None = None  # when the last kernel that was given these trees is through


_pools: OrderedDict[tuple, _Pool] = OrderedDict()
_pools_in_use = threading.Lock()  # two callers at once would refit each other's trees


def _free_after_fork() -> None:
    """The thread that held the lock lives on in the parent only: in the child nobody would give it back."""
    global _pools_in_use
    _pools_in_use = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_free_after_fork)


@wp.func
def _ray(camera: wp.vec4, row: int, column: int) -> wp.vec3:
    """Through the centre of a pixel; camera: fx, fy, cx, cy."""
    x = (float(column) + 0.5 - camera[2]) / camera[0]
    y = (float(row) + 0.5 - camera[3]) / camera[1]
    return wp.normalize(wp.vec3(x, y, 1.0))


@wp.kernel(enable_backward=False)
def _trace(
    meshes: wp.array(dtype=wp.uint64),
    cameras: wp.array(dtype=wp.vec4),
    face: wp.array3d(dtype=wp.int32),
    depth: wp.array3d(dtype=wp.float32),
    bary: wp.array3d(dtype=wp.vec2),
):
    b, i, j = wp.tid()
    ray = _ray(cameras[b], i, j)
    hit = wp.mesh_query_ray(meshes[b], wp.vec3(0.0, 0.0, 0.0), ray, 1.0e6)
    if hit.result:
        face[b, i, j] = hit.face
        depth[b, i, j] = hit.t * ray[2]
        bary[b, i, j] = wp.vec2(hit.u, hit.v)
    else:
        face[b, i, j] = -1
        depth[b, i, j] = 0.0
        bary[b, i, j] = wp.vec2(0.0, 0.0)


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
        # u and v weigh the first and second corner; the rest is the third's.
        rest = 1.0 - (hit.u + hit.v)
        corner = wp.int32(0)
        if hit.v > hit.u:
            corner = 1
        if rest > wp.max(hit.u, hit.v):
            corner = 2
        found = part_of_vertex[wp.mesh_get_index(meshes[b], 3 * hit.face + corner)] + 1
    label[b, i, j] = wp.uint8(found)


def _check_range(faces: torch.Tensor, count: int) -> None:
    if not 0 <= int(faces.min()) <= int(faces.max()) < count:
        raise ValueError(f"faces name vertices {int(faces.min())} to {int(faces.max())}, there are {count}")


def _meshes(points: torch.Tensor, faces: torch.Tensor, count: int, people: int) -> _Pool:
    """At least `count` meshes of one topology, their trees as some earlier body left them.

    points: (B, people * V, 3), whose first bodies lend new trees their vertices. Trees are kept for the last
    few topologies.
    """
    own = points.shape[1] // people  # V
    version = 0 if faces.is_inference() else faces._version  # counts the changes in place
    key = (
        faces.data_ptr(),
        faces.shape,
        faces.stride(),
        faces.dtype,
        version,
        people,
        own,
        points.device,
    )
    pool = _pools.get(key)
    if pool is None:
        _check_range(faces, own)
        pool = _pools[key] = _Pool(faces)
    _pools.move_to_end(key)
    while len(_pools) > _MAX_TOPOLOGIES:
        _, old = _pools.popitem(last=False)
        if old.read:
            old.read.synchronize()
    while len(pool.meshes) < count:
        indices = join_faces(faces.to(points.device, torch.int32), people, own).flatten()
        first = points[len(pool.meshes)].nan_to_num(
            0.0, 0.0, 0.0
        )  # a tree of NaN would be no tree for others
        pool.meshes.append(
            wp.Mesh(points=wp.from_torch(first, dtype=wp.vec3), indices=wp.from_torch(indices))
        )
    return pool


def _cast(
    kernel: wp.Kernel,
    vertices: torch.Tensor,
    faces: torch.Tensor,
    cam_int: torch.Tensor,
    inputs: list[wp.array],
    outputs: list[wp.array],
    people: int = 1,
) -> None:
    """Launch `kernel` for every pixel of `outputs` (B, H, W): meshes, cameras, `inputs`, `outputs`.

    vertices: (B, people * V, 3). faces: (F, 3), of one of the people. cam_int: (B, 3, 3).
    """
    batch, height, width = outputs[0].shape
    if batch == 0 or people == 0:
        return
    device = vertices.device
    points = vertices.detach().float().contiguous()
    cameras = torch.stack([cam_int[:, 0, 0], cam_int[:, 1, 1], cam_int[:, 0, 2], cam_int[:, 1, 2]], dim=-1)
    cameras = wp.from_torch(cameras.detach().to(device, torch.float32).contiguous(), dtype=wp.vec4)
    at_once = batch if device.type == "cuda" else 1  # bodies in a launch; Warp's own loop uses one core
    threads = 1 if device.type == "cuda" else min(torch.get_num_threads(), batch)
    stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
    warp_stream: Any = wp.stream_from_torch(stream) if stream else None

    def share(thread: int) -> None:
        own = pool.meshes[thread * at_once : (thread + 1) * at_once]
        # In torch's memory, which is not given away before this stream is through with it.
        ids = torch.tensor([mesh.id for mesh in own], device=device)
        ids = wp.from_torch(ids, dtype=wp.uint64)
        for start in range(thread * at_once, batch, threads * at_once):
            bodies = slice(start, start + at_once)
            for mesh, body in zip(own, points[bodies], strict=True):
                wp.copy(mesh.points, wp.from_torch(body, dtype=wp.vec3))
                mesh.refit()
            wp.launch(
                kernel,
                dim=(at_once, height, width),
                inputs=[ids, cameras[bodies], *inputs],
                outputs=[output[bodies] for output in outputs],
                device=cameras.device,
            )

    with _pools_in_use, wp.ScopedStream(warp_stream):
        pool = _meshes(points, faces, threads * at_once, people)
        if stream and pool.read:
            stream.wait_event(pool.read)  # another stream's kernel may still be looking at the trees
        if threads == 1:
            share(0)
        else:
            wp.load_module(device=cameras.device)
            with ThreadPoolExecutor(threads) as workers:  # new ones each time: none is left behind by a fork
                list(workers.map(share, range(threads)))
        if stream:
            pool.read = stream.record_event()


def _picture_size(
    vertices: torch.Tensor, faces: torch.Tensor, cam_int: torch.Tensor, size: int | tuple[int, int]
) -> tuple[int, int, int]:
    """Bodies, height and width of what is to be rendered. Raises ValueError for what does not fit."""
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, Integral) for side in sides):
        raise ValueError(f"size must be a whole number of pixels, or height and width, got {size!r}")
    height, width = map(int, sides)
    if vertices.ndim != 3 or vertices.shape[-1] != 3:
        raise ValueError(f"vertices must be (B, V, 3), got {tuple(vertices.shape)}")
    if cam_int.shape != (len(vertices), 3, 3):
        raise ValueError(f"cam_int must be ({len(vertices)}, 3, 3), got {tuple(cam_int.shape)}")
    if faces.ndim != 2 or faces.shape[-1] != 3 or len(faces) == 0:
        raise ValueError(f"faces must be (F, 3) with F > 0, got {tuple(faces.shape)}")
    if faces.is_floating_point() or faces.is_complex() or faces.dtype == torch.bool:
        raise ValueError(f"faces must be whole numbers, got {faces.dtype}")
    if height < 1 or width < 1:
        raise ValueError(f"a picture of {height} x {width} pixels has nothing to see")
    return len(vertices), height, width


def _trace_pixels(
    vertices: torch.Tensor, faces: torch.Tensor, cam_int: torch.Tensor, size: int | tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Face ids (B, H, W), depth (B, H, W), and weights of the hit face's first two corners (B, H, W, 2)."""
    shape, device = _picture_size(vertices, faces, cam_int, size), vertices.device
    face = torch.empty(shape, dtype=torch.int32, device=device)
    depth = torch.empty(shape, dtype=torch.float32, device=device)
    bary = torch.empty((*shape, 2), dtype=torch.float32, device=device)
    outputs = [wp.from_torch(face), wp.from_torch(depth), wp.from_torch(bary, dtype=wp.vec2)]
    _cast(_trace, vertices, faces, cam_int, [], outputs)
    return face, depth, bary


def render_mesh(
    vertices: torch.Tensor, faces: torch.Tensor, cam_int: torch.Tensor, size: int | tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Nearest face and its depth along z for every pixel of a batch of meshes that share their faces.

    vertices: (B, V, 3) metres, camera frame. faces: (F, 3) integer. cam_int: (B, 3, 3) pixels. size: side, or
    (height, width). Both sides of a face are seen.
    Returns face ids (B, H, W) int32, -1 where nothing is hit, and depth (B, H, W) float32 in metres, 0 there.
    A tree is kept for each of the last few `faces` tensors. Changes in place are noticed where torch counts
    them: not in tensors of inference mode, nor in numpy's memory under a tensor. Raises ValueError for other
    shapes and dtypes.
    """
    face, depth, _ = _trace_pixels(vertices, faces, cam_int, size)
    return face, depth


def render_parts(
    vertices: torch.Tensor, body: torch.nn.Module, cam_int: torch.Tensor, size: int | tuple[int, int]
) -> torch.Tensor:
    """As `dpose.render.render_parts` with the backend "warp"."""
    vertices, people = as_one_mesh(vertices, body)
    shape = _picture_size(vertices, body.faces, cam_int, size)
    label = torch.zeros(shape, dtype=torch.uint8, device=vertices.device)
    part_of_vertex = body.part_of_vertex.to(vertices.device, torch.int32).repeat(people)
    inputs, outputs = [wp.from_torch(part_of_vertex)], [wp.from_torch(label)]
    _cast(_label, vertices, body.faces, cam_int, inputs, outputs, people)
    return label


def as_one_mesh(vertices: torch.Tensor, body: torch.nn.Module) -> tuple[torch.Tensor, int]:
    """The P people of each picture as vertices (B, P * V, 3) of one mesh, and P.

    vertices: (B, V, 3) or (B, P, V, 3). Raises ValueError if they are not those of the body.
    """
    if vertices.ndim not in (3, 4) or vertices.shape[-1] != 3:
        raise ValueError(f"vertices must be (B, V, 3) or (B, P, V, 3), got {tuple(vertices.shape)}")
    if vertices.shape[-2] != len(body.part_of_vertex):
        raise ValueError(
            f"a person of {vertices.shape[-2]} vertices is none of this body, which has "
            f"{len(body.part_of_vertex)}; several people go in as (B, P, V, 3)"
        )
    return (vertices, 1) if vertices.ndim == 3 else (vertices.flatten(1, 2), vertices.shape[1])


def join_people(vertices: torch.Tensor, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Several people of one topology as a single mesh, so that they hide one another.

    vertices: (P, V, 3). faces: (F, 3). Returns vertices (P * V, 3) and faces (P * F, 3); face id // F says
    which person was hit, face id % F where. To render many such scenes join once and keep the faces: a tree
    belongs to a faces tensor. Raises ValueError for other shapes.
    """
    if vertices.ndim != 3 or vertices.shape[-1] != 3:
        raise ValueError(f"vertices must be (P, V, 3), got {tuple(vertices.shape)}")
    return vertices.flatten(0, 1), join_faces(faces, *vertices.shape[:2])


def join_faces(faces: torch.Tensor, people: int, count: int) -> torch.Tensor:
    """Faces (people * F, 3) of so many people of `count` vertices each, out of those (F, 3) of one."""
    offsets = count * torch.arange(people, device=faces.device, dtype=faces.dtype)
    return (faces + offsets[:, None, None]).flatten(0, 1)


def vertex_normals(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """Area-weighted unit normals (V, 3) of one mesh: vertices (V, 3), faces (F, 3)."""
    a, b, c = vertices[faces[:, 0]], vertices[faces[:, 1]], vertices[faces[:, 2]]
    face_normal = torch.linalg.cross(b - a, c - a)
    normal = torch.zeros_like(vertices)
    for corner in range(3):
        normal.index_add_(0, faces[:, corner], face_normal)
    return torch.nn.functional.normalize(normal, dim=-1)


def shade(
    vertices: torch.Tensor | np.ndarray,
    faces: torch.Tensor,
    cam_int: torch.Tensor | np.ndarray,
    image: np.ndarray,
    color: tuple[float, float, float] = (0.62, 0.76, 0.94),
    opacity: float = 0.92,
    samples: int = 2,
) -> np.ndarray:
    """A shaded mesh over a photograph: (H, W, 3) uint8, same size as `image`.

    vertices: (V, 3) metres, camera frame, or (P, V, 3): several people, who hide one another. faces: (F, 3).
    cam_int: (3, 3) pixels of `image`. color: linear RGB albedo. opacity: of the mesh. samples: rays along
    each side of a pixel, averaged. Pixels that the mesh does not touch keep their values; without people,
    all do. Raises ValueError for other shapes.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be (H, W, 3) uint8, got {image.dtype} {image.shape}")
    points = torch.as_tensor(vertices, dtype=torch.float32)
    faces = faces.to(points.device)
    if points.ndim == 3:
        if len(points) == 0:
            return image.copy()
        points, faces = (points[0], faces) if len(points) == 1 else join_people(points, faces)
    camera = torch.as_tensor(cam_int, dtype=torch.float32, device=points.device)
    _picture_size(points[None], faces, camera[None], image.shape[:2])
    _check_range(faces, len(points))
    normals, drawn = vertex_normals(points, faces.long()), image.copy()
    top, bottom, left, right = _window(points, camera, *image.shape[:2])
    rows = max(1, _RAYS_AT_ONCE // (max(1, right - left) * samples**2))
    for start in range(top, bottom, rows) if left < right else ():
        part = drawn[start : min(start + rows, bottom), left:right]
        moved = camera - camera.new_tensor([[0, 0, left], [0, 0, start], [0, 0, 0]])
        part[:] = _shade_part(points, faces, normals, moved, part, color, opacity, samples)
    return drawn


def _window(points: torch.Tensor, camera: torch.Tensor, height: int, width: int) -> tuple[int, int, int, int]:
    """Rows and columns (top, bottom, left, right) of a picture outside which no point (V, 3) shows."""
    pixels = points[:, :2] / points[:, 2:] * camera[[0, 1], [0, 1]] + camera[:2, 2]
    if not (points[:, 2].min() > 0 and pixels.isfinite().all()):
        return 0, height, 0, width  # what reaches behind the camera may show anywhere
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
    color: tuple[float, float, float],
    opacity: float,
    samples: int,
) -> np.ndarray:
    """`shade` for a mesh with its vertices' normals, all at once: some hundred bytes for each ray."""
    height, width = image.shape[:2]
    finer = camera * camera.new_tensor([[samples], [samples], [1]])
    face, _, bary = _trace_pixels(points[None], faces, finer[None], (height * samples, width * samples))
    hit = face[0] >= 0
    first, second = bary[0][hit].unbind(-1)  # (N,), of the rays that hit
    weights = torch.stack([first, second, 1 - first - second], dim=-1)
    normal = (normals[faces[face[0][hit].long()].long()] * weights[..., None]).sum(-2)  # (N, 3)
    normal = torch.nn.functional.normalize(normal, dim=-1)
    # Three lights fixed to the camera: over its left shoulder, from the right, from above.
    lights = points.new_tensor([[-0.5, -0.6, -0.7], [0.8, -0.1, -0.5], [0.0, -1.0, 0.1]])
    power = points.new_tensor([0.75, 0.25, 0.2])
    light = (torch.nn.functional.normalize(lights, dim=-1) @ normal.T).clamp(min=0)  # (3, N)
    light = (0.18 + power @ light)[:, None]
    rgb = points.new_zeros(*hit.shape, 3)
    rgb[hit] = (light * points.new_tensor(color)).clamp(0, 1) ** (1 / 2.2)

    def average(x: torch.Tensor) -> torch.Tensor:
        return x.view(height, samples, width, samples, -1).mean((1, 3))

    cover = average(hit[..., None].float())
    rgb = average(rgb) / cover.clamp(min=1e-6)
    cover = cover * opacity
    photo = torch.as_tensor(image.astype(np.float32) / 255, device=points.device)
    out = photo * (1 - cover) + rgb * cover
    return (out * 255).round().clamp(0, 255).byte().cpu().numpy()
