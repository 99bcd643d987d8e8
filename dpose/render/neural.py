"""The paper's renderer, the Neural 3D Mesh Renderer (Kato et al. 2018), as an alternative to Warp on CUDA.

`neural_renderer` is imported when it is first used. Only its CUDA kernel that finds the face of each pixel is
called, since part labels are drawn without anti-aliasing, textures or lights.
"""

from types import ModuleType

import torch

from dpose.render.raycast import REACH, join_faces


def rasterizer(device: torch.device) -> ModuleType:
    """The package's compiled rasterizer. Raises RuntimeError if it is missing, ValueError without CUDA."""
    try:
        import neural_renderer.cuda.rasterize as compiled
    except ImportError as error:
        raise RuntimeError(
            f"neural_renderer cannot be imported ({error}). On a machine with CUDA build it with `dpose "
            "install-neural-renderer`. It is optional: backend='warp' gives the same part labels"
        ) from error
    if device.type != "cuda":
        raise ValueError(f"neural_renderer needs vertices on CUDA, got {device}; use backend='warp'")
    return compiled


def label_pixels(
    points: torch.Tensor,
    faces: torch.Tensor,
    part_of_vertex: torch.Tensor,
    cam_int: torch.Tensor,
    shape: tuple[int, int, int],
) -> torch.Tensor:
    """As `dpose.render.raycast.label_pixels`, without the faces that extend behind the camera."""
    device = points.device
    compiled = rasterizer(device)
    if points.shape[0] == 0 or points.shape[1] == 0:
        return torch.zeros(shape, dtype=torch.uint8, device=device)
    people = points.shape[1] // len(part_of_vertex)
    part_of_vertex = part_of_vertex.to(device).repeat(people)
    faces = join_faces(faces.to(device), people, len(part_of_vertex) // people)
    face, weight = rasterize(compiled, points, faces, cam_int, *shape[1:])
    vertex = faces[face.clamp(min=0).long(), weight.argmax(-1)]
    return torch.where(face >= 0, part_of_vertex[vertex] + 1, 0).to(torch.uint8)


def rasterize(
    compiled: ModuleType,
    points: torch.Tensor,
    faces: torch.Tensor,
    cam_int: torch.Tensor,
    height: int,
    width: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Face ids (B, H, W), -1 on the background, and barycentric weights of the faces' corners (B, H, W, 3).

    points: (B, V, 3) metres, camera frame. faces: (F, 3), both sides visible. cam_int: (B, 3, 3) pixels.
    """
    points, cam_int = points.detach().float(), cam_int.detach().to(points.device, torch.float32)
    count, side = len(points), max(height, width)  # the kernel draws squares only
    z = points[..., 2]
    pixel = [points[..., i] / z * cam_int[:, i, i, None] + cam_int[:, i, 2, None] for i in range(2)]
    # The edges of the picture are at -1 and 1. The package flips y and then the picture; both are left out.
    corners = torch.stack([2 * pixel[0] / side - 1, 2 * pixel[1] / side - 1, z], dim=-1)[:, faces]
    behind = (corners[..., 2] <= 0).any(-1)[..., None, None]
    corners = torch.where(behind, corners.new_tensor(-1.0), corners)
    # The kernel draws one side of a face, so each face is passed in both orientations ("fill back").
    corners = torch.cat([corners, corners.flip(2)], dim=1).contiguous()

    def plane(*shape: int, value: float = 0.0) -> torch.Tensor:
        return corners.new_full((count, side, side, *shape), value)

    maps = (
        plane(value=-1).int(),
        plane(3),
        plane(value=REACH),
        corners.new_zeros(1),
        torch.zeros_like(corners),
    )
    near, far = 0.0, REACH  # the package's own 0.1 and 100 m would cut small people off
    if corners.is_cuda:
        torch.cuda.synchronize(corners.device)  # the kernel runs on the default stream
    with torch.cuda.device_of(corners):
        face, weight, depth, _ = compiled.forward_face_index_map(corners, *maps, side, near, far, 0, 0, 0)
    if corners.is_cuda:
        torch.cuda.synchronize(corners.device)
    face, weight, depth = face[:, :height, :width], weight[:, :height, :width], depth[:, :height, :width]
    back = face >= len(faces)
    face = torch.where(back, face - len(faces), face)
    weight = torch.where(back[..., None], weight.flip(-1), weight)
    # The weights are those in the picture; divided by the corners' depths they become those on the surface.
    corner = faces[face.clamp(min=0).long()].flatten(1)  # (B, H W 3)
    return face, weight * depth[..., None] / z.gather(1, corner).view(weight.shape)
