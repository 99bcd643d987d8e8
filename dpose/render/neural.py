"""The paper's rasterizer, the Neural 3D Mesh Renderer (Kato et al. 2018), in place of Warp's rays.

`neural_renderer` is looked for when it is first asked for; nothing else needs it. Of the package only the
CUDA kernel is called that finds the face of each pixel: the paper draws its labels without anti-aliasing
(section 3.5), so face and weights are all they come from; textures, lights and gradients are left aside.
"""

from types import ModuleType

import torch

from dpose.render.raycast import _picture_size, as_one_mesh, join_faces

_FAR = 1.0e6  # metres, as far as Warp's rays go; the package's own 0.1 and 100 m would cut small people off


def rasterizer() -> ModuleType:
    """The package's compiled rasterizer. Raises RuntimeError, with what to do, where there is none."""
    try:
        import neural_renderer.cuda.rasterize as compiled
    except ImportError as error:
        raise RuntimeError(
            f"the renderer neural_renderer cannot be used ({error}). On a machine with CUDA "
            "`dpose install-neural-renderer` builds it. It is not needed: backend='warp' gives the same part "
            "labels of bodies wholly before the camera, and of others more, on CPU and CUDA alike"
        ) from error
    return compiled


def render_parts(
    vertices: torch.Tensor, body: torch.nn.Module, cam_int: torch.Tensor, size: int | tuple[int, int]
) -> torch.Tensor:
    """As `dpose.render.render_parts`, on CUDA, by the Neural 3D Mesh Renderer.

    Faces that reach behind the camera are left out, where Warp still shows the part before it. Raises
    RuntimeError without the package, ValueError for tensors that are not on CUDA and for other shapes.
    """
    compiled, device = rasterizer(), vertices.device
    if device.type != "cuda":
        raise ValueError(
            f"neural_renderer draws on CUDA only; for vertices on {device} there is backend='warp'"
        )
    # Its kernels run on the default stream, whichever is current.
    default, current = torch.cuda.default_stream(device), torch.cuda.current_stream(device)
    default.wait_stream(current)
    with torch.cuda.device(device), torch.cuda.stream(default):
        labels = label(compiled, vertices, body, cam_int, size)
    current.wait_stream(default)
    labels.record_stream(current)
    return labels


def label(
    compiled: ModuleType,
    vertices: torch.Tensor,
    body: torch.nn.Module,
    cam_int: torch.Tensor,
    size: int | tuple[int, int],
) -> torch.Tensor:
    """`render_parts` with a given rasterizer, on its device."""
    vertices, people = as_one_mesh(vertices, body)
    batch, height, width = _picture_size(vertices, body.faces, cam_int, size)
    if batch == 0 or people == 0:
        return torch.zeros((batch, height, width), dtype=torch.uint8, device=vertices.device)
    part_of_vertex = body.part_of_vertex.to(vertices.device).repeat(people)
    faces = join_faces(body.faces.to(vertices.device), people, len(body.part_of_vertex))
    face, weight = rasterize(compiled, vertices, faces, cam_int, height, width)
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
    """Face ids (B, H, W), -1 where nothing is, and barycentric weights of the face's corners (B, H, W, 3).

    points: (B, V, 3) metres, camera frame. faces: (F, 3). cam_int: (B, 3, 3) pixels. Both sides of a face are
    seen.
    """
    points, cam_int = points.detach().float(), cam_int.detach().to(points.device, torch.float32)
    count, side = len(points), max(height, width)  # it draws squares only
    z = points[..., 2]
    pixel = [points[..., i] / z * cam_int[:, i, i, None] + cam_int[:, i, 2, None] for i in range(2)]
    # -1 and 1 are the picture's edges. The package turns y up and the picture back: left out, both of them.
    corners = torch.stack([2 * pixel[0] / side - 1, 2 * pixel[1] / side - 1, z], dim=-1)[:, faces]
    behind = (corners[..., 2] <= 0).any(-1)[..., None, None]
    corners = torch.where(behind, corners.new_tensor(-1.0), corners)
    # It sees one side of a face only, so each is there twice, as in the package ("fill back").
    corners = torch.cat([corners, corners.flip(2)], dim=1).contiguous()

    def plane(*shape: int, value: float = 0.0) -> torch.Tensor:
        return corners.new_full((count, side, side, *shape), value)

    face, weight, depth, _ = compiled.forward_face_index_map(
        corners,
        plane(value=-1).int(),
        plane(3),
        plane(value=_FAR),
        corners.new_zeros(1),
        torch.zeros_like(corners),
        side,
        0.0,
        _FAR,
        0,
        0,
        0,
    )
    face, weight, depth = face[:, :height, :width], weight[:, :height, :width], depth[:, :height, :width]
    back = face >= len(faces)
    face = torch.where(back, face - len(faces), face)
    weight = torch.where(back[..., None], weight.flip(-1), weight)
    # The weights are those of the flat picture; over the corners' depths they become those of the surface.
    corner = faces[face.clamp(min=0).long()].flatten(1)  # (B, H W 3)
    return face, weight * depth[..., None] / z.gather(1, corner).view(weight.shape)
