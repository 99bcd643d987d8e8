"""The depth target: this person's visible pixels brought to [0.1, 1], everything else exactly 0 (spec 5).

Computed after the jitter, on the pixels in view, so that the target always spans its range: 0.1 is the
nearest visible point of the person in the crop, 1 the farthest. The rule of the released code is there by
name.
"""

import numpy as np

NEAR = 0.1  # target of the nearest visible point
RULES = ("paper", "released")


def depth_target(depth: np.ndarray, mask: np.ndarray | None = None, rule: str = "paper") -> np.ndarray:
    """Depth in metres -> target without unit, float32, of the same shape (H, W).

    depth is 0, negative or not finite where there is nothing; mask (H, W) bool narrows it to the person.
    "paper": background 0, the person's values linear from [nearest, farthest] to [0.1, 1]; a flat depth is
    0.1 throughout (it is all nearest), nobody in view gives zeros. "released": between the 5th and 95th
    percentile, clipped to [0, 1], background included, so that it may differ from 0; flat gives zeros (spec
    11, 30-32).
    """
    if rule not in RULES:
        raise ValueError(f"unknown depth rule {rule!r}; choose one of {', '.join(RULES)}")
    person = np.isfinite(depth) & (depth > 0)
    if mask is not None:
        person &= mask.astype(bool)
    target = np.zeros(depth.shape, np.float32)
    values = depth[person]
    if not values.size:
        return target
    near, far = (values.min(), values.max()) if rule == "paper" else np.percentile(values, [5, 95])
    span = far - near
    if rule == "paper":
        scaled = (values - near) / span if span > 0 else 0.0
        target[person] = NEAR + (1 - NEAR) * scaled
        return target.clip(0, 1)
    if span <= 0:
        return target
    return (NEAR + (1 - NEAR) * (np.where(person, depth, 0) - near) / span).clip(0, 1).astype(np.float32)
