"""Pictures of a scene: uploads its meshes and colours to Warp and renders viewports of it. CPU only."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import warp as wp

from dpose.body import load_body
from dpose.data.sample import crop_matrix
from dpose.synthetic import rasterize, raytrace
from dpose.synthetic.people import COARSE, figure
from dpose.synthetic.scene import LOW, Scene
from dpose.synthetic.textures import textures
from dpose.synthetic.variety import PLAIN

DEVICE = "cpu"
CROP_GRID, FRAME_GRID = 2, 3  # rays along a side of an anti-aliased pixel
SHADOW_SIZE = 384  # side of a shadow map, pixels
LIGHT_DISTANCE, FAR_SHADOWS = 150.0, 25.0  # metres: of the light, and around the people
COARSE_PIXEL = 0.8 * COARSE  # metres; people with larger pixels are drawn with coarse faces
REACH = 0.4  # metres; no body, clothes included, is farther from its joints

_people_meshes: dict[int, wp.Mesh] = {}


class View(NamedTuple):
    """A rendered viewport of H x W pixels."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    person: np.ndarray  # (H, W) int8 index of the visible person, -1 for none
    depth: np.ndarray  # (H, W) float32, z of the visible surface in metres, 0 outside the full image
    surface: np.ndarray  # (H, W) int32 ids of the visible surface, see `raytrace`

    @property
    def skin(self) -> np.ndarray:
        """(H, W) bool, whether bare skin is visible."""
        layer = self.surface - raytrace.PERSON
        return (layer >= 0) & (layer < raytrace.PROP - raytrace.PERSON) & (layer % raytrace.LAYERS == 0)


class SceneRenderer:
    """Renders viewports of a scene. Only the newest renderer of a process works: they share the mesh of the
    people, and older ones raise RuntimeError.
    """

    _latest: "SceneRenderer | None" = None

    def __init__(self, scene: Scene) -> None:
        SceneRenderer._latest = self
        self.scene = scene
        # Scenes without variety are ray-traced: their pictures stay those of earlier versions.
        self.drawn = scene.options.variety != PLAIN
        vertices, faces, uv, normals, color, texture = scene.props.gathered()
        self.people, self.props = _array(scene.vertices.reshape(-1, 3), wp.vec3), _array(vertices, wp.vec3)
        surfaces, count = raytrace.Surfaces(), len(scene.vertices)
        surfaces.people, surfaces.props = _people_faces(count), _array(faces.flatten(), wp.int32)
        self.meshes = []
        if not self.drawn:
            self.meshes = [_people_mesh(count, self.people), wp.Mesh(self.props, surfaces.props)]
        self.world = self._world()
        surfaces.rest, surfaces.tones, surfaces.bank = _shared_arrays()
        surfaces.fields = _array(scene.fields.reshape(-1, 4), wp.vec4)
        surfaces.normals = _vertex_normals(self.people, surfaces.people[: 3 * count * len(figure().faces)])
        wears = [_fill(raytrace.Wear(), outfit.wear) for outfit in scene.outfits]
        surfaces.wears = wp.array(wears, dtype=raytrace.Wear, device=DEVICE)
        surfaces.prop_uv, surfaces.prop_normal = _array(uv, wp.vec2), _array(normals, wp.vec3)
        surfaces.prop_color, surfaces.prop_texture = _array(color, wp.vec4), _array(texture, wp.int32)
        surfaces.spheres = _array(scene.spheres, wp.vec4)
        self.surfaces = surfaces
        if self.drawn:
            self._map_shadows()

    def _world(self) -> raytrace.World:
        spheres = self.scene.spheres
        world = _fill(raytrace.World(), self.scene.world)
        world.people, world.props = [mesh.id for mesh in self.meshes] or (0, 0)
        world.vertices_each = self.scene.vertices.shape[1]
        world.num_spheres = len(spheres)
        world.num_low = int(np.count_nonzero(spheres[:, 1] - spheres[:, 3] < LOW))
        return world

    def frame(self) -> View:
        """The full picture."""
        width, height = self.scene.size
        return self._render(self.scene.cam_int, height, width, (0, 0, width, height), FRAME_GRID)

    def crop(
        self, center, scale: float, size: int, margin: float, person: int = 0, least: float = 0
    ) -> View | None:
        """A square crop of `size` pixels: the box with centre (2,) in pixels and `scale`, times `margin`.

        None if fewer than `least` pixels show the person.
        """
        cam_int, border = self._cut(center, scale, size, margin)
        if self.drawn:
            return self._draw(cam_int, size, border, person, least)
        view = self._render(cam_int, size, size, border, CROP_GRID)
        return view if np.count_nonzero(view.person == person) >= least else None

    def silhouettes(self, center, scale: float, size: int, margin: float) -> np.ndarray:
        """(size, size) int8: the visible person, -1 for none, in a square crop as `crop` takes it."""
        cam_int, border = self._cut(center, scale, size, margin)
        camera = raytrace.camera_struct(cam_int, self.scene.rotation, self.scene.translation, border)
        keys = self._keys(camera, self._in_view(cam_int, size), size, 0)
        return self._persons(keys, size, 0)

    def _persons(self, keys: wp.array, size: int, corners: int) -> np.ndarray:
        """Index of the visible person, -1 for none, (size, size) int8."""
        person = wp.empty((size, size), dtype=wp.int8, device=DEVICE)
        inputs = [self.surfaces, self.world.vertices_each, raytrace.WORN, corners, keys, person]
        _launch(rasterize.person_kernel, (size, size), *inputs)
        return person.numpy()

    def parts(self, k: int, center, scale: float, size: int, margin: float) -> np.ndarray:
        """Part labels (size, size) uint8 of person `k` alone, without clothes, as `label_part_targets`."""
        cam_int, _ = self._cut(center, scale, size, margin)
        everywhere = (0.0, 0.0, float(size), float(size))
        camera = raytrace.camera_struct(cam_int, self.scene.rotation, self.scene.translation, everywhere)
        keys, points = _no_keys(size, 0), _array(self.scene.bare[k], wp.vec3)
        _draw_faces(camera, points, _faces(False), 0, 0, 1, keys)
        part = wp.empty((size, size), dtype=wp.uint8, device=DEVICE)
        inputs = [camera, points, _faces(False), _part_of_vertex(), keys, part]
        _launch(rasterize.part_kernel, part.shape, *inputs)
        return part.numpy()

    def _cut(self, center, scale: float, size: int, margin: float) -> tuple[np.ndarray, tuple[float, ...]]:
        """Intrinsics (3, 3) of a square crop and the border of the full image, as `_render` takes them."""
        matrix = crop_matrix(center, scale, size, margin)
        cam_int = np.concatenate([matrix, [[0, 0, 1]]]) @ self.scene.cam_int
        width, height = self.scene.size
        corners = matrix @ np.array([[0, width], [0, height], [1, 1]])
        return cam_int, (*corners[:, 0], *corners[:, 1])

    def _render(
        self, cam_int: np.ndarray, height: int, width: int, border: tuple[float, ...], grid: int
    ) -> View:
        """A viewport of the scene's camera.

        cam_int: (3, 3) intrinsics of the viewport, pixels. border: left, top, right, bottom of the full image
        in pixels of the viewport; black outside. grid: rays along a side of an anti-aliased pixel.
        """
        if SceneRenderer._latest is not self:
            raise RuntimeError("a later SceneRenderer replaced this scene's mesh; make a new one")
        scene, shape = self.scene, (height, width)
        camera = raytrace.camera_struct(cam_int, scene.rotation, scene.translation, border)
        image, person, depth, surface, color = _pictures(shape)
        common = [self.world, self.surfaces, camera, _noise_seed(scene)]
        _launch(raytrace.trace_kernel, shape, *common, color, surface, person, depth)
        _launch(raytrace.antialias_kernel, shape, *common, grid, color, surface, image)
        return View(image.numpy(), person.numpy(), depth.numpy(), surface.numpy())

    def _draw(
        self, cam_int: np.ndarray, size: int, border: tuple[float, ...], who: int, least: float
    ) -> View | None:
        """As `_render`, by drawing the faces (`rasterize`): faster, of the same surfaces."""
        camera = raytrace.camera_struct(cam_int, self.scene.rotation, self.scene.translation, border)
        keys = self._keys(camera, self._in_view(cam_int, size), size, 1)
        if np.count_nonzero(self._persons(keys, size, 1) == who) < least:
            return None
        shape, corners = (size, size), (size + 1, size + 1)
        image, person, depth, surface, color = _pictures(shape)
        world, surfaces, seed = self.world, self.surfaces, _noise_seed(self.scene)
        common = [world, surfaces, self.people, self.props, camera, seed, keys]
        _launch(rasterize.shade_kernel, shape, *common, color, surface, person, depth)
        wanted = wp.zeros(corners, dtype=wp.uint8, device=DEVICE)
        corner = wp.empty(corners, dtype=wp.vec3, device=DEVICE)
        _launch(rasterize.edge_kernel, shape, color, surface, wanted)
        _launch(rasterize.corner_kernel, corners, *common, wanted, corner)
        _launch(rasterize.blend_kernel, shape, color, surface, wanted, corner, image)
        return View(image.numpy(), person.numpy(), depth.numpy(), surface.numpy())

    def _keys(self, camera: raytrace.Camera, pixels: np.ndarray, size: int, corners: int) -> wp.array:
        """The visible faces of the samples of a viewport, of props and some people.

        pixels: (N,) size of a pixel in metres at each person, 0 for people who are not drawn.
        """
        keys = _no_keys(size, corners)
        f, (count, vertices) = figure(), self.scene.vertices.shape[:2]
        for k in np.flatnonzero(pixels):
            coarse = pixels[k] > COARSE_PIXEL
            first = count * len(f.faces) + k * len(f.coarse) if coarse else k * len(f.faces)
            points = self.people[k * vertices : (k + 1) * vertices]
            _draw_faces(camera, points, _faces(coarse), int(first), corners, 1, keys)
        _draw_faces(camera, self.props, self.surfaces.props, rasterize.PROP_KEY, corners, 0, keys)
        return keys

    def _map_shadows(self) -> None:
        """Draw the scene as the light sees it: around the people, and props of a wider region."""
        scene, sun = self.scene, self.scene.world["sun"]
        middle, reach = np.array(scene.world["influence"][:3]), scene.world["influence"][3] - 0.6
        side = np.cross(sun, [0.0, 0.0, 1.0] if abs(sun[1]) > 0.9 else [0.0, 1.0, 0.0])
        side /= np.linalg.norm(side)
        rotation = np.stack([side, np.cross(-sun, side), -sun])
        translation = -rotation @ (middle + sun * LIGHT_DISTANCE)
        everyone = np.ones(len(scene.vertices))
        for name, radius, people in (("near", reach, everyone), ("far", FAR_SHADOWS, 0 * everyone)):
            focal = SHADOW_SIZE / 2 * LIGHT_DISTANCE / radius
            cam_int = np.array([[focal, 0, SHADOW_SIZE / 2], [0, focal, SHADOW_SIZE / 2], [0, 0, 1]])
            border = (0.0, 0.0, SHADOW_SIZE, SHADOW_SIZE)
            camera = raytrace.camera_struct(cam_int, rotation, translation, border)
            setattr(self.world, f"shadow_{name}", camera)
            setattr(self.surfaces, f"shadow_{name}", self._keys(camera, people, SHADOW_SIZE, 0))
        self.world.shadows = 1

    def _in_view(self, cam_int: np.ndarray, size: int) -> np.ndarray:
        """(N,) size of a pixel in metres at each person, 0 for people who cannot be visible in a viewport."""
        points = self.scene.joints @ self.scene.rotation.T + self.scene.translation
        z = np.maximum(points[..., 2], 0.1)
        reach = REACH * cam_int[0, 0] / z
        x, y = (points[..., i] / z * cam_int[i, i] + cam_int[i, 2] for i in (0, 1))
        inside = (x > -reach) & (x < size + reach) & (y > -reach) & (y < size + reach)
        visible = (inside & (points[..., 2] > -REACH)).any(1)
        return np.where(visible, z.min(1) / cam_int[0, 0], 0)


def _launch(kernel: wp.Kernel, shape: int | tuple[int, ...], *arguments: Any) -> None:
    wp.launch(kernel, shape, inputs=list(arguments), device=DEVICE)


def _noise_seed(scene: Scene) -> int:
    return (scene.seed[0] * 7919 + scene.seed[2] * 31 + scene.seed[1]) % 2**30


def _pictures(shape: tuple[int, int]) -> list[wp.array]:
    """Empty arrays for image, person, depth, surface and linear colour."""
    types = (wp.vec3ub, wp.int8, wp.float32, wp.int32, wp.vec3)
    return [wp.empty(shape, dtype=dtype, device=DEVICE) for dtype in types]


def _no_keys(size: int, corners: int) -> wp.array:
    side = 2 * size + 1 if corners else size
    return wp.zeros((side, side), dtype=wp.uint64, device=DEVICE)


def _draw_faces(
    camera: raytrace.Camera,
    points: wp.array,
    indices: wp.array,
    first: int,
    corners: int,
    closed: int,
    keys: wp.array,
) -> None:
    """Draw a mesh into `keys`, see `rasterize.draw_kernel`."""
    projected = wp.empty(len(points), dtype=wp.vec3, device=DEVICE)
    _launch(rasterize.project_kernel, len(points), camera, points, projected)
    inputs = [camera, points, projected, indices, first, corners, closed, keys]
    _launch(rasterize.draw_kernel, len(indices) // 3, *inputs)


@cache
def _part_of_vertex() -> wp.array:
    return _array(load_body("open").part_of_vertex.numpy().astype(np.int32), wp.int32)


def _array(values: np.ndarray, dtype: Any) -> wp.array:
    return wp.array(values, dtype=dtype, device=DEVICE)


@cache
def _shared_arrays() -> tuple[wp.array, wp.array, wp.array]:
    """The T-pose, tones and textures of all scenes."""
    f = figure()
    return _array(f.rest, wp.vec3), _array(f.tones, wp.vec3), _array(textures(), wp.vec3ub)


def _fill(struct: Any, values: dict[str, Any]) -> Any:
    """Set the fields of a Warp struct; arrays become vec3, tuples vec4."""
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            value = wp.vec3(*map(float, value))
        elif isinstance(value, tuple):
            value = wp.vec4(*map(float, value))
        setattr(struct, name, value)
    return struct


@cache
def _faces(coarse: bool) -> wp.array:
    """Corners of the faces, or the coarse faces, of one person."""
    return _array((figure().coarse if coarse else figure().faces).flatten(), wp.int32)


@cache
def _people_faces(count: int) -> wp.array:
    """Corners of the faces of N people, one person after the other, then of the coarse faces."""
    f = figure()
    each = len(f.template[f.body])
    kinds = (f.faces, f.coarse)
    return _array(np.concatenate([a.flatten() + k * each for a in kinds for k in range(count)]), wp.int32)


def _people_mesh(count: int, points: wp.array) -> wp.Mesh:
    """The mesh of N people with these vertices. It is the same object for the same N."""
    if count not in _people_meshes:
        # The tree is built on T-poses 3 m apart: its nodes follow limbs and people, not a scene's contacts.
        f = figure()
        apart = f.template[f.body] + 3.0 * np.arange(count)[:, None, None] * [1, 0, 0]
        _people_meshes[count] = wp.Mesh(
            _array(apart.reshape(-1, 3), wp.vec3), _people_faces(count)[: 3 * count * len(f.faces)]
        )
    mesh = _people_meshes[count]
    wp.copy(mesh.points, points)
    mesh.refit()
    return mesh


def _vertex_normals(points: wp.array, faces: wp.array) -> wp.array:
    """Sums of the normals of each vertex's faces (V,), weighted by area, not normalised."""
    normals = wp.zeros(len(points), dtype=wp.vec3, device=DEVICE)
    indices = faces.reshape((-1, 3))
    _launch(raytrace.normals_kernel, len(indices), points, indices, normals)
    return normals
