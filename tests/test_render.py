"""Rendering compared with closed forms (plane, sphere, cube), and with Embree for posed open bodies."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dpose.body import OPEN_SMPL, load_body
from dpose.camera import crop_intrinsics, project
from dpose.render import join_faces, raycast, render_mesh, render_parts, shade, shading
from dpose.skeleton import JOINT_NAMES

SIZE = 96
QUAD = torch.tensor([[0, 1, 2], [0, 2, 3]])


@pytest.fixture(scope="module")
def body():
    return load_body()


def camera(focal: float = 120.0, size: int = SIZE, count: int = 1) -> torch.Tensor:
    k = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])
    return k.expand(count, 3, 3)


def pixel_rays(cam_int: torch.Tensor, height: int, width: int) -> np.ndarray:
    """(H, W, 3) float64 rays through pixel centres with z = 1."""
    k = cam_int.double().numpy()
    y, x = np.mgrid[:height, :width] + 0.5
    return np.stack([(x - k[0, 2]) / k[0, 0], (y - k[1, 2]) / k[1, 1], np.ones_like(x)], -1)


def square(depth: float, half: float) -> torch.Tensor:
    corners = [[-half, -half, depth], [half, -half, depth], [half, half, depth], [-half, half, depth]]
    return torch.tensor(corners)


def posed_people(body, count: int = 3) -> torch.Tensor:
    """(B, V, 3) people in random poses, about 3 m in front of the camera."""
    import roma

    generator = torch.Generator().manual_seed(4)
    axis_angle = 0.35 * torch.randn(count, 22, 3, generator=generator)
    axis_angle[:, 0] = torch.tensor([3.0, 0.3, 0.2])  # upright for a camera whose y points down
    betas = torch.randn(count, 11, generator=generator)
    trans = torch.tensor([0.05, 0.3, 3.0]) + 0.2 * torch.arange(count)[:, None]
    with torch.no_grad():
        return body(betas, roma.rotvec_to_rotmat(axis_angle), trans).vertices


def test_a_square_at_known_depth_covers_exactly_the_pixels_whose_centres_it_covers():
    vertices, k = square(2.0, 0.3), camera()
    face, depth = render_mesh(vertices[None], QUAD, k, SIZE)
    rays = pixel_rays(k[0], SIZE, SIZE) * 2.0
    inside = (np.abs(rays[..., :2]) < 0.3).all(-1)
    assert face.dtype == torch.int32 and depth.dtype == torch.float32
    np.testing.assert_array_equal(face[0].numpy() >= 0, inside)
    np.testing.assert_allclose(depth[0].numpy(), np.where(inside, 2.0, 0.0), atol=1e-6)
    upper = inside & (rays[..., 1] < rays[..., 0] - 1e-6)  # face 0 holds the upper right corner
    lower = inside & (rays[..., 1] > rays[..., 0] + 1e-6)
    assert (face[0].numpy()[upper] == 0).all() and (face[0].numpy()[lower] == 1).all()


def test_principal_point_and_both_focal_lengths_matter_in_a_picture_that_is_not_square():
    k = torch.tensor([[[80.0, 0, 20], [0, 40.0, 30], [0, 0, 1]]])
    face, _ = render_mesh(square(2.0, 0.5)[None], QUAD, k, (50, 70))
    rows, columns = np.nonzero(face[0].numpy() >= 0)
    assert face.shape == (1, 50, 70)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (20, 40, 0, 40)


def test_depth_of_a_sphere_agrees_with_its_formula():
    import trimesh

    center, radius = np.array([0.1, -0.05, 3.0]), 0.7
    mesh = trimesh.creation.icosphere(subdivisions=5, radius=radius)
    vertices = torch.tensor(mesh.vertices + center, dtype=torch.float32)
    k = camera(focal=140)
    face, depth = render_mesh(vertices[None], torch.tensor(mesh.faces), k, SIZE)
    rays = pixel_rays(k[0], SIZE, SIZE)
    a, b = (rays**2).sum(-1), rays @ center
    root = b**2 - a * (center @ center - radius**2)
    expected = (b - np.sqrt(root.clip(0))) / a
    well_inside = root > 0.02  # the polyhedron lies a little inside the sphere
    assert well_inside.sum() > 1000
    assert (face[0].numpy()[well_inside] >= 0).all() and (face[0].numpy()[root < 0] == -1).all()
    np.testing.assert_allclose(depth[0].numpy()[well_inside], expected[well_inside], atol=2e-3)


def test_a_turned_cube_shows_the_nearest_of_its_planes():
    import trimesh

    mesh = trimesh.creation.box((0.8, 0.6, 0.7))
    turn = trimesh.transformations.euler_matrix(0.5, 0.7, 0.2)[:3, :3]
    center = np.array([0.0, 0.1, 2.5])
    vertices = torch.tensor(mesh.vertices @ turn.T + center, dtype=torch.float32)
    k = camera()
    face, depth = render_mesh(vertices[None], torch.tensor(mesh.faces), k, SIZE)
    rays = pixel_rays(k[0], SIZE, SIZE)
    # Slabs: in the cube's own frame the ray enters where the last of three intervals opens.
    origin, direction = -center @ turn, rays @ turn
    half = np.array([0.4, 0.3, 0.35])
    t = np.stack([(-half - origin) / direction, (half - origin) / direction])
    enter, leave = t.min(0).max(-1), t.max(0).min(-1)
    clear = np.abs(leave - enter) > 1e-3  # rays through an edge may go either way
    np.testing.assert_array_equal((face[0].numpy() >= 0)[clear], (enter < leave)[clear])
    hit = clear & (enter < leave)
    np.testing.assert_allclose(depth[0].numpy()[hit], enter[hit], atol=1e-5)


def plane_depth_and_weights(
    corners: np.ndarray, rays: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where rays (N, 3) from the pinhole meet the planes of triangles (N, 3, 3), in double precision.

    Depths (N,), barycentric weights (N, 3), and sines (N,) of the angles between rays and planes.
    """
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    normal = np.cross(b - a, c - a)
    slope = (normal * rays).sum(1)
    depth = (normal * a).sum(1) / slope
    volumes = [(np.cross(*pair) * rays).sum(1) for pair in ((b, c), (c, a), (a, b))]
    weights = np.stack(volumes, -1) / slope[:, None]
    sine = np.abs(slope) / (np.linalg.norm(normal, axis=1) * np.linalg.norm(rays, axis=1))
    return depth, weights, sine


@pytest.mark.parametrize("view", ["from afar", "from 30 cm", "from within", "off the axis", "a cut-out arm"])
def test_faces_and_depth_of_posed_bodies_agree_with_embree(body, view):
    import trimesh

    people, size = posed_people(body), 128
    k = camera(focal=200, size=size, count=len(people))
    if view == "from 30 cm":  # part of each body is behind the camera
        people = people - people.mean(1, keepdim=True) + torch.tensor([0.2, 0.0, 0.3])
    elif view == "from within":
        chest = body.part_of_vertex == JOINT_NAMES.index("spine3")
        people = people - people[:, chest].mean(1, keepdim=True)
    elif view == "off the axis":  # at a picture's border, 60 degrees from the axis
        people = people + torch.tensor([5.0, 0.0, 0.0])
        k = k.clone()
        k[:, 0, 2] = size / 2 - 200 * 5.0 / 3.2
    elif view == "a cut-out arm":
        elbow = body.part_of_vertex == JOINT_NAMES.index("left_elbow")
        center = project(people[:, elbow], k).mean(1)
        k = crop_intrinsics(k, center, torch.full((3,), 20 / 200), size)
    face, depth = render_mesh(people, body.faces, k, size)
    hits = 0
    for vertices, ours, metres, own in zip(
        people.double().numpy(), face.numpy(), depth.numpy(), k, strict=True
    ):
        rays = pixel_rays(own, size, size).reshape(-1, 3)
        mesh = trimesh.Trimesh(vertices, body.faces.numpy(), process=False)
        assert "embree" in type(mesh.ray).__module__, "Embree is not the reference: pip install embreex"
        theirs = mesh.ray.intersects_first(np.zeros_like(rays), rays)
        ours, metres = ours.ravel(), metres.ravel()
        hits += (theirs >= 0).sum()
        assert (ours != theirs).mean() < 2e-3
        for other in (ours, theirs):  # they differ only where a ray grazes an edge or a face
            grazing = np.nonzero((ours != theirs) & (other >= 0))[0]
            _, weights, sine = plane_depth_and_weights(mesh.triangles[other[grazing]], rays[grazing])
            assert ((np.abs(weights).min(1) < 1e-3) | (sine < 0.01)).all()
        hit = ours >= 0
        assert (metres[~hit] == 0).all() and (metres[hit] > 0).all()
        expected, _, sine = plane_depth_and_weights(mesh.triangles[ours[hit]], rays[hit])
        assert (sine > 0.01).mean() > 0.99
        np.testing.assert_allclose(metres[hit][sine > 0.01], expected[sine > 0.01], atol=1e-4, rtol=0)
    assert hits > 3000


def test_inside_a_cube_the_walls_in_front_are_visible_and_those_behind_are_not():
    import trimesh

    mesh = trimesh.creation.box((2.0, 3.0, 4.0))
    k = camera(focal=40)
    _, depth = render_mesh(
        torch.tensor(mesh.vertices, dtype=torch.float32)[None], torch.tensor(mesh.faces), k, SIZE
    )
    rays = pixel_rays(k[0], SIZE, SIZE)
    with np.errstate(divide="ignore"):
        expected = (np.array([1.0, 1.5, 2.0]) / np.abs(rays)).min(-1)  # the first wall in the ray's octant
    np.testing.assert_allclose(depth[0].numpy(), expected, atol=1e-5)


def test_a_floor_that_extends_behind_the_camera_is_visible_up_to_the_horizon():
    floor = torch.tensor([[[-50.0, 1, -50], [50, 1, -50], [50, 1, 50], [-50, 1, 50]]])
    face, depth = render_mesh(floor, QUAD, camera(), SIZE)
    below = np.arange(SIZE) + 0.5 - SIZE / 2
    expected = np.where(below > 120 / 50, 120 / below, 0)[:, None].repeat(SIZE, 1)
    np.testing.assert_array_equal(face[0].numpy() >= 0, expected > 0)
    np.testing.assert_allclose(depth[0].numpy(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("metres", [1e-6, 1e-3, 1e3, 1e5])
def test_no_plane_is_too_near_or_too_far(metres):
    face, depth = render_mesh(square(metres, metres)[None], QUAD, camera(), 16)
    assert (face >= 0).all()
    torch.testing.assert_close(depth, torch.full_like(depth, metres), rtol=1e-6, atol=0)


def test_a_crop_beside_the_person_is_empty(body):
    people, k = posed_people(body, 1), camera(focal=500, size=640)
    crop = crop_intrinsics(k, torch.tensor([[5000.0, 320.0]]), torch.tensor([1.0]), 64)
    face, depth = render_mesh(people, body.faces, crop, 64)
    assert (face == -1).all() and (depth == 0).all()
    assert (render_parts(people, body, crop, 64) == 0).all()


def test_two_intersecting_squares_occlude_one_another_by_half():
    near_left = torch.tensor([[-1.0, -1, 1.5], [1, -1, 2.5], [1, 1, 2.5], [-1, 1, 1.5]])
    near_right = near_left * torch.tensor([-1.0, 1, 1])
    vertices, faces = torch.cat([near_left, near_right]), join_faces(QUAD, 2, 4)
    face, depth = render_mesh(vertices[None], faces, camera(size=64), 64)
    x = pixel_rays(camera(size=64)[0], 64, 64)[..., 0]
    slanted = 2 / (1 + 0.5 * np.abs(x))  # z = 2 - |x| z / 2
    person = face[0].numpy() // len(QUAD)
    seen = face[0].numpy() >= 0
    assert seen.mean() > 0.9
    np.testing.assert_array_equal(person[seen], (x > 0)[seen])
    np.testing.assert_allclose(depth[0].numpy()[seen], slanted[seen], atol=1e-5)


def test_of_several_people_each_pixel_shows_the_nearest(body):
    people = posed_people(body)
    k = camera(focal=150)
    alone_face, alone = render_mesh(people, body.faces, k.expand(3, 3, 3), SIZE)
    faces = join_faces(body.faces, len(people), body.num_vertices)
    face, depth = render_mesh(people.flatten(0, 1)[None], faces, k, SIZE)
    alone = alone.where(alone_face >= 0, torch.inf)
    nearest, person = alone.min(0)
    assert all((person[face[0] >= 0] == p).any() for p in range(3))
    assert ((alone < torch.inf).sum(0) > 1).sum() > 100  # they overlap
    torch.testing.assert_close(depth[0].where(face[0] >= 0, torch.inf), nearest, atol=1e-5, rtol=0)
    two = alone.sort(0).values
    clear = (face[0] >= 0) & (two[1] - two[0] > 1e-4)
    assert (face[0] // len(body.faces))[clear].equal(person[clear].int())


def test_a_label_is_the_part_of_the_hit_faces_nearest_corner(body):
    people, k = posed_people(body), camera(focal=150, count=3)
    labels = render_parts(people, body, k, SIZE).numpy()
    face, _ = render_mesh(people, body.faces, k, SIZE)
    rays = pixel_rays(k[0], SIZE, SIZE)
    for vertices, label, hit in zip(people.double().numpy(), labels, face.numpy(), strict=True):
        corners = body.faces.numpy()[hit[hit >= 0]]
        _, weights, _ = plane_depth_and_weights(vertices[corners], rays[hit >= 0])
        part = body.part_of_vertex.numpy()[np.take_along_axis(corners, weights.argmax(1)[:, None], 1)[:, 0]]
        tie = np.diff(np.sort(weights, 1)[:, 1:], axis=1)[:, 0] < 1e-3
        assert (label[hit < 0] == 0).all() and tie.mean() < 0.02
        np.testing.assert_array_equal(label[hit >= 0][~tie], part[~tie] + 1)


def test_of_several_people_each_pixel_has_the_part_of_the_nearest(body):
    people, k = posed_people(body, 6).unflatten(0, (2, 3)), camera(focal=150, count=2).clone()
    k[1, 0, 0] = 130
    each = k.repeat_interleave(3, 0)
    face, depth = render_mesh(people.flatten(0, 1), body.faces, each, SIZE)
    parts = render_parts(people.flatten(0, 1), body, each, SIZE).unflatten(0, (2, 3))
    depth = depth.where(face >= 0, torch.inf).unflatten(0, (2, 3))
    near = depth.sort(1).values
    expected = parts.gather(1, depth.argmin(1, keepdim=True))[:, 0]
    labels = render_parts(people, body, k, SIZE)
    clear = near[:, 1] - near[:, 0] > 1e-4
    assert ((near[:, 1] < torch.inf) & clear).sum() > 100  # they overlap
    assert (labels != expected)[clear].float().mean() < 1e-3  # a ray along an edge
    assert (labels[near[:, 0] == torch.inf] == 0).float().mean() > 0.999
    alone = people.clone()
    alone[:, 1:, :, 2] -= 99  # behind the camera
    assert (render_parts(alone, body, k, SIZE) != parts[:, 0]).float().mean() < 1e-3
    assert (render_parts(people[:, :0], body, k, SIZE) == 0).all()


def test_vertices_of_another_body_or_without_the_dimension_of_people_are_refused(body):
    people, k = posed_people(body, 2), camera()
    with pytest.raises(ValueError, match=rf"{body.num_vertices} vertices .* 6890"):
        render_parts(people[:1], load_body(OPEN_SMPL), k, SIZE)
    with pytest.raises(ValueError, match=rf"{2 * body.num_vertices} vertices .*\(B, P, V, 3\)"):
        render_parts(people.flatten(0, 1)[None], body, k, SIZE)


def test_trees_of_one_and_of_two_people_are_not_confused(body):
    faces, k = body.faces.clone(), camera()
    pair, one = SimpleNamespace(faces=faces, part_of_vertex=body.part_of_vertex), posed_people(body, 2)
    twice = SimpleNamespace(faces=faces, part_of_vertex=body.part_of_vertex.repeat(2))
    both = render_parts(one[None], pair, k, SIZE)
    first = render_parts(one.flatten(0, 1)[None], twice, k, SIZE)  # the second one has no faces here
    assert (both > 0).sum() > 1.2 * (first > 0).sum()
    assert (first != render_parts(one[:1], body, k, SIZE)).float().mean() < 1e-3


def test_parts_cover_the_silhouette_and_left_and_right_are_not_swapped(body):
    vertices = body(torch.zeros(1, 11), torch.eye(3).expand(1, 22, 3, 3)).vertices
    vertices = vertices * torch.tensor([1.0, -1, -1]) + torch.tensor([0, 0.3, 3.0])  # it looks at the camera
    k = camera(focal=120, size=128)
    parts = render_parts(vertices, body, k, 128)[0].numpy()
    face, _ = render_mesh(vertices, body.faces, k, 128)
    np.testing.assert_array_equal(parts > 0, face[0].numpy() >= 0)
    assert parts.dtype == np.uint8 and parts.max() <= 22
    seen = 0
    for joint, name in enumerate(JOINT_NAMES[:22]):
        columns = np.nonzero(parts == joint + 1)[1] + 0.5
        if name.startswith(("left", "right")) and len(columns):
            # The person's left is the picture's right. A part's own half, but for a rim round the middle.
            side = 1 if name.startswith("left") else -1
            assert side * np.median(columns - 64) > 0, name
            assert (side * (columns - 64) > -4).all(), name
            seen += 1
    assert seen >= 12
    head, foot = JOINT_NAMES.index("head") + 1, JOINT_NAMES.index("left_foot") + 1
    assert np.nonzero(parts == head)[0].max() < np.nonzero(parts == foot)[0].min()


def test_a_batch_equals_its_members_rendered_one_by_one(body):
    people = posed_people(body)
    k = camera(count=3).clone()
    k[:, 0, 0] *= torch.tensor([1.0, 1.3, 0.8])
    faces, depths = render_mesh(people, body.faces, k, 64)
    parts = render_parts(people, body, k, 64)
    for i in range(3):
        face, depth = render_mesh(people[i : i + 1], body.faces, k[i : i + 1], 64)
        assert torch.equal(face[0], faces[i]) and torch.equal(depth[0], depths[i])
        assert torch.equal(render_parts(people[i : i + 1], body, k[i : i + 1], 64)[0], parts[i])


def test_a_refitted_tree_gives_the_result_of_a_new_one(body):
    people, k = posed_people(body, 2), camera()
    render_mesh(people[:1], body.faces, k, 64)
    face, depth = render_mesh(people[1:], body.faces, k, 64)  # the first one's tree, other vertices
    fresh_face, fresh_depth = render_mesh(people[1:], body.faces.clone(), k, 64)
    # Through a shared edge the order of traversal decides, nothing else.
    assert (face != fresh_face).float().mean() < 2e-3
    torch.testing.assert_close(depth, fresh_depth, atol=1e-4, rtol=0)


def test_trees_are_kept_and_refitted(body):
    faces, k = body.faces.clone(), camera(count=3)
    render_mesh(posed_people(body), faces, k, 32)
    _, kept, meshes = raycast._kept[-1]
    trees = list(meshes)
    assert np.array_equal(kept, faces) and 1 <= len(trees) <= min(3, torch.get_num_threads())
    render_mesh(posed_people(body).flip(0), faces.clone(), k, 32)  # equal faces in another tensor
    assert raycast._kept[-1][2] is meshes and meshes[: len(trees)] == trees


def test_faces_changed_in_place_are_noticed():
    faces = QUAD.clone()
    before, _ = render_mesh(square(2.0, 0.3)[None], faces, camera(), SIZE)
    with torch.inference_mode():
        faces.numpy()[1] = faces.numpy()[0]  # torch does not count this change
        after, _ = render_mesh(square(2.0, 0.3)[None], faces, camera(), SIZE)
    assert 0 < (after >= 0).sum() < 0.6 * (before >= 0).sum()


def test_a_body_shrunk_to_a_point_is_not_visible_and_does_not_affect_later_bodies(body):
    people, faces, k = posed_people(body, 1), body.faces.flip(0), camera()
    face, depth = render_mesh(torch.zeros_like(people), faces, k, 32)
    assert (face == -1).all() and (depth == 0).all()
    later, _ = render_mesh(people, faces, k, 32)
    right, _ = render_mesh(people, body.faces, k, 32)
    assert ((later >= 0) != (right >= 0)).float().mean() < 5e-3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e30])
def test_vertices_that_are_not_finite_or_too_far_away_are_refused(body, value):
    people, photo = posed_people(body, 1), np.zeros((320, 180, 3), np.uint8)
    people[0, 77, 1] = value
    with pytest.raises(ValueError, match="finite"):
        render_parts(people, body, camera(), 320)
    with pytest.raises(ValueError, match="finite"):
        shade(people[0], body.faces, camera()[0], photo)


def test_the_number_of_threads_does_not_change_the_result(body):
    people, k, threads = posed_people(body, 5), camera(count=5), torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 8):
            torch.set_num_threads(count)
            results.append((render_parts(people, body, k, 64), *render_mesh(people, body.faces, k, 64)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert (other[0] != results[0][0]).float().mean() < 1e-3  # trees differ, and so edges
        assert (other[1] != results[0][1]).float().mean() < 2e-3
        torch.testing.assert_close(other[2], results[0][2], atol=1e-4, rtol=0)


def test_calls_from_several_threads_do_not_disturb_one_another(body):
    from concurrent.futures import ThreadPoolExecutor

    people, k = posed_people(body, 3), camera(count=1)
    alone = [render_mesh(person[None], body.faces, k, 64)[0] for person in people]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda i: render_mesh(people[i % 3][None], body.faces, k, 64)[0], range(12)))
    for i, face in enumerate(together):
        assert (face != alone[i % 3]).float().mean() < 2e-3


def test_trees_are_kept_for_a_few_sets_of_faces_only():
    for count in range(1, 3 * raycast._KEPT):
        render_mesh(square(2.0, 0.3)[None], QUAD.repeat(count, 1), camera(size=8), 8)
    assert len(raycast._kept) == raycast._KEPT


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu(body):
    from copy import deepcopy

    people, k = posed_people(body, 5), camera(count=5)
    face, depth = render_mesh(people, body.faces, k, 64)
    labels = render_parts(people, body, k, 64)
    for batch in (people[:2], people):  # new trees, then some refitted and some new
        cuda_face, cuda_depth = render_mesh(batch.cuda(), body.faces.cuda(), k[: len(batch)].cuda(), 64)
    cuda_labels = render_parts(people.cuda(), deepcopy(body).cuda(), k.cuda(), 64)
    assert (cuda_face.cpu() != face).float().mean() < 2e-3
    assert (cuda_labels.cpu() != labels).float().mean() < 2e-3
    same = cuda_face.cpu() == face
    torch.testing.assert_close(cuda_depth.cpu()[same], depth[same], atol=1e-4, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_calls_on_different_cuda_streams_do_not_refit_trees_in_use(body):
    people, faces, k = posed_people(body, 8).cuda(), body.faces.cuda(), camera(900, 768, count=8).cuda()
    others, streams = people.flip(0), [torch.cuda.Stream() for _ in range(2)]
    alone = [render_mesh(vertices, faces, k, 768)[0] for vertices in (people, others)]
    torch.cuda.synchronize()
    together = []
    for i in range(10):
        with torch.cuda.stream(streams[i % 2]):
            together.append(render_mesh((people, others)[i % 2], faces, k, 768)[0])
    torch.cuda.synchronize()
    for i, face in enumerate(together):
        assert (face != alone[i % 2]).float().mean() < 2e-3


def test_an_empty_batch_gives_empty_results(body):
    face, depth = render_mesh(torch.zeros(0, 4, 3), QUAD, torch.zeros(0, 3, 3), 16)
    assert face.shape == depth.shape == (0, 16, 16)


def test_a_mesh_behind_the_camera_is_not_visible():
    face, depth = render_mesh(square(-2.0, 0.3)[None], QUAD, camera(), 16)
    assert (face == -1).all() and (depth == 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertices": torch.zeros(4, 3)}, r"vertices must be \(B, V, 3\)"),
        ({"vertices": torch.zeros(1, 4, 2)}, r"vertices must be \(B, V, 3\)"),
        ({"cam_int": torch.eye(3)}, r"cam_int must be \(1, 3, 3\)"),
        ({"cam_int": torch.zeros(2, 3, 3)}, r"cam_int must be \(1, 3, 3\)"),
        ({"faces": torch.zeros(6, dtype=torch.int64)}, r"faces must be \(F, 3\)"),
        ({"faces": torch.zeros(0, 3, dtype=torch.int64)}, r"faces must be \(F, 3\) with F > 0"),
        ({"faces": QUAD + 1}, "vertices 1 to 4, .* 4"),
        ({"faces": QUAD - 1}, "vertices -1 to 2, .* 4"),
        ({"faces": QUAD + 0.6}, r"faces .*torch\.float32"),
        ({"size": 0}, "0 x 0 pixels"),
        ({"size": 16.0}, "size .* 16.0"),
        ({"size": (16, 16, 3)}, r"size .*\(16, 16, 3\)"),
    ],
)
def test_wrong_arguments_are_refused_by_name(change, message):
    right = {"vertices": square(2.0, 0.3)[None], "faces": QUAD, "cam_int": camera(), "size": 16}
    with pytest.raises(ValueError, match=message):
        render_mesh(**(right | change))


@pytest.mark.parametrize("size", [np.int64(16), [16, 16], torch.Size([16, 16]), (np.int32(16), 16)])
def test_a_size_may_come_from_numpy_or_torch(size):
    face, depth = render_mesh(square(2.0, 0.3)[None], QUAD, camera(), size)
    assert face.shape == depth.shape == (1, 16, 16)


def test_shading_changes_only_the_pixels_of_the_mesh():
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (80, SIZE, 3), dtype=np.uint8)
    before, k = photo.copy(), camera()[0].clone()
    k[1, 2] = 40
    out = shade(square(2.0, 0.3), QUAD, k, photo)
    rays = pixel_rays(k, 80, SIZE) * 2.0
    pixel = 2.0 / 120
    touched = (np.abs(rays[..., :2]) < 0.3 + pixel).all(-1)
    inside = (np.abs(rays[..., :2]) < 0.3 - pixel).all(-1)
    assert out.shape == photo.shape and out.dtype == np.uint8
    np.testing.assert_array_equal(photo, before)
    np.testing.assert_array_equal(out[~touched], photo[~touched])
    # A flat square is evenly lit: nearly one colour, the photograph shining through by 1 - opacity.
    assert out[inside].std(0).max() < 0.1 * photo.std()


def test_of_two_people_the_nearer_is_drawn_whatever_their_order():
    photo = np.full((SIZE, SIZE, 3), 9, np.uint8)
    near, far, k = square(2.0, 0.3), square(4.0, 1.5), camera()[0]
    tilted = far.clone()
    tilted[:2, 2] += 2  # lit otherwise than `near`
    one = shade(torch.stack([near, tilted]), QUAD, k, photo)
    two = shade(torch.stack([tilted, near]), QUAD, k, photo)
    np.testing.assert_array_equal(one, two)
    alone, behind = shade(near, QUAD, k, photo), shade(tilted, QUAD, k, photo)
    inside = (np.abs(pixel_rays(k, SIZE, SIZE)[..., :2]) * 2 < 0.3 - 2 / 120).all(-1)
    outside = (np.abs(pixel_rays(k, SIZE, SIZE)[..., :2]) * 2 > 0.3 + 2 / 120).any(-1)
    np.testing.assert_array_equal(one[inside], alone[inside])
    np.testing.assert_array_equal(one[outside], behind[outside])
    assert (alone[inside] != behind[inside]).any(-1).all()


@pytest.mark.parametrize("distance", [0.0, -2.9], ids=["from afar", "from within"])
def test_the_face_that_embree_finds_is_lit_by_its_interpolated_normal(body, distance):
    import trimesh

    vertices = posed_people(body, 1)[0] + torch.tensor([0.0, 0.0, distance])
    k, color, opacity = camera(focal=200)[0], np.array([0.3, 0.5, 0.9]), 0.8
    photo = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    drawn = shade(vertices, body.faces, k, photo, tuple(color), opacity, samples=1)

    mesh = trimesh.Trimesh(vertices.numpy(), body.faces.numpy(), process=False)
    rays = pixel_rays(k, SIZE, SIZE).reshape(-1, 3)
    face = mesh.ray.intersects_first(np.zeros_like(rays), rays)
    hit = face >= 0
    _, weights, _ = plane_depth_and_weights(mesh.triangles[face[hit]], rays[hit])
    area_weighted = np.zeros_like(mesh.vertices)
    for corner in range(3):
        np.add.at(area_weighted, mesh.faces[:, corner], mesh.face_normals * mesh.area_faces[:, None])
    area_weighted /= np.linalg.norm(area_weighted, axis=1, keepdims=True)
    normal = (weights[..., None] * area_weighted[mesh.faces[face[hit]]]).sum(1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    light = 0.18
    for towards, power in (((-0.5, -0.6, -0.7), 0.75), ((0.8, -0.1, -0.5), 0.25), ((0.0, -1.0, 0.1), 0.2)):
        light = light + power * np.maximum(normal @ (np.array(towards) / np.linalg.norm(towards)), 0)
    lit = 255 * np.minimum(light[:, None] * color, 1) ** (1 / 2.2)
    expected = photo.reshape(-1, 3).astype(float)
    expected[hit] += opacity * (lit - expected[hit])
    wrong = np.abs(drawn.reshape(-1, 3) - expected).max(-1) > 1
    assert hit.mean() > 0.1 and wrong.mean() < 1e-3  # on edges, either face may be the one


def test_a_floor_that_extends_behind_the_camera_is_shaded_up_to_the_horizon():
    floor = torch.tensor([[-50.0, 1, -50], [50, 1, -50], [50, 1, 50], [-50, 1, 50]])
    photo = np.full((SIZE, SIZE, 3), 7, np.uint8)
    drawn = (shade(floor, QUAD, camera()[0], photo, samples=1) != photo).any(-1)
    down = pixel_rays(camera()[0], SIZE, SIZE)[..., 1]
    np.testing.assert_array_equal(drawn, down > 1 / 50)


def test_a_face_seen_exactly_from_the_side_is_not_drawn():
    side, k = square(2.0, 0.3)[:, [2, 1, 0]] + torch.tensor([-2.0, 0.0, 2.0]), camera()[0].clone()
    k[0, 2] = 16.5  # the rays of a column of pixels lie in its plane
    photo = np.full((SIZE, SIZE, 3), 7, np.uint8)
    np.testing.assert_array_equal(shade(side, QUAD, k, photo, samples=1), photo)


def test_a_large_picture_is_shaded_in_pieces_of_bounded_size(body, monkeypatch):
    vertices, k = posed_people(body, 1)[0], camera(focal=150)[0]
    photo = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    expected = shade(vertices, body.faces, k, photo)
    shade_part, drawn_samples = shading._shade_part, []

    def counted(mesh, cam_int, image, opacity, samples):
        drawn_samples.append(image.shape[0] * image.shape[1] * samples**2)
        return shade_part(mesh, cam_int, image, opacity, samples)

    monkeypatch.setattr(shading, "_shade_part", counted)
    monkeypatch.setattr(shading, "_SAMPLES_AT_ONCE", 5000)
    drawn = shade(vertices, body.faces, k, photo)
    # and not beside the person
    assert max(drawn_samples) <= 5000 < sum(drawn_samples) < 0.8 * 4 * SIZE * SIZE
    assert (drawn != expected).any(-1).mean() < 1e-3  # a sample on an edge
    assert (expected != photo).any(-1).mean() > 0.1


def test_edges_are_not_smoothed_where_the_mesh_covers_very_many_pixels(body, monkeypatch):
    vertices, photo = posed_people(body, 1)[0], np.full((SIZE, SIZE, 3), 7, np.uint8)
    smooth, rough = (shade(vertices, body.faces, camera()[0], photo, samples=n) for n in (2, 1))
    assert (smooth != rough).any()
    monkeypatch.setattr(shading, "_LARGE", 100)
    np.testing.assert_array_equal(shade(vertices, body.faces, camera()[0], photo), rough)


@pytest.mark.parametrize("place", ["beside", "behind", "around"])
def test_people_partly_outside_the_picture_are_shaded_inside_it(body, place):
    vertices = posed_people(body, 1)[0]
    move = {"beside": [9.0, 0, 0], "behind": [0, 0, -9.0], "around": [0, 0, -3.0]}[place]
    vertices, photo = vertices + torch.tensor(move), np.full((40, 60, 3), 7, np.uint8)
    k = camera(size=60)
    face, _ = render_mesh(vertices[None], body.faces, k, (40, 60))
    assert (face >= 0).any() == (place == "around")
    drawn = shade(vertices, body.faces, k[0], photo, samples=1)
    np.testing.assert_array_equal((drawn != photo).any(-1), face[0].numpy() >= 0)


def test_without_people_the_picture_is_returned_unchanged(body):
    photo = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    drawn = shade(torch.zeros(0, body.num_vertices, 3), body.faces, camera()[0], photo)
    np.testing.assert_array_equal(drawn, photo)
    assert drawn is not photo


def test_shading_refuses_pictures_that_are_not_rgb_bytes():
    with pytest.raises(ValueError, match="uint8"):
        shade(square(2.0, 0.3), QUAD, camera()[0], np.zeros((8, 8, 3), np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertices": torch.zeros(4, 2)}, r"vertices must be \(B, V, 3\)"),
        ({"cam_int": torch.eye(2)}, r"cam_int must be \(1, 3, 3\)"),
        ({"faces": QUAD + 1}, "vertices 1 to 4, .* 4"),
        ({"faces": QUAD[:0]}, r"faces must be \(F, 3\) with F > 0"),
    ],
)
def test_shading_refuses_the_arguments_that_rendering_refuses(change, message):
    right = {"vertices": square(2.0, 0.3), "faces": QUAD, "cam_int": camera()[0]}
    with pytest.raises(ValueError, match=message):
        shade(**(right | change), image=np.zeros((8, 8, 3), np.uint8))


def test_importing_and_rendering_print_nothing():
    program = (
        "import torch, dpose.render as r, dpose.synthetic\n"
        "r.render_mesh(torch.tensor([[[0., 0, 2], [1, 0, 2], [0, 1, 2]]]), torch.tensor([[0, 1, 2]]), "
        "torch.eye(3)[None], 8)\n"
        "import os; os.write(2, b'still open')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "still open")
