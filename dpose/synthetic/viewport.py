"""A scene as pixels: its meshes and colours in Warp's memory, and viewports rendered from them. CPU only."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import warp as wp

from dpose.data.sample import crop_matrix
from dpose.synthetic import raytrace
from dpose.synthetic.people import figure
from dpose.synthetic.scene import IMAGE_SIZE, LOW, Scene
from dpose.synthetic.textures import textures

_people_meshes: dict[int, wp.Mesh] = {}


@cache
def _constants() -> dict[str, Any]:
    f = figure()
    return {
        "rest": wp.array(f.rest, dtype=wp.vec3, device="cpu"),
        "tones": wp.array(f.tones, dtype=wp.vec3, device="cpu"),
        "bank": wp.array(textures(), dtype=wp.vec3ub, device="cpu"),
    }


def _people_mesh(vertices: np.ndarray) -> wp.Mesh:
    """The mesh of N people with (N, P, 3) vertices; the same object for the same N, so the last call wins."""
    count, each = vertices.shape[:2]
    if count not in _people_meshes:
        # The tree is built on T-poses 3 m apart: it follows limbs and people, not one scene's accidents.
        apart = figure().template[figure().body] + 3.0 * np.arange(count)[:, None, None] * [1, 0, 0]
        faces = np.concatenate([figure().faces + k * each for k in range(count)]).astype(np.int32)
        _people_meshes[count] = wp.Mesh(
            wp.array(apart.reshape(-1, 3), dtype=wp.vec3, device="cpu"),
            wp.array(faces.flatten(), dtype=wp.int32, device="cpu"),
        )
    mesh = _people_meshes[count]
    wp.copy(mesh.points, wp.array(vertices.reshape(-1, 3).astype(np.float32), dtype=wp.vec3, device="cpu"))
    mesh.refit()
    return mesh


class View(NamedTuple):
    """What a viewport shows, pixel by pixel; see `SceneRenderer.render`."""

    image: np.ndarray
    person: np.ndarray
    depth: np.ndarray
    skin: np.ndarray


class SceneRenderer:
    """A scene in the renderer's memory. One at a time in a process: the next one takes its trees over.

    Rendering one whose time is over raises RuntimeError.
    """

    _latest: "SceneRenderer | None" = None

    def __init__(self, scene: Scene) -> None:
        SceneRenderer._latest = self
        self.scene = scene
        constants = _constants()
        mesh = _people_mesh(scene.vertices)
        count, each = scene.vertices.shape[:2]
        normals = wp.zeros(count * each, dtype=wp.vec3, device="cpu")
        indices = mesh.indices.reshape((-1, 3))
        wp.launch(raytrace.normals_kernel, len(indices), inputs=[mesh.points, indices, normals], device="cpu")
        vertices, faces, uv, smooth, color, texture = scene.props.gathered()
        self.prop_mesh = wp.Mesh(
            wp.array(vertices, dtype=wp.vec3, device="cpu"),
            wp.array(faces.flatten(), dtype=wp.int32, device="cpu"),
        )
        world = raytrace.World()
        world.people, world.props = mesh.id, self.prop_mesh.id
        world.num_people, world.vertices_each, world.faces_each = count, each, len(figure().faces)
        world.num_spheres = len(scene.spheres)
        world.num_low = int(np.count_nonzero(scene.spheres[:, 1] - scene.spheres[:, 3] < LOW))
        for name, value in scene.world.items():
            if isinstance(value, np.ndarray):
                value = wp.vec3(*[float(v) for v in value])
            elif isinstance(value, tuple):
                value = wp.vec4(*[float(v) for v in value])
            setattr(world, name, value)
        wears = []
        for outfit in scene.outfits:
            wear = raytrace.Wear()
            for name, value in outfit.wear.items():
                setattr(
                    wear,
                    name,
                    wp.vec3(*[float(v) for v in value]) if isinstance(value, np.ndarray) else value,
                )
            wears.append(wear)
        self.mesh = mesh
        self.world = world
        self.arrays = [
            constants["rest"],
            constants["tones"],
            wp.array(scene.fields.reshape(-1, 4), dtype=wp.vec4, device="cpu"),
            normals,
            wp.array(wears, dtype=raytrace.Wear, device="cpu"),
            wp.array(uv, dtype=wp.vec2, device="cpu"),
            wp.array(smooth, dtype=wp.vec3, device="cpu"),
            wp.array(color, dtype=wp.vec4, device="cpu"),
            wp.array(texture, dtype=wp.int32, device="cpu"),
            wp.array(scene.spheres, dtype=wp.vec4, device="cpu"),
            constants["bank"],
        ]

    def render(
        self, cam_int: np.ndarray, height: int, width: int, border: tuple[float, ...], grid: int
    ) -> View:
        """One viewport of the scene's camera.

        cam_int: (3, 3) of the viewport, px. border: left, top, right, bottom of the full image in the
        viewport's pixels; black outside. grid: rays along a side of the pixels that need anti-aliasing.
        Returns image (H, W, 3) uint8 RGB; person (H, W) int8, -1 none; depth along z (H, W) float32 metres
        of whatever is seen, 0 outside the border; skin (H, W) bool: whether it is bare skin.
        """
        if SceneRenderer._latest is not self:
            raise RuntimeError("a later SceneRenderer(scene) has taken this scene's place; prepare it again")
        scene = self.scene
        camera = raytrace.camera_struct(cam_int, scene.rotation, scene.translation, border)
        shape = (height, width)
        image, person = np.empty((*shape, 3), np.uint8), np.empty(shape, np.int8)
        depth = np.empty(shape, np.float32)
        color = wp.empty(shape, dtype=wp.vec3, device="cpu")
        surface = wp.empty(shape, dtype=wp.int32, device="cpu")
        borrowed = [
            wp.array(array, dtype=dtype, device="cpu", copy=False)
            for array, dtype in ((image, wp.vec3ub), (person, wp.int8), (depth, wp.float32))
        ]
        seed = (scene.seed[0] * 7919 + scene.seed[2] * 31 + scene.seed[1]) % 2**30
        first = [self.world, camera, seed, *self.arrays, color, surface, *borrowed[1:]]
        wp.launch(raytrace.see_kernel, shape, inputs=first, device="cpu")
        second = [self.world, camera, seed, grid, color, surface, *self.arrays, borrowed[0]]
        wp.launch(raytrace.smooth_kernel, shape, inputs=second, device="cpu")
        what = surface.numpy()
        skin = (
            (what >= raytrace.PERSON)
            & (what < raytrace.PROP)
            & ((what - raytrace.PERSON) % raytrace.LAYERS == 0)
        )
        return View(image, person, depth, skin)

    def frame(self, grid: int = 3) -> View:
        """The full 1280x720 picture."""
        width, height = IMAGE_SIZE
        return self.render(self.scene.cam_int, height, width, (0, 0, width, height), grid)

    def crop(self, center, scale: float, size: int, margin: float, grid: int = 2) -> View:
        """A square cut of `size` pixels of the box (center (2,) px, scale) times `margin`."""
        matrix = crop_matrix(center, scale, size, margin)
        cam_int = np.concatenate([matrix, [[0, 0, 1]]]) @ self.scene.cam_int
        corners = matrix @ np.array([[0, IMAGE_SIZE[0]], [0, IMAGE_SIZE[1]], [1, 1]])
        return self.render(cam_int, size, size, (*corners[:, 0], *corners[:, 1]), grid)
