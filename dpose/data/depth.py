"""The depth target: this person's visible pixels brought to [0.1, 1], everything else exactly 0 (spec 5).

Computed after the jitter, on the pixels in view, so that the target always spans its range: 0.1 is the
nearest visible point of the person in the crop, 1 the farthest. The rule of the released code is there by
name.

Depth and masks come from different passes of a game engine: a mask's soft edge, in hair above all, takes in
pixels whose depth is the wall's or the sky's. One of them would press the whole person into 0.1. So the
paper's rule first asks which pixels can be the person's.
"""

import numpy as np

NEAR = 0.1  # target of the nearest visible point
RULES = ("paper", "released")
REACH = 2.5  # metres: nobody's hand or foot is farther from the middle of them


def person_pixels(depth: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Where depth (H, W) in metres can be the person's -> (H, W) bool.

    That is where mask (H, W) bool holds, depth is finite and positive, and not more than `REACH` from the
    median of such depths (the lower of two middle ones, so that it is some pixel's). What has leaked in from
    within that reach stays, for depth alone cannot tell it from an arm. A person whose depths span less than
    `REACH` keeps every pixel. Raises TypeError for whole numbers, which cannot be metres.
    """
    person = _measured(depth, mask)
    person[person] = _in_reach(depth[person])
    return person


def _in_reach(values: np.ndarray) -> np.ndarray:
    """Which of a person's measured depths (N,) are not too far from the median."""
    if not values.size or values.max() - values.min() <= REACH:
        return np.ones(values.shape, bool)
    middle = (values.size - 1) // 2
    return np.abs(values - np.partition(values, middle)[middle]) <= REACH


def _measured(depth: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Where the mask holds and depth is a distance."""
    if not np.issubdtype(depth.dtype, np.floating):
        raise TypeError(f"depth is {depth.dtype}; bring it to metres first, in floating point")
    measured = np.isfinite(depth) & (depth > 0)
    return measured if mask is None else measured & mask.astype(bool)


def depth_target(depth: np.ndarray, mask: np.ndarray | None = None, rule: str = "paper") -> np.ndarray:
    """Depth in metres -> target without unit, float32, of the same shape (H, W).

    depth is 0, negative or not finite where there is nothing; mask (H, W) bool narrows it to the person.
    "paper": background 0, the person's values linear from [nearest, farthest] to [0.1, 1], the person being
    `person_pixels`; a flat depth is 0.1 throughout (it is all nearest), nobody in view gives zeros.
    "released": between the 5th and 95th percentile of all there is, clipped to [0, 1], background included,
    so that it may differ from 0; flat gives zeros (spec 11, 30-32). Raises ValueError for other rules,
    TypeError for whole numbers. Half precision is computed in single.
    """
    if rule not in RULES:
        raise ValueError(f"unknown depth rule {rule!r}; choose one of {', '.join(RULES)}")
    if depth.dtype == np.float16:
        depth = depth.astype(np.float32)
    person = _measured(depth, mask)
    values = depth[person]
    if rule == "paper":
        kept = _in_reach(values)
        if not kept.all():
            person[person], values = kept, values[kept]
    target = np.zeros(depth.shape, np.float32)
    if not values.size:
        return target
    if rule == "paper":
        near, span = values.min(), values.max() - values.min()
        target[person] = NEAR + (1 - NEAR) * ((values - near) / span if span > 0 else 0.0)
        return target.clip(0, 1)
    near, far = np.percentile(values, [5, 95])
    if far <= near:
        return target
    beyond = np.where(person, depth, 0) - near
    return (NEAR + (1 - NEAR) * beyond / (far - near)).clip(0, 1).astype(np.float32)
