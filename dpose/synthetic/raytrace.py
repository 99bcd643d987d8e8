"""Warp kernels that ray-trace, shade and anti-alias every pixel of a viewport of a scene.

A viewport is a pinhole camera: the full 1280x720 frame and the crop of a person are two viewports of the same
scene. Light comes from a sun (or lamp) with shadow rays and from a two-coloured ambient term, which spheres
on the bodies occlude analytically (soft contact shadows on the ground). Nothing here is differentiable.
Colours are linear RGB, lengths metres, the frame is the world's (y up, ground at y = 0).
"""

# ruff: noqa: UP018 (in a kernel, `float(0.0)` declares a variable, `0.0` a constant)

import numpy as np
import warp as wp

from dpose.render import raycast  # noqa: F401 (initialises Warp without its banner)

wp.set_module_options({"fast_math": True, "enable_backward": False})

MIP_SIDE = 256
MIP_LEVELS = 5
MIP_TEXELS = sum((MIP_SIDE >> level) ** 2 for level in range(MIP_LEVELS))

# Texture codes of props: an index into the texture bank, -1 for none. WORN and below are loose wear of person
# p: WORN - 3 p is a dress, WORN - 3 p - 1 a skirt, WORN - 3 p - 2 long hair.
WORN = wp.constant(-10)

# Surface ids: below PERSON the environment, then LAYERS ids per person (skin, shoes, bottom, top, hair), then
# from PROP on the props.
PERSON = wp.constant(8)
LAYERS = wp.constant(5)
PROP = wp.constant(64)

# Cloth patterns and their numbers in the kernel.
_NAMES = "plain stripes pinstripes plaid dots camouflage print blocks logo fabric"
PATTERNS = {name: number for number, name in enumerate(_NAMES.split())}


@wp.struct
class Camera:
    """A viewport."""

    fx: float
    fy: float
    cx: float
    cy: float
    to_world: wp.mat33  # columns: the camera's x, y, z axes in the world
    origin: wp.vec3
    left: float  # borders of the full image in pixels of this viewport; black padding outside
    top: float
    right: float
    bottom: float


@wp.struct
class World:
    """Meshes, light and environment of a scene."""

    people: wp.uint64  # id of the mesh of all people; 0 where nothing is ray-traced
    props: wp.uint64  # id of the mesh of all props
    shadows: int  # 1: shadows come from the maps of `Surfaces`; 0: from rays
    shadow_near: Camera  # cameras of the two maps, at the light
    shadow_far: Camera
    vertices_each: int  # per person
    sun: wp.vec3  # unit vector towards the light
    sun_color: wp.vec3
    sun_size: float
    sky: wp.vec3  # ambient light from above
    bounce: wp.vec3  # ambient light from below
    room: int  # 1: inside a box with floor, walls and ceiling; 0: outdoors
    room_min: wp.vec3
    room_max: wp.vec3
    hair_texture: int
    floor_texture: int
    floor_scale: float
    floor_tint: wp.vec3
    wall_texture: int
    wall_scale: float
    wall_tint: wp.vec3
    ceiling: wp.vec3
    backdrop: int  # texture along the horizon, -1 for none
    backdrop_tint: wp.vec3
    backdrop_height: float
    backdrop_turn: float
    zenith: wp.vec3
    horizon: wp.vec3
    haze: float
    exposure: float
    influence: wp.vec4  # centre and radius of the region where the spheres occlude
    num_spheres: int
    num_low: int  # the first num_low spheres are near the ground; only these occlude it


@wp.struct
class Wear:
    """Colours and patterns of one person."""

    skin: wp.vec3
    hair: wp.vec3
    top: wp.vec3
    top_second: wp.vec3
    top_pattern: int
    top_scale: float
    bottom: wp.vec3
    bottom_second: wp.vec3
    bottom_pattern: int
    bottom_scale: float
    shoe: wp.vec3
    sole: wp.vec3
    inner: wp.vec3
    opening: float  # half width in metres of the front of an open jacket, 0 for none
    shine: float
    fold: float  # tilt of the normals by folds of the cloth, 0 for none
    print_texture: int


@wp.struct
class Surfaces:
    """Attributes of the meshes; V vertices per person, N people, M vertices and T triangles of props."""

    people: wp.array(dtype=int)  # corners of the faces of all people, then of their coarse faces
    props: wp.array(dtype=int)  # corners of the faces of all props
    rest: wp.array(dtype=wp.vec3)  # (V,) place on the T-pose, for cloth patterns
    tones: wp.array(dtype=wp.vec3)  # (V,) factors of the skin colour
    fields: wp.array(dtype=wp.vec4)  # (N V,) signed distances to the borders of top, bottom, shoes, hair
    normals: wp.array(dtype=wp.vec3)  # (N V,) not normalised
    wears: wp.array(dtype=Wear)  # (N,)
    prop_uv: wp.array(dtype=wp.vec2)  # (M,)
    prop_normal: wp.array(dtype=wp.vec3)  # (M,) zero for flat shading
    prop_color: wp.array(dtype=wp.vec4)  # (T,) colour and emission
    prop_texture: wp.array(dtype=int)  # (T,)
    spheres: wp.array(dtype=wp.vec4)  # centre and radius
    bank: wp.array2d(dtype=wp.vec3ub)  # (textures, texels of all mip levels)
    shadow_near: wp.array2d(dtype=wp.uint64)  # keys of `rasterize` around the people
    shadow_far: wp.array2d(dtype=wp.uint64)  # and of the props farther away


@wp.struct
class Found:
    """The first face on a ray: kind 0 none, 1 person, 2 prop; weights of its first two corners."""

    kind: int
    distance: float
    face: int
    u: float
    v: float
    normal: wp.vec3  # of props


@wp.struct
class Hit:
    """What a ray hits: linear colour, distance, surface id, and the person or -1."""

    color: wp.vec3
    distance: float
    surface: int
    person: int


@wp.func
def texel(bank: wp.array2d(dtype=wp.vec3ub), texture: int, offset: int, side: int, x: int, y: int) -> wp.vec3:
    # `side` is a power of two: masking repeats the texture, also below zero.
    c = bank[texture, offset + (y & (side - 1)) * side + (x & (side - 1))]
    return wp.vec3(float(c[0]), float(c[1]), float(c[2])) / 255.0


@wp.func
def sample(bank: wp.array2d(dtype=wp.vec3ub), texture: int, u: float, v: float, footprint: float) -> wp.vec3:
    """Bilinear look-up with repetition, at the mip level whose texel is about `footprint` of the texture."""
    side = int(256)
    offset = int(0)
    level = int(0)
    while level < 4 and footprint * float(side) > 1.5:
        offset += side * side
        side = side >> 1
        level += 1
    x = u * float(side) - 0.5
    y = v * float(side) - 0.5
    x0 = wp.floor(x)
    y0 = wp.floor(y)
    a = x - x0
    b = y - y0
    i = int(x0)
    j = int(y0)
    return (
        texel(bank, texture, offset, side, i, j) * ((1.0 - a) * (1.0 - b))
        + texel(bank, texture, offset, side, i + 1, j) * (a * (1.0 - b))
        + texel(bank, texture, offset, side, i, j + 1) * ((1.0 - a) * b)
        + texel(bank, texture, offset, side, i + 1, j + 1) * (a * b)
    )


@wp.func
def stripe(x: float, duty: float) -> float:
    return wp.where(x - wp.floor(x) < duty, 1.0, 0.0)


@wp.func
def cloth(
    first: wp.vec3,
    second: wp.vec3,
    pattern: int,
    scale: float,
    p: wp.vec3,
    bank: wp.array2d(dtype=wp.vec3ub),
    texture: int,
) -> wp.vec3:
    """Colour of cloth at place `p` of the T-pose (metres)."""
    mix = float(0.0)
    if pattern == 1:
        mix = stripe(p[1] / scale, 0.5)
    elif pattern == 2:
        mix = stripe((p[0] + 0.35 * p[2]) / (0.4 * scale), 0.2)
    elif pattern == 3:
        mix = 0.45 * stripe(p[1] / scale, 0.4) + 0.45 * stripe((p[0] + p[2]) / scale, 0.4)
    elif pattern == 4:
        x = (p[0] + p[2]) / (0.6 * scale)
        y = p[1] / (0.6 * scale)
        x = x - wp.floor(x) - 0.5
        y = y - wp.floor(y) - 0.5
        mix = wp.where(x * x + y * y < 0.07, 1.0, 0.0)
    elif pattern == 5:
        state = wp.rand_init(17)
        n = wp.noise(state, p / (1.4 * scale)) + 0.5 * wp.noise(state, p / (0.6 * scale))
        mix = wp.where(n > 0.08, 1.0, wp.where(n > -0.15, 0.35, 0.0))
    elif pattern == 6:
        # A print of 26 cm on the chest; the rest is plain.
        u = p[0] / 0.26 + 0.5
        v = (1.32 - p[1]) / 0.26 + 0.5
        if p[2] > 0.02 and u > 0.0 and u < 1.0 and v > 0.0 and v < 1.0:
            return sample(bank, texture, u, v, 0.01)
    elif pattern == 7:
        mix = wp.where(p[1] > 1.22, 1.0, 0.0)
    elif pattern == 8:
        # Letters of the second colour on chest and back, their size given by `scale`.
        side = 3.5 * scale
        u = wp.where(p[2] > 0.0, p[0], -p[0]) / side + 0.5
        v = (1.3 - p[1]) / side + 0.5
        if u > 0.0 and u < 1.0 and v > 0.0 and v < 1.0 and wp.abs(p[0]) < 0.2:
            mix = sample(bank, texture, u, v, 0.01)[0]
    elif pattern == 9:
        side = 5.0 * scale
        return wp.cw_mul(first, sample(bank, texture, (p[0] + 0.5 * p[2]) / side, p[1] / side, 0.008) * 1.8)
    return first * (1.0 - mix) + second * mix


@wp.func
def top_cloth(wear: Wear, p: wp.vec3, bank: wp.array2d(dtype=wp.vec3ub), texture: int) -> wp.vec3:
    return cloth(wear.top, wear.top_second, wear.top_pattern, wear.top_scale, p, bank, texture)


@wp.func
def bottom_cloth(wear: Wear, p: wp.vec3, bank: wp.array2d(dtype=wp.vec3ub), texture: int) -> wp.vec3:
    return cloth(wear.bottom, wear.bottom_second, wear.bottom_pattern, wear.bottom_scale, p, bank, texture)


@wp.func
def folded(n: wp.vec3, p: wp.vec3, depth: float) -> wp.vec3:
    """The normal `n`, tilted by folds of the cloth at place `p` of the T-pose (smooth noise)."""
    state = wp.rand_init(41)
    q = wp.vec3(p[0] * 19.0, p[1] * 8.0, p[2] * 19.0)
    turn = wp.vec3(p[0] * 9.0 + p[1] * 14.0, p[1] * 9.0 - p[0] * 6.0, p[2] * 12.0)
    a = wp.noise(state, q)
    b = wp.noise(state, turn + wp.vec3(7.0, 3.0, 5.0))
    c = wp.noise(state, q * 2.1 + wp.vec3(1.0, 11.0, 2.0))
    return wp.normalize(n + wp.vec3(a + 0.5 * c, 0.6 * b - 0.4 * c, b + 0.5 * a) * depth)


@wp.func
def strands(color: wp.vec3, p: wp.vec3, bank: wp.array2d(dtype=wp.vec3ub), texture: int) -> wp.vec3:
    """Colour of hair at place `p` of the T-pose: vertical strands."""
    around = wp.atan2(p[0], p[2] - 0.07)
    streak = sample(bank, texture, around * 1.3, p[1] * 1.5, 0.004)
    return color * (0.45 + 1.3 * streak[0])


@wp.func
def occlusion(p: wp.vec3, n: wp.vec3, spheres: wp.array(dtype=wp.vec4), count: int) -> float:
    """Share of the ambient light at point `p` with normal `n` that the first `count` spheres let through."""
    open = float(1.0)
    for k in range(count):
        s = spheres[k]
        d = wp.vec3(s[0], s[1], s[2]) - p
        l2 = wp.dot(d, d) + 1.0e-6
        r2 = s[3] * s[3]
        if l2 < 20.0 * r2:
            cosine = wp.dot(n, d) / wp.sqrt(l2)
            if cosine > 0.0:
                open = open * (1.0 - 0.85 * wp.min(cosine * r2 / wp.max(l2, r2), 1.0))
    return open


@wp.func
def backdrop(world: World, ray: wp.vec3, bank: wp.array2d(dtype=wp.vec3ub), footprint: float) -> wp.vec3:
    """Background of outdoor scenes: sky, and a textured strip above the horizon."""
    up = wp.clamp(ray[1], 0.0, 1.0)
    color = world.horizon + (world.zenith - world.horizon) * wp.sqrt(up)
    turn = wp.atan2(ray[0], ray[2]) * 0.31831 * 2.0 + world.backdrop_turn
    height = ray[1] / world.backdrop_height
    if world.backdrop >= 0 and height < 1.0:
        fold = turn - 2.0 * wp.floor(0.5 * turn)  # mirrored repetition, without a seam
        fold = wp.where(fold > 1.0, 2.0 - fold, fold)
        photo = sample(bank, world.backdrop, fold, 1.0 - height, footprint * 1.5)
        blend = wp.clamp((photo[0] + photo[1] + photo[2]) * 8.0, 0.0, 1.0)  # black is transparent
        photo = wp.cw_mul(photo, world.backdrop_tint)
        color = color * (1.0 - blend) + (photo * (1.0 - world.haze) + world.horizon * world.haze) * blend
    return color


@wp.func
def lit(
    camera: Camera, keys: wp.array2d(dtype=wp.uint64), p: wp.vec3, n: wp.vec3, texel_size: float
) -> float:
    """Share of the light that reaches a place by a shadow map, -1 outside of the map."""
    q = wp.transpose(camera.to_world) * (p + n * (1.5 * texel_size) - camera.origin)
    x = q[0] * camera.fx / q[2] + camera.cx - 0.5
    y = q[1] * camera.fy / q[2] + camera.cy - 0.5
    if x < 0.0 or y < 0.0 or x > float(keys.shape[1] - 2) or y > float(keys.shape[0] - 2):
        return -1.0
    j = int(x)
    i = int(y)
    a = x - float(j)
    b = y - float(i)
    nearest = 1.0 / (q[2] - texel_size)
    share = float(0.0)
    for k in range(4):
        inverse = wp.cast(wp.uint32(keys[i + k / 2, j + k % 2] >> wp.uint64(32)), wp.float32)
        if inverse < nearest:
            share += wp.where(k / 2 == 0, 1.0 - b, b) * wp.where(k % 2 == 0, 1.0 - a, a)
    return share


@wp.func
def mapped_sunlight(world: World, surfaces: Surfaces, p: wp.vec3, n: wp.vec3) -> float:
    """As `sunlight`, by the shadow maps."""
    cosine = wp.dot(n, world.sun)
    if cosine <= 0.0:
        return 0.0
    distance = wp.length(p - world.shadow_near.origin)
    share = lit(world.shadow_near, surfaces.shadow_near, p, n, distance / world.shadow_near.fx)
    if share < 0.0:
        share = lit(world.shadow_far, surfaces.shadow_far, p, n, distance / world.shadow_far.fx)
    return cosine * wp.where(share < 0.0, 1.0, share)


@wp.func
def sunlight(world: World, p: wp.vec3, n: wp.vec3, state: wp.uint32) -> float:
    """Cosine to a random point of the sun, 0 in shadow; the sun's size gives soft shadows."""
    jitter = wp.sample_unit_sphere(state) * world.sun_size
    to_sun = wp.normalize(world.sun + jitter)
    cosine = wp.dot(n, to_sun)
    if cosine <= 0.0:
        return 0.0
    start = p + n * 0.006
    if wp.mesh_query_ray_anyhit(world.people, start, to_sun, 30.0):
        return 0.0
    if wp.mesh_query_ray_anyhit(world.props, start, to_sun, 30.0):
        return 0.0
    return cosine


@wp.func
def find(world: World, origin: wp.vec3, ray: wp.vec3) -> Found:
    """The first face of people and props on a ray."""
    out = Found()
    out.distance = float(1.0e4)
    hit = wp.mesh_query_ray(world.people, origin, ray, out.distance)
    if hit.result:
        out.kind = 1
        out.distance = hit.t
        out.face = hit.face
        out.u = hit.u
        out.v = hit.v
    other = wp.mesh_query_ray(world.props, origin, ray, out.distance)
    if other.result:
        out.kind = 2
        out.distance = other.t
        out.face = other.face
        out.u = other.u
        out.v = other.v
        out.normal = other.normal
    return out


@wp.func
def shade(
    world: World,
    surfaces: Surfaces,
    origin: wp.vec3,
    ray: wp.vec3,
    hit: Found,
    spread: float,
    state: wp.uint32,
) -> Hit:
    """The colour of the first surface on a ray. spread: width of a pixel at distance 1, for textures."""
    out = Hit()
    best = hit.distance
    kind = hit.kind  # from here also 3 floor, 4 wall, 5 ceiling
    albedo = wp.vec3(0.0, 0.0, 0.0)
    n = wp.vec3(0.0, 1.0, 0.0)
    gloss = float(0.0)
    emission = float(0.0)
    if ray[1] < -1.0e-5:
        t = -origin[1] / ray[1]
        if t > 0.0 and t < best:
            best = t
            kind = 3
    if world.room == 1:
        if ray[1] > 1.0e-5:
            t = (world.room_max[1] - origin[1]) / ray[1]
            if t < best:
                best = t
                kind = 5
                n = wp.vec3(0.0, -1.0, 0.0)
        if wp.abs(ray[0]) > 1.0e-5:
            t = (wp.where(ray[0] > 0.0, world.room_max[0], world.room_min[0]) - origin[0]) / ray[0]
            if t < best:
                best = t
                kind = 4
                n = wp.vec3(-wp.sign(ray[0]), 0.0, 0.0)
        if wp.abs(ray[2]) > 1.0e-5:
            t = (wp.where(ray[2] > 0.0, world.room_max[2], world.room_min[2]) - origin[2]) / ray[2]
            if t < best:
                best = t
                kind = 4
                n = wp.vec3(0.0, 0.0, -wp.sign(ray[2]))
    p = origin + ray * best
    footprint = spread * best
    out.distance = best
    out.surface = kind
    out.person = -1

    if kind == 0:
        out.color = backdrop(world, ray, surfaces.bank, spread)
        return out
    if kind == 1:
        i0 = surfaces.people[hit.face * 3]
        person = i0 / world.vertices_each
        out.person = person
        layer = int(0)  # 0 skin, 1 shoe, 2 bottom, 3 top, 4 hair
        base = person * world.vertices_each
        i1 = surfaces.people[hit.face * 3 + 1]
        i2 = surfaces.people[hit.face * 3 + 2]
        a = hit.u
        b = hit.v
        c = 1.0 - a - b
        n = wp.normalize(surfaces.normals[i0] * a + surfaces.normals[i1] * b + surfaces.normals[i2] * c)
        field = surfaces.fields[i0] * a + surfaces.fields[i1] * b + surfaces.fields[i2] * c
        r = surfaces.rest[i0 - base] * a + surfaces.rest[i1 - base] * b + surfaces.rest[i2 - base] * c
        wear = surfaces.wears[person]
        tone = surfaces.tones[i0 - base] * a + surfaces.tones[i1 - base] * b + surfaces.tones[i2 - base] * c
        albedo = wp.cw_mul(wear.skin, tone)
        gloss = 0.06
        if field[2] > 0.0:
            layer = 1
            albedo = wear.shoe
            if r[1] < 0.02:
                albedo = wear.sole
            gloss = 0.08
        if field[1] > 0.0:
            layer = 2
            albedo = bottom_cloth(wear, r, surfaces.bank, wear.print_texture)
            gloss = 0.0
        if field[0] > 0.0:
            layer = 3
            albedo = top_cloth(wear, r, surfaces.bank, wear.print_texture)
            gloss = wear.shine
            if wear.opening > 0.0 and r[2] > 0.0 and wp.abs(r[0]) < wear.opening:
                albedo = wear.inner
        if field[3] > 0.0:
            layer = 4
            albedo = strands(wear.hair, r, surfaces.bank, world.hair_texture)
            gloss = 0.1
        if wear.fold > 0.0 and (layer == 2 or layer == 3):
            n = folded(n, r, wear.fold)
        out.surface = PERSON + person * LAYERS + layer
    elif kind == 2:
        n = hit.normal
        j0 = surfaces.props[hit.face * 3]
        j1 = surfaces.props[hit.face * 3 + 1]
        j2 = surfaces.props[hit.face * 3 + 2]
        a = hit.u
        b = hit.v
        c = 1.0 - a - b
        uv = surfaces.prop_uv[j0] * a + surfaces.prop_uv[j1] * b + surfaces.prop_uv[j2] * c
        tint = surfaces.prop_color[hit.face]
        albedo = wp.vec3(tint[0], tint[1], tint[2])
        emission = tint[3]
        texture = surfaces.prop_texture[hit.face]
        out.surface = PROP + hit.face / 2
        if texture <= WORN:
            n = surfaces.prop_normal[j0] * a + surfaces.prop_normal[j1] * b + surfaces.prop_normal[j2] * c
            n = wp.normalize(n)
            out.person = (WORN - texture) / 3
            wear = surfaces.wears[out.person]
            place = wp.vec3(uv[0], uv[1], 0.0)
            if wear.fold > 0.0:
                n = folded(n, place, wear.fold)
            what = (WORN - texture) % 3
            if what == 0:
                albedo = top_cloth(wear, place, surfaces.bank, wear.print_texture)
            elif what == 1:
                albedo = bottom_cloth(wear, place, surfaces.bank, wear.print_texture)
            else:
                place = wp.vec3(wp.sin(uv[0] * 5.0), uv[1], wp.cos(uv[0] * 5.0)) * 0.15
                albedo = strands(wear.hair, place, surfaces.bank, world.hair_texture)
                gloss = 0.1
        if texture == -1 and wp.dot(surfaces.prop_normal[j0], surfaces.prop_normal[j0]) > 0.0:
            n = wp.normalize(n + surfaces.prop_normal[j0])  # leaves: roughly the normal of their ellipsoid
        if texture >= 0:
            albedo = wp.cw_mul(albedo, sample(surfaces.bank, texture, uv[0], uv[1], footprint))
    elif kind == 3:
        n = wp.vec3(0.0, 1.0, 0.0)
        slant = wp.max(-ray[1], 0.05)
        u = p[0] / world.floor_scale
        v = p[2] / world.floor_scale
        reach = footprint / (world.floor_scale * wp.sqrt(slant))
        albedo = sample(surfaces.bank, world.floor_texture, u, v, reach)
        albedo = wp.cw_mul(albedo, world.floor_tint)
    elif kind == 4:
        u = (p[0] + p[2]) / world.wall_scale
        v = -p[1] / world.wall_scale
        albedo = sample(surfaces.bank, world.wall_texture, u, v, footprint / world.wall_scale)
        albedo = wp.cw_mul(albedo, world.wall_tint)
        if p[1] < 0.1:
            albedo = albedo * 0.6 + wp.vec3(0.25, 0.25, 0.25)  # skirting board
    else:
        albedo = world.ceiling
    if wp.dot(n, ray) > 0.0:
        n = -n

    ambient = world.bounce + (world.sky - world.bounce) * (0.5 + 0.5 * n[1])
    if kind != 1:
        d = p - wp.vec3(world.influence[0], world.influence[1], world.influence[2])
        if wp.dot(d, d) < world.influence[3] * world.influence[3]:
            if kind == 3:
                ambient = ambient * occlusion(p, n, surfaces.spheres, world.num_low)
            elif kind == 2:
                ambient = ambient * occlusion(p, n, surfaces.spheres, world.num_spheres)
        if world.room == 1:  # darker corners
            gap = wp.min(
                wp.min(p[0] - world.room_min[0], world.room_max[0] - p[0]),
                wp.min(p[2] - world.room_min[2], world.room_max[2] - p[2]),
            )
            if kind == 4:
                gap = wp.min(p[1], world.room_max[1] - p[1])
            ambient = ambient * (0.65 + 0.35 * wp.clamp(gap / 0.7, 0.0, 1.0))
    sun = float(0.0)
    if wp.max(wp.max(world.sun_color[0], world.sun_color[1]), world.sun_color[2]) > 0.02:
        if world.shadows == 1:
            sun = mapped_sunlight(world, surfaces, p, n)
        else:
            sun = sunlight(world, p, n, state)
    color = wp.cw_mul(albedo, ambient + world.sun_color * sun) + albedo * emission
    if gloss > 0.0:
        half = wp.normalize(world.sun - ray)
        shine = wp.pow(wp.max(wp.dot(n, half), 0.0), 24.0) * gloss
        rim = wp.pow(1.0 - wp.max(-wp.dot(n, ray), 0.0), 4.0) * 0.5 * gloss
        color += world.sun_color * (shine * wp.where(sun > 0.0, 1.0, 0.1)) + world.sky * rim
    if world.room == 0:
        fade = world.haze * (1.0 - wp.exp(-best / 70.0))
        color = color * (1.0 - fade) + world.horizon * fade
    out.color = color
    return out


@wp.func
def trace(
    world: World, surfaces: Surfaces, origin: wp.vec3, ray: wp.vec3, spread: float, state: wp.uint32
) -> Hit:
    return shade(world, surfaces, origin, ray, find(world, origin, ray), spread, state)


@wp.func
def tone_mapped(color: wp.vec3, exposure: float) -> wp.vec3:
    """Linear colour to display values in [0, 1]: a filmic tone curve, then gamma 2.2."""
    x = color * exposure
    out = wp.vec3(0.0, 0.0, 0.0)
    for k in range(3):
        v = wp.max(x[k], 0.0)
        v = v * (2.2 * v + 0.25) / (v * (2.1 * v + 0.75) + 0.16)
        out[k] = wp.pow(wp.clamp(v, 0.0, 1.0), 0.4545)
    return out


@wp.func
def ray_at(camera: Camera, x: float, y: float) -> wp.vec3:
    return wp.normalize(
        camera.to_world * wp.vec3((x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, 1.0)
    )


@wp.kernel(enable_backward=False)
def trace_kernel(
    world: World,
    surfaces: Surfaces,
    camera: Camera,
    seed: int,
    color: wp.array2d(dtype=wp.vec3),
    surface: wp.array2d(dtype=wp.int32),
    person: wp.array2d(dtype=wp.int8),
    depth: wp.array2d(dtype=wp.float32),
):
    """Trace a ray through the centre of each pixel: colour, surface id, person and depth along z."""
    i, j = wp.tid()
    x = float(j) + 0.5
    y = float(i) + 0.5
    if x < camera.left or x > camera.right or y < camera.top or y > camera.bottom:
        color[i, j] = wp.vec3(0.0, 0.0, 0.0)
        surface[i, j] = -1
        person[i, j] = wp.int8(-1)
        depth[i, j] = 0.0
        return
    ray = ray_at(camera, x, y)
    state = wp.rand_init(seed, i * 8192 + j)
    hit = trace(world, surfaces, camera.origin, ray, 1.0 / camera.fx, state)
    color[i, j] = tone_mapped(hit.color, world.exposure)
    surface[i, j] = hit.surface
    person[i, j] = wp.int8(hit.person)
    forward = wp.vec3(camera.to_world[0, 2], camera.to_world[1, 2], camera.to_world[2, 2])
    depth[i, j] = hit.distance * wp.dot(ray, forward)


@wp.kernel(enable_backward=False)
def antialias_kernel(
    world: World,
    surfaces: Surfaces,
    camera: Camera,
    seed: int,
    grid: int,
    color: wp.array2d(dtype=wp.vec3),
    surface: wp.array2d(dtype=wp.int32),
    image: wp.array2d(dtype=wp.vec3ub),
):
    """Anti-aliasing: pixels that differ from a neighbour are averaged over `grid` x `grid` more rays."""
    i, j = wp.tid()
    here = color[i, j]
    what = surface[i, j]
    edge = int(0)
    if what >= 0:
        for k in range(4):
            ii = wp.clamp(i + (k - 1) * (1 - k % 2), 0, surface.shape[0] - 1)
            jj = wp.clamp(j + (k - 2) * (k % 2), 0, surface.shape[1] - 1)
            if surface[ii, jj] >= 0:
                step = color[ii, jj] - here
                if (
                    surface[ii, jj] != what
                    or wp.max(wp.max(wp.abs(step[0]), wp.abs(step[1])), wp.abs(step[2])) > 0.16
                ):
                    edge = 1
    if edge == 1:
        total = here
        for s in range(grid * grid):
            ux = (float(s % grid) + 0.5) / float(grid) - 0.5
            uy = (float(s / grid) + 0.5) / float(grid) - 0.5
            # A rotated grid is better for almost horizontal and vertical edges.
            x = float(j) + 0.5 + 1.1 * (0.8944 * ux - 0.4472 * uy)
            y = float(i) + 0.5 + 1.1 * (0.4472 * ux + 0.8944 * uy)
            state = wp.rand_init(seed + s + 1, i * 8192 + j)
            hit = trace(world, surfaces, camera.origin, ray_at(camera, x, y), 1.0 / camera.fx, state)
            total += tone_mapped(hit.color, world.exposure)
        here = total / float(grid * grid + 1)
    image[i, j] = wp.vec3ub(
        wp.uint8(here[0] * 255.0 + 0.5), wp.uint8(here[1] * 255.0 + 0.5), wp.uint8(here[2] * 255.0 + 0.5)
    )


@wp.kernel(enable_backward=False)
def normals_kernel(
    points: wp.array(dtype=wp.vec3), indices: wp.array2d(dtype=wp.int32), normals: wp.array(dtype=wp.vec3)
):
    """Add the normal of each face, of twice its area in length, to its three vertices."""
    f = wp.tid()
    a = indices[f, 0]
    b = indices[f, 1]
    c = indices[f, 2]
    n = wp.cross(points[b] - points[a], points[c] - points[a])
    wp.atomic_add(normals, a, n)
    wp.atomic_add(normals, b, n)
    wp.atomic_add(normals, c, n)


def camera_struct(
    cam_int: np.ndarray, rotation: np.ndarray, translation: np.ndarray, border: tuple[float, ...]
) -> Camera:
    """A viewport for the kernels.

    cam_int: (3, 3) intrinsics of the viewport, pixels. rotation (3, 3), translation (3,) metres: world to
    camera. border: left, top, right, bottom of the full image in pixels of the viewport.
    """
    camera = Camera()
    camera.fx, camera.fy, camera.cx, camera.cy = (float(cam_int[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    camera.to_world = wp.mat33(*[float(v) for v in rotation.T.flatten()])
    camera.origin = wp.vec3(*[float(v) for v in -rotation.T @ translation])
    camera.left, camera.top, camera.right, camera.bottom = (float(v) for v in border)
    return camera


def mip_chain(textures: np.ndarray) -> np.ndarray:
    """Mip levels of textures, concatenated: (T, 256, 256, 3) uint8 -> (T, MIP_TEXELS, 3) uint8."""
    levels, current = [], textures.astype(np.float32)
    for _ in range(MIP_LEVELS):
        levels.append(current.reshape(len(current), -1, 3))
        side = current.shape[1] // 2
        current = current.reshape(len(current), side, 2, side, 2, 3).mean((2, 4))  # (T, side, side, 3)
    return np.concatenate(levels, axis=1).round().astype(np.uint8)
