"""Warp kernels that find the visible faces of a viewport by drawing them, and shade them.

Several times as fast as a ray per sample (`raytrace`), with the same surfaces, light and colours: the
pictures of training. A viewport of S pixels has samples at the pixels' centres and corners, on a grid of
2 S + 1 per side: sample (r, c) is at (c / 2, r / 2) pixels, centres have odd indices and corners even ones. A
sample's key is its inverse depth, as bits, and its face; the largest key is the visible one. Shadow maps are
the keys of viewports at the light.
"""

# ruff: noqa: UP018 (in a kernel, `float(0.0)` declares a variable, `0.0` a constant)

import warp as wp

from dpose.synthetic.raytrace import Camera, Found, Surfaces, World, ray_at, shade

wp.set_module_options({"fast_math": True, "enable_backward": False})

PROP_KEY = wp.constant(1 << 24)  # faces of props are counted from here
NEAR = wp.constant(0.05)  # metres; faces that come nearer have no bounds in the picture
EDGE = wp.constant(0.16)  # step between neighbouring pixels that is smoothed


@wp.func
def in_camera(camera: Camera, p: wp.vec3) -> wp.vec3:
    """World point -> x, y in pixels and 1 / z; 0 or negative where it is not NEAR metres in front."""
    q = wp.transpose(camera.to_world) * (p - camera.origin)
    if q[2] < NEAR:
        return wp.vec3(0.0, 0.0, 0.0)
    inverse = 1.0 / q[2]
    return wp.vec3(q[0] * camera.fx * inverse + camera.cx, q[1] * camera.fy * inverse + camera.cy, inverse)


@wp.kernel(enable_backward=False)
def project_kernel(camera: Camera, points: wp.array(dtype=wp.vec3), projected: wp.array(dtype=wp.vec3)):
    k = wp.tid()
    projected[k] = in_camera(camera, points[k])


@wp.func
def key_of(inverse: float, face: int) -> wp.uint64:
    return (wp.uint64(wp.cast(inverse, wp.uint32)) << wp.uint64(32)) | wp.uint64(face + 1)


@wp.func
def on_face(origin: wp.vec3, ray: wp.vec3, p0: wp.vec3, p1: wp.vec3, p2: wp.vec3) -> wp.vec3:
    """Distance along a ray to the plane of a face, and the weights of the first two corners there."""
    e1 = p0 - p2
    e2 = p1 - p2
    s = wp.cross(ray, e2)
    det = wp.dot(e1, s)
    if wp.abs(det) < 1.0e-14:
        return wp.vec3(-1.0, 0.0, 0.0)
    offset = origin - p2
    q = wp.cross(offset, e1)
    return wp.vec3(wp.dot(e2, q), wp.dot(offset, s), wp.dot(ray, q)) / det


@wp.kernel(enable_backward=False)
def draw_kernel(
    camera: Camera,
    points: wp.array(dtype=wp.vec3),
    projected: wp.array(dtype=wp.vec3),
    indices: wp.array(dtype=int),
    first: int,
    corners: int,
    closed: int,
    keys: wp.array2d(dtype=wp.uint64),
):
    """Draw a face: raise the keys of its samples.

    first: number of face 0 in the keys. corners: 1 for keys of pixels' centres and corners, see above; 0 for
    keys of centres alone, one for each pixel. closed: 1 leaves out faces that are seen from behind.
    """
    f = wp.tid()
    i0 = indices[3 * f]
    i1 = indices[3 * f + 1]
    i2 = indices[3 * f + 2]
    a = projected[i0]
    b = projected[i1]
    c = projected[i2]
    density = 1.0 + float(corners)  # of samples; sample k is at (k + shift) / density pixels
    shift = 0.5 * (1.0 - float(corners))
    left = wp.max(density * camera.left - shift, 0.0)
    top = wp.max(density * camera.top - shift, 0.0)
    right = wp.min(density * camera.right - shift, float(keys.shape[1] - 1))
    bottom = wp.min(density * camera.bottom - shift, float(keys.shape[0] - 1))
    near = wp.min(wp.min(a[2], b[2]), c[2]) > 0.0
    if near:
        left = wp.max(left, density * wp.min(wp.min(a[0], b[0]), c[0]) - shift)
        right = wp.min(right, density * wp.max(wp.max(a[0], b[0]), c[0]) - shift)
        top = wp.max(top, density * wp.min(wp.min(a[1], b[1]), c[1]) - shift)
        bottom = wp.min(bottom, density * wp.max(wp.max(a[1], b[1]), c[1]) - shift)
    elif wp.max(wp.max(a[2], b[2]), c[2]) <= 0.0:
        return
    low = int(wp.ceil(top))
    high = int(wp.floor(bottom))
    start = int(wp.ceil(left))
    end = int(wp.floor(right))
    if low > high or start > end:
        return
    # The weights u, v, w of the corners, over the depth or not, are linear in x and y.
    if near:
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if wp.abs(area) < 1.0e-9 or (closed == 1 and area > 0.0):
            return
        unit = 1.0 / (area * density)
        ux = (b[1] - c[1]) * unit
        uy = (c[0] - b[0]) * unit
        vx = (c[1] - a[1]) * unit
        vy = (a[0] - c[0]) * unit
        for row in range(low, high + 1):
            y = float(row) + shift - density * c[1]
            for column in range(start + ((start + row) & corners), end + 1, 1 + corners):
                x = float(column) + shift - density * c[0]
                u = ux * x + uy * y
                v = vx * x + vy * y
                if u >= 0.0 and v >= 0.0 and u + v <= 1.0:
                    inverse = u * a[2] + v * b[2] + (1.0 - u - v) * c[2]
                    wp.atomic_max(keys, row, column, key_of(inverse, first + f))
        return
    turn = wp.transpose(camera.to_world)
    p0 = turn * (points[i0] - camera.origin)
    p1 = turn * (points[i1] - camera.origin)
    p2 = turn * (points[i2] - camera.origin)
    n0 = wp.cross(p1, p2)
    det = wp.dot(p0, n0)
    if wp.abs(det) < 1.0e-9:
        return
    n0 = n0 / det
    n1 = wp.cross(p2, p0) / det
    n2 = wp.cross(p0, p1) / det
    for row in range(low, high + 1):
        y = ((float(row) + shift) / density - camera.cy) / camera.fy
        for column in range(start + ((start + row) & corners), end + 1, 1 + corners):
            x = ((float(column) + shift) / density - camera.cx) / camera.fx
            u = x * n0[0] + y * n0[1] + n0[2]
            v = x * n1[0] + y * n1[1] + n1[2]
            w = x * n2[0] + y * n2[1] + n2[2]
            if u >= 0.0 and v >= 0.0 and w >= 0.0:
                wp.atomic_max(keys, row, column, key_of(u + v + w, first + f))


@wp.func
def found(
    world: World,
    surfaces: Surfaces,
    people: wp.array(dtype=wp.vec3),
    props: wp.array(dtype=wp.vec3),
    origin: wp.vec3,
    ray: wp.vec3,
    key: wp.uint64,
) -> Found:
    """The face of a key, as `raytrace.find` gives it."""
    out = Found()
    out.distance = float(1.0e4)
    if key > wp.uint64(0):
        face = int(key & wp.uint64(0xFFFFFFFF)) - 1
        where = wp.vec3(0.0, 0.0, 0.0)
        if face < PROP_KEY:
            out.kind = 1
            p0 = people[surfaces.people[face * 3]]
            p1 = people[surfaces.people[face * 3 + 1]]
            p2 = people[surfaces.people[face * 3 + 2]]
            where = on_face(origin, ray, p0, p1, p2)
        else:
            out.kind = 2
            face -= PROP_KEY
            p0 = props[surfaces.props[face * 3]]
            p1 = props[surfaces.props[face * 3 + 1]]
            p2 = props[surfaces.props[face * 3 + 2]]
            where = on_face(origin, ray, p0, p1, p2)
            out.normal = wp.normalize(wp.cross(p1 - p0, p2 - p0))
        out.face = face
        out.distance = where[0]
        out.u = where[1]
        out.v = where[2]
    return out


@wp.func
def displayed(color: wp.vec3, exposure: float) -> wp.vec3:
    """As `raytrace.tone_mapped` within 2 of 255 levels: roots are faster than a power."""
    out = wp.vec3(0.0, 0.0, 0.0)
    for k in range(3):
        v = wp.max(color[k] * exposure, 0.0)
        v = v * (2.2 * v + 0.25) / (v * (2.1 * v + 0.75) + 0.16)
        root = wp.sqrt(wp.min(v, 1.0))
        fourth = wp.sqrt(root)
        v = 0.77652 * root + 0.32987 * fourth - 0.10581 * wp.sqrt(fourth)
        out[k] = wp.clamp(v, 0.0, 1.0)
    return out


@wp.kernel(enable_backward=False)
def shade_kernel(
    world: World,
    surfaces: Surfaces,
    people: wp.array(dtype=wp.vec3),
    props: wp.array(dtype=wp.vec3),
    camera: Camera,
    seed: int,
    keys: wp.array2d(dtype=wp.uint64),
    color: wp.array2d(dtype=wp.vec3),
    surface: wp.array2d(dtype=wp.int32),
    person: wp.array2d(dtype=wp.int8),
    depth: wp.array2d(dtype=wp.float32),
):
    """Shade the centre of each pixel, as `raytrace.trace_kernel` does."""
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
    seen = found(world, surfaces, people, props, camera.origin, ray, keys[2 * i + 1, 2 * j + 1])
    hit = shade(world, surfaces, camera.origin, ray, seen, 1.0 / camera.fx, state)
    color[i, j] = displayed(hit.color, world.exposure)
    surface[i, j] = hit.surface
    person[i, j] = wp.int8(hit.person)
    forward = wp.vec3(camera.to_world[0, 2], camera.to_world[1, 2], camera.to_world[2, 2])
    depth[i, j] = hit.distance * wp.dot(ray, forward)


@wp.kernel(enable_backward=False)
def edge_kernel(
    color: wp.array2d(dtype=wp.vec3), surface: wp.array2d(dtype=wp.int32), wanted: wp.array2d(dtype=wp.uint8)
):
    """Mark the four corners of pixels that differ from the pixel to the right or below, and of those two."""
    i, j = wp.tid()
    what = surface[i, j]
    if what < 0:
        return
    for k in range(2):
        ii = wp.min(i + k, surface.shape[0] - 1)
        jj = wp.min(j + 1 - k, surface.shape[1] - 1)
        if surface[ii, jj] >= 0:
            step = color[ii, jj] - color[i, j]
            if (
                surface[ii, jj] != what
                or wp.max(wp.max(wp.abs(step[0]), wp.abs(step[1])), wp.abs(step[2])) > EDGE
            ):
                for m in range(2):
                    for n in range(2):
                        wanted[i + m, j + n] = wp.uint8(1)
                        wanted[ii + m, jj + n] = wp.uint8(1)


@wp.kernel(enable_backward=False)
def corner_kernel(
    world: World,
    surfaces: Surfaces,
    people: wp.array(dtype=wp.vec3),
    props: wp.array(dtype=wp.vec3),
    camera: Camera,
    seed: int,
    keys: wp.array2d(dtype=wp.uint64),
    wanted: wp.array2d(dtype=wp.uint8),
    color: wp.array2d(dtype=wp.vec3),
):
    """Shade the marked corners."""
    i, j = wp.tid()
    if wanted[i, j] == wp.uint8(0):
        return
    x = float(j)
    y = float(i)
    if x < camera.left or x > camera.right or y < camera.top or y > camera.bottom:
        wanted[i, j] = wp.uint8(0)
        return
    ray = ray_at(camera, x, y)
    state = wp.rand_init(seed + 1, i * 8192 + j)
    seen = found(world, surfaces, people, props, camera.origin, ray, keys[2 * i, 2 * j])
    hit = shade(world, surfaces, camera.origin, ray, seen, 1.0 / camera.fx, state)
    color[i, j] = displayed(hit.color, world.exposure)


@wp.kernel(enable_backward=False)
def blend_kernel(
    color: wp.array2d(dtype=wp.vec3),
    surface: wp.array2d(dtype=wp.int32),
    wanted: wp.array2d(dtype=wp.uint8),
    corner: wp.array2d(dtype=wp.vec3),
    image: wp.array2d(dtype=wp.vec3ub),
):
    """The picture: half of each pixel's centre and half of its marked corners."""
    i, j = wp.tid()
    here = color[i, j]
    if surface[i, j] >= 0:
        total = wp.vec3(0.0, 0.0, 0.0)
        count = float(0.0)
        for m in range(2):
            for n in range(2):
                if wanted[i + m, j + n] == wp.uint8(1):
                    total += corner[i + m, j + n]
                    count += 1.0
        if count > 0.0:
            share = 0.125 * count
            here = here * (1.0 - share) + total / count * share
    image[i, j] = wp.vec3ub(
        wp.uint8(here[0] * 255.0 + 0.5), wp.uint8(here[1] * 255.0 + 0.5), wp.uint8(here[2] * 255.0 + 0.5)
    )


@wp.kernel(enable_backward=False)
def person_kernel(
    surfaces: Surfaces,
    vertices_each: int,
    worn: int,
    corners: int,
    keys: wp.array2d(dtype=wp.uint64),
    person: wp.array2d(dtype=wp.int8),
):
    """The visible person of each pixel, -1 for none. worn: `raytrace.WORN`. corners: see `draw_kernel`."""
    i, j = wp.tid()
    face = int(keys[i * (1 + corners) + corners, j * (1 + corners) + corners] & wp.uint64(0xFFFFFFFF)) - 1
    who = int(-1)
    if face >= PROP_KEY:
        texture = surfaces.prop_texture[face - PROP_KEY]
        if texture <= worn:
            who = (worn - texture) / 3
    elif face >= 0:
        who = surfaces.people[3 * face] / vertices_each
    person[i, j] = wp.int8(who)


@wp.kernel(enable_backward=False)
def part_kernel(
    camera: Camera,
    points: wp.array(dtype=wp.vec3),
    indices: wp.array(dtype=int),
    part_of_vertex: wp.array(dtype=int),
    keys: wp.array2d(dtype=wp.uint64),
    part: wp.array2d(dtype=wp.uint8),
):
    """The part labels of the drawn body: that of the nearest corner of the visible face, plus 1."""
    i, j = wp.tid()
    face = int(keys[i, j] & wp.uint64(0xFFFFFFFF)) - 1
    label = int(0)
    if face >= 0:
        i0 = indices[3 * face]
        i1 = indices[3 * face + 1]
        i2 = indices[3 * face + 2]
        ray = ray_at(camera, float(j) + 0.5, float(i) + 0.5)
        where = on_face(camera.origin, ray, points[i0], points[i1], points[i2])
        best = i0
        if where[2] > where[1]:
            best = i1
        if 1.0 - where[1] - where[2] > wp.max(where[1], where[2]):
            best = i2
        label = part_of_vertex[best] + 1
    part[i, j] = wp.uint8(label)
