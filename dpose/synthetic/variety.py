"""What training has beyond the people and pictures of validation and test, as probabilities.

Validation and test stay as they are (`PLAIN`), so that numbers remain comparable; "hard" is a test split with
all of the variety. Each option draws from a generator of its own: switching one off changes nothing else,
except where people and camera depend on it.
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Variety:
    """Probabilities per scene or person; 0 switches an option off."""

    poses: float = 0.5  # person: sports, dance, reaching, crouching, lying (`poses.sample_wide_pose`)
    groups: float = 0.35  # scene: two to five people who touch and hide one another
    facing: float = 0.5  # scene: the person looked at faces the camera, more or less
    framing: float = 0.3  # scene: the frame cuts the body, often to the upper half, or the person is far away
    formats: float = 0.3  # scene: pictures that are upright, square, or 4:3
    lenses: float = 0.3  # scene: wide and long lenses
    views: float = 1.0  # scene: a second camera, for half the work per picture
    tables: float = 0.15  # scene: a person stands or sits behind a table
    occluders: float = 0.15  # scene: a second object between the camera and a person
    light: float = 1.0  # scene: sharper shadows; half of them at night, in backlight, in hard light, ...
    backgrounds: float = 0.6  # scene: plain or cluttered surroundings
    clothes: float = 0.6  # person: loose clothes with folds, coats, prints
    belongings: float = 0.4  # person: caps, bags, things in the hands or under the feet
    boxes: float = 0.5  # person: the box surrounds the visible silhouette instead of the joints
    tone: float = 0.7  # scene: contrast, saturation, white balance, vignette
    focus: float = 0.25  # scene: the background is out of focus
    resolution: float = 0.1  # person: few pixels, with noise and JPEG, enlarged

    def without(self, *names: str) -> "Variety":
        """The same with some options switched off. Raises ValueError for an unknown name."""
        if unknown := sorted(set(names) - set(OPTIONS)):
            raise ValueError(f"unknown options {', '.join(unknown)}; choose from {', '.join(OPTIONS)}")
        return replace(self, **dict.fromkeys(names, 0.0))


OPTIONS = tuple(option.name for option in fields(Variety))
MOST_PEOPLE = 5  # in a scene
PLAIN = Variety().without(*OPTIONS)


@dataclass(frozen=True)
class Options:
    """The options that one scene takes: a function of its variety and key alone."""

    variety: Variety
    key: tuple[int, ...]

    @cached_property
    def _chances(self) -> np.ndarray:
        return np.random.default_rng(self.key).random((MOST_PEOPLE, len(OPTIONS)))

    def __call__(self, name: str, person: int = 0) -> np.random.Generator | None:
        """The generator of an option if it is taken, else None."""
        number = OPTIONS.index(name)
        if getattr(self.variety, name) and self._chances[person, number] < getattr(self.variety, name):
            return np.random.default_rng([*self.key, number, person])
        return None
