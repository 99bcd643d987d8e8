"""The environment of the people: a room or an outdoor place, its objects and its light."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from dpose.synthetic.poses import about
from dpose.synthetic.props import WOOD, Props, random_color, stand_thing
from dpose.synthetic.textures import pick


def sample_surroundings(
    rng: np.random.Generator, camera: np.ndarray, people: np.ndarray, props: Props
) -> dict[str, Any]:
    """Add objects to `props` and return the other properties of the environment, fields of `raytrace.World`.

    camera: (3,) its place in the world. people: (N, 3) their places on the ground.
    """
    u = rng.uniform
    reach = np.linalg.norm(people[:, ::2], axis=1).max()
    free = partial(is_free, people, camera)
    elevation, azimuth = u(0.35, 1.35), u(0, 2 * np.pi)
    world: dict[str, Any] = {"backdrop": -1, "room": 0, "haze": 0.0}
    if rng.random() < 0.45:
        spread = np.array([u(0.8, 3.5), 0, u(0.8, 3.5)])
        low = np.minimum(camera, -reach) - 0.4 - spread
        high = np.maximum(camera, reach) + 0.4 + spread[::-1]
        low[1], high[1] = 0, max(u(2.3, 3.4), camera[1] + 0.3)
        photo = rng.random() < 0.22  # the same photograph on all walls
        _indoor_things(rng, props, low, high, free, decorated=not photo)
        lamp, ambient = u(0.3, 1.3), u(0.35, 0.75)
        warm = np.array([1.0, u(0.8, 1.0), u(0.6, 1.05)])
        floors = {"wood": 0.45, "tile": 0.2, "carpet": 0.15, "concrete": 0.15, "checks": 0.05}
        floor = str(rng.choice(list(floors), p=list(floors.values())))
        bright = rng.random() < 0.7
        wall_color = random_color(rng, 0.5, 0.9, 0.1) if bright else random_color(rng, 0.15, 0.7, 0.4)
        world |= {
            "room": 1,
            "room_min": low,
            "room_max": high,
            "sun_color": lamp * warm,
            "sun_size": u(0.02, 0.06),
            "sky": ambient * warm,
            "bounce": ambient * warm * u(0.25, 0.6),
            "floor_tint": WOOD[rng.integers(len(WOOD))]
            if floor == "wood"
            else random_color(rng, 0.12, 0.75, 0.2),
            "wall_texture": pick(rng, "scenery")
            if photo
            else pick(rng, "plaster", "plaster", "wallpaper", "brick", "concrete", "wood"),
            "wall_scale": u(2.5, 5.0) if photo else u(1.0, 2.5),
            "wall_tint": random_color(rng, 0.6, 1.0, 0.1) if photo else wall_color,
            "ceiling": random_color(rng, 0.7, 0.9, 0.04),
        }
        elevation = u(0.8, 1.45)
        floor_scale = u(0.8, 2.0)
    else:
        overcast = rng.random() < 0.35
        sun = u(0.05, 0.35) if overcast else u(1.3, 2.6)
        warm = np.array([1.0, u(0.82, 1.0), u(0.6, 0.95)])
        blue = np.array([u(0.65, 0.95), u(0.8, 1.0), 1.0]) if not overcast else np.array([0.95, 0.97, 1.0])
        sky = u(0.7, 1.1) if overcast else u(0.22, 0.5)
        grounds = ("grass", "gravel", "asphalt", "concrete", "brick", "tile")
        floor = str(rng.choice(grounds, p=(0.3, 0.15, 0.22, 0.18, 0.08, 0.07)))
        if floor == "grass":
            ground_tint = np.array([u(0.2, 0.45), u(0.35, 0.6), u(0.08, 0.2)])
        else:
            ground_tint = random_color(rng, 0.15, 0.7, 0.12)
        zenith = np.array([0.16, 0.32, 0.75]) * u(0.6, 1.4) if not overcast else np.full(3, u(0.55, 0.9))
        world |= {
            "sun_color": sun * warm,
            "sun_size": 0.015 if not overcast else 0.06,
            "sky": sky * blue,
            "bounce": sky * 0.4 * ground_tint + 0.05,
            "floor_tint": ground_tint,
            "backdrop": pick(rng, "skyline") if rng.random() < 0.85 else -1,
            "backdrop_tint": random_color(rng, 0.35, 0.9, 0.2),
            "backdrop_height": u(0.06, 0.35),
            "backdrop_turn": u(0, 2),
            "zenith": zenith,
            "horizon": np.array([u(0.75, 0.95), u(0.82, 0.97), 1.0]) * u(0.7, 1.2),
            "haze": u(0.05, 0.5),
            "ceiling": np.ones(3),
        }
        _outdoor_things(rng, props, camera, free)
        floor_scale = u(0.8, 3.0)
    flat = np.cos(elevation)
    world |= {
        "sun": np.array([flat * np.sin(azimuth), np.sin(elevation), flat * np.cos(azimuth)]),
        "hair_texture": pick(rng, "strands"),
        "floor_texture": pick(rng, floor),
        "floor_scale": floor_scale,
    }
    light = 0.6 * np.max(world["sun_color"]) + 0.75 * np.mean(world["sky"])
    world["exposure"] = float(np.clip(np.exp(rng.normal(0, 0.25)) * 0.85 / light, 0.35, 2.5))
    return world


def _indoor_things(
    rng: np.random.Generator,
    props: Props,
    low: np.ndarray,
    high: np.ndarray,
    free: Callable[[np.ndarray, float], bool],
    decorated: bool,
) -> None:
    """Add furniture to the room between the corners `low` and `high` (3,), and if `decorated` wall objects.

    free: whether a place (3,) keeps a distance in metres from the people, the camera and the line of sight.
    """
    walls = [(0, low[0], 1), (0, high[0], -1), (2, low[2], 1), (2, high[2], -1)]
    for axis, place, sign in walls if decorated else ():
        along = 2 - axis
        yaw = 0.0 if axis == 2 else np.pi / 2
        x = low[along] + 0.5
        while x < high[along] - 0.5:
            what = rng.choice(
                ["picture", "window", "door", "shelf", "cabinet", "nothing"],
                p=[0.3, 0.14, 0.08, 0.1, 0.13, 0.25],
            )
            width = {"picture": rng.uniform(0.3, 1.2), "window": rng.uniform(0.8, 1.8), "door": 0.9}.get(
                what, rng.uniform(0.7, 1.6)
            )
            center = np.zeros(3)
            center[along], center[axis] = x + width / 2, place + sign * 0.015
            x += width + rng.uniform(0.2, 1.2)
            if center[along] + width / 2 > high[along]:
                break
            if what == "picture":
                height = width * rng.uniform(0.6, 1.4)
                center[1] = rng.uniform(1.3, 1.8)
                color, texture = random_color(rng, 0.7, 0.9), pick(rng, "picture", "scenery")
                props.box(center, [width, height, 0.03], yaw, color, texture, None)
            elif what == "window":
                center[1] = 1.6
                emission = float(rng.uniform(0.4, 1.6))
                texture = pick(rng, "scenery") if rng.random() < 0.5 else -1
                props.box(center, [width, 1.2, 0.03], yaw, (0.8, 0.85, 0.9), texture, None, emission)
                for side in (-1, 0, 1):
                    bar = center.copy()
                    bar[along] += side * width / 2
                    bar[axis] += sign * 0.02
                    props.box(bar, [0.05, 1.25, 0.05], yaw, (0.75, 0.75, 0.73))
            elif what == "door":
                center[1] = 1.02
                color, texture = WOOD[rng.integers(len(WOOD))], pick(rng, "wood", "plaster")
                props.box(center, [width, 2.04, 0.05], yaw, color, texture, 2.0)
            elif what in ("shelf", "cabinet"):
                depth = rng.uniform(0.25, 0.5)
                height = rng.uniform(0.6, 1.0) if what == "cabinet" else rng.uniform(1.4, 2.1)
                center[axis] = place + sign * depth / 2
                center[1] = height / 2
                if free(center, width * 0.6):
                    texture = pick(rng, "books") if what == "shelf" else pick(rng, "wood", "plaster")
                    color = (0.75, 0.75, 0.75) if what == "shelf" else WOOD[rng.integers(len(WOOD))]
                    props.box(center, [width, height, depth], yaw, color, texture, 1.2)
    for _ in range(rng.integers(0, 5)):
        x, z = rng.uniform(low[0] + 0.4, high[0] - 0.4), rng.uniform(low[2] + 0.4, high[2] - 0.4)
        place = np.array([x, 0, z])
        if free(place, 0.9):
            stand_thing(rng, props, place)


def _outdoor_things(
    rng: np.random.Generator, props: Props, camera: np.ndarray, free: Callable[[np.ndarray, float], bool]
) -> None:
    """Add trees, bushes, houses or walls, mostly behind the people as seen from the camera."""
    setting = rng.choice(["park", "street", "yard", "field"], p=[0.35, 0.35, 0.2, 0.1])
    away = -camera * [1, 0, 1]
    heading = np.arctan2(away[0], away[2])
    for _ in range({"park": 14, "street": 9, "yard": 5, "field": 4}[setting]):
        angle, distance = heading + rng.uniform(-1.0, 1.0), rng.uniform(3, 30)
        place = np.array([np.sin(angle), 0, np.cos(angle)]) * distance
        if not free(place, 1.6):
            continue
        if setting == "street" and rng.random() < 0.75:
            distance = rng.uniform(8, 30)
            place = place / np.linalg.norm(place) * (distance + 5)
            size = np.array([rng.uniform(5, 14), rng.uniform(4, 16), rng.uniform(5, 10)])
            yaw, color = heading + rng.normal(0, 0.3), random_color(rng, 0.3, 0.9, 0.25)
            texture = pick(rng, "facade", "brick", "facade", "concrete")
            props.box(place + [0, size[1] / 2, 0], size, yaw, color, texture, rng.uniform(3, 8))
        elif setting == "yard":
            size = np.array([rng.uniform(2, 7), rng.uniform(0.8, 3), 0.15])
            place = place / np.linalg.norm(place) * rng.uniform(2.5, 9)
            if free(place, size[0] / 2 + 0.6):
                yaw, color = heading + rng.normal(0, 0.7), random_color(rng, 0.3, 0.9, 0.25)
                texture = pick(rng, "brick", "wood", "concrete")
                props.box(place + [0, size[1] / 2, 0], size, yaw, color, texture, rng.uniform(1, 2))
        elif rng.random() < 0.6:
            height = rng.uniform(2.5, 7)
            bark, green = (0.16, 0.11, 0.07), np.array([rng.uniform(0.08, 0.25), rng.uniform(0.2, 0.4), 0.06])
            props.cylinder(place, 0.05 * height**0.7, height * 0.6, bark, pick(rng, "wood"), 0.6)
            for _ in range(rng.integers(3, 7)):
                crown = place + np.array([*rng.normal(0, 0.13, 2) * height, 0])[[0, 2, 1]]
                crown = crown + [0, height * rng.uniform(0.55, 0.95), 0]
                props.foliage(rng, crown, height * rng.uniform(0.12, 0.26, 3), green, 0.06 * height, 130)
        else:
            for _ in range(rng.integers(1, 4)):
                bush = place + [rng.normal(0, 0.5), rng.uniform(0.2, 0.5), rng.normal(0, 0.5)]
                green = np.array([rng.uniform(0.08, 0.25), rng.uniform(0.18, 0.4), 0.06])
                props.foliage(rng, bush, rng.uniform(0.3, 0.9, 3), green, 0.15, 150)
    for _ in range(rng.integers(0, 4)):
        place = np.array([rng.uniform(-4, 4), 0, rng.uniform(-4, 4)])
        if free(place, 1.0):
            if rng.random() < 0.4:
                radius, height = rng.uniform(0.04, 0.1), rng.uniform(1, 4.5)
                props.cylinder(place, radius, height, random_color(rng, 0.1, 0.5, 0.2))
            else:
                stand_thing(rng, props, place)


def add_table(rng: np.random.Generator, props: Props, pelvis: np.ndarray, yaw: float, sits: bool) -> None:
    """Add a table or counter with things on it before a person who faces `yaw` (radians).

    pelvis: (3,) metres, world.
    """
    u = rng.uniform
    top = pelvis[1] + u(0.05, 0.3) if sits else u(0.72, 1.1)
    turn, size = about("y", yaw), np.array([u(0.7, 2.2), u(0.03, 0.08), u(0.5, 1.0)])
    middle = pelvis * [1, 0, 1] + turn @ [rng.normal(0, 0.2), top, u(0.2, 0.34) + size[2] / 2]
    color = WOOD[rng.integers(len(WOOD))] if rng.random() < 0.6 else random_color(rng, 0.1, 0.9, 0.22)
    texture = pick(rng, "wood", "cloth", "plaster", "clutter")
    props.box(middle, size, yaw, color, texture, 0.9)
    if rng.random() < 0.5:  # closed in front, as a counter or with a cloth
        front = middle + turn @ [0, 0, size[2] / 2 - 0.03] - [0, top / 2, 0]
        props.box(front, [size[0], top, 0.04], yaw, color * u(0.5, 1.0), texture, 0.9)
    else:
        for x in (-0.45, 0.45):
            for z in (-0.42, 0.42):
                leg = middle + turn @ [x * size[0], 0, z * size[2]] - [0, top / 2, 0]
                props.box(leg, [0.05, top, 0.05], yaw, color * 0.7)
    for _ in range(rng.integers(0, 9)):
        place = middle + turn @ [u(-0.45, 0.45) * size[0], 0, u(-0.4, 0.4) * size[2]] + [0, size[1] / 2, 0]
        radius, height, color = u(0.02, 0.14), u(0.01, 0.3), random_color(rng, 0.05, 0.9, 0.22)
        if rng.random() < 0.5:
            props.cylinder(place, min(radius, 0.08), height, color, top=u(0.6, 1.3))
        else:
            size_of = [2 * radius, height, radius * u(1, 2)]
            props.box(place + [0, height / 2, 0], size_of, u(0, 3), color, pick(rng, "clutter", "books"), 0.4)


def vary_background(
    rng: np.random.Generator, props: Props, world: dict[str, Any], camera: np.ndarray, people: np.ndarray
) -> None:
    """Make the surroundings plain or cluttered: changes `world`, and adds objects behind and beside people.

    camera: (3,) its place. people: (N, 3) their places on the ground.
    """
    u = rng.uniform
    if rng.random() < 0.3:  # plain: a white or coloured wall, snow, sand, a lawn, a clear sky
        world["wall_texture"] = pick(rng, "plaster")
        world["floor_texture"] = pick(rng, "plaster", "grass", "gravel")
        tint = random_color(rng, 0.1, 0.95, 0.1)
        world |= {"wall_tint": tint, "wall_scale": u(1, 6), "floor_scale": u(1, 8)}
        if rng.random() < 0.5:
            world["floor_tint"] = random_color(rng, 0.15, 0.95, 0.1)
        if not world["room"] and rng.random() < 0.5:
            world |= {"backdrop": -1, "haze": 0.0}
        return
    if rng.random() < 0.6:
        world |= {"wall_texture": pick(rng, "clutter", "clutter", "scenery"), "wall_scale": u(1.5, 5.0)}
        world["wall_tint"] = random_color(rng, 0.5, 1.0, 0.15)
    if not world["room"] and rng.random() < 0.6:
        tint = random_color(rng, 0.3, 1.0, 0.2)
        world |= {"backdrop": pick(rng, "clutter", "scenery"), "backdrop_height": u(0.2, 0.8)}
        world |= {"backdrop_tint": tint, "haze": u(0.0, 0.15)}
    if rng.random() < 0.25:
        world |= {"floor_texture": pick(rng, "clutter", "gravel", "carpet"), "floor_scale": u(1.0, 4.0)}
    away = (people.mean(0) - camera) * [1, 0, 1]
    away /= np.linalg.norm(away)
    aside = np.array([away[2], 0, -away[0]])
    for _ in range(rng.integers(4, 30)):
        distance = np.exp(u(np.log(0.5), np.log(12)))
        place = people[rng.integers(len(people))] * [1, 0, 1]
        place = place + away * distance + aside * rng.normal(0, 0.8 + 0.4 * distance)
        if not is_free(people, camera, place, 0.7):
            continue
        size = np.exp(rng.normal(np.log(0.35), 0.8, 3))
        height = size[1] / 2 if rng.random() < 0.7 else u(0.5, 2.8)
        color, yaw = random_color(rng, 0.03, 0.95, 0.22), u(0, np.pi)
        texture = pick(rng, "clutter", "plaster", "wood", "books", "cloth", "facade", "scenery")
        if rng.random() < 0.3:
            radius = min(size[0], 0.3) / 2
            props.cylinder(place, radius, u(0.5, 3.5), color, texture, u(0.5, 1.2))
        else:
            props.box(place + [0, height, 0], size, yaw, color, texture, u(0.3, 2))


def vary_light(
    rng: np.random.Generator, world: dict[str, Any], camera: np.ndarray, people: np.ndarray
) -> None:
    """Make shadows sharper, and half of the time change `world` to night, backlight, hard or dim light."""
    u = rng.uniform
    world["sun_size"] = u(0.003, 0.015)
    if rng.random() < 0.5:
        return
    towards = (camera - people.mean(0)) * [1, 0, 1]
    heading = np.arctan2(towards[0], towards[2])
    what = str(rng.choice(["night", "back", "hard", "dim", "flash"], p=[0.2, 0.3, 0.25, 0.1, 0.15]))
    if what in ("night", "flash"):
        dark, warm = u(0.05, 0.3), np.array([1.0, u(0.75, 1.0), u(0.5, 1.0)])
        world |= {"sky": world["sky"] * dark, "bounce": world["bounce"] * dark}
        world["sun_color"] = u(0.5, 1.6) * warm
        if not world["room"]:
            world |= {"zenith": np.array([0.004, 0.006, 0.015]), "horizon": u(0.005, 0.1) * warm}
            world["backdrop_tint"] = world["backdrop_tint"] * u(0.02, 0.4)
    elif what == "dim":
        world["sun_color"] = world["sun_color"] * u(0.0, 0.3)
    else:
        soft = u(0.25, 0.8)
        world |= {"sky": world["sky"] * soft, "bounce": world["bounce"] * soft}
        world["sun_color"] = world["sun_color"] * u(1.0, 1.5)
    if what == "back":
        elevation, azimuth = u(0.12, 0.9), heading + np.pi + rng.normal(0, 0.6)
    elif what == "flash":
        elevation, azimuth = u(0.02, 0.25), heading + rng.normal(0, 0.1)
    else:
        elevation, azimuth = u(0.3, 1.4), u(0, 2 * np.pi)
    flat = np.cos(elevation)
    world["sun"] = np.array([flat * np.sin(azimuth), np.sin(elevation), flat * np.cos(azimuth)])
    light = 0.45 * np.max(world["sun_color"]) + 0.75 * np.mean(world["sky"])
    if what == "back":
        light = 0.25 * np.max(world["sun_color"]) + 0.9 * np.mean(world["sky"])
    world["exposure"] = float(np.clip(np.exp(rng.normal(0, 0.3)) * 0.85 / light, 0.2, 3.5))


def is_free(people: np.ndarray, camera: np.ndarray, place: np.ndarray, gap: float) -> bool:
    """Whether a place (3,) is far enough from the people (N, 3), the camera, and the line of sight."""
    if np.linalg.norm((people - place)[:, ::2], axis=1).min() < gap:
        return False
    eye, spot = camera[::2], place[::2]
    along = np.clip(spot @ eye / (eye @ eye), 0, 1.2)
    return bool(np.linalg.norm(spot - along * eye) > gap or np.linalg.norm(spot) > 6 and along <= 0)


def add_occluders(rng: np.random.Generator, props: Props, camera: np.ndarray, people: np.ndarray) -> None:
    """Add an object between the camera and one of the people that occludes a part of the person."""
    target = people[rng.integers(len(people))]
    path = (target - camera) * [1, 0, 1]
    length = np.linalg.norm(path)
    if length < 1.8:
        return
    ahead = path / length
    aside = np.array([ahead[2], 0, -ahead[0]])
    gap = rng.uniform(0.75, min(1.6, length - 0.9))
    place = target * [1, 0, 1] - ahead * gap + aside * rng.normal(0, 0.28)
    if np.linalg.norm((people - place)[:, ::2], axis=1).min() < 0.7:
        return
    if rng.random() < 0.35:
        radius, height = rng.uniform(0.03, 0.1), rng.uniform(0.8, 2.6)
        color = random_color(rng, 0.1, 0.8, 0.3)
        props.cylinder(place, radius, height, color, pick(rng, "wood", "concrete"))
    else:
        stand_thing(rng, props, place)
