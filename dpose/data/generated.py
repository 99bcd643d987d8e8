"""People straight from the generator as training data, without files: `--data synth:`.

`synth:` stands for the training split that `dpose synth` writes, without end: loader processes render people
when a batch needs them. `synth:seed=7,size=280` sets the seed of `dpose synth` (default 0) and the side of
the crops in pixels (default: `MARGIN` times the side of the network's input).

An epoch is ten million scenes; epoch e has those of seed + e. Consumer k of n (a loader process of a rank)
renders scenes k, k + n, k + 2n, ...: for any n, a run sees the scenes about in their order, and each once. A
run that cannot resume exactly begins the next epoch, so it sees no picture twice either. The people are those
of `dpose synth` for the same seed; to mix such shards with `synth:`, give it another seed.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dpose.data.sample import MARGIN, SAMPLE_SIZE, Sample
from dpose.data.shards import check_sample
from dpose.paths import GENERATED, Data, data_roots, is_generated

LIMITS = {"seed": (0, 2**32 - 1), "size": (16, 2048)}  # as of `dpose synth`


@dataclass(frozen=True)
class Generated:
    """The source that `synth:` names, with the interface of `dpose.data.sources.Shards`.

    seed: of the generator. size: side of a crop in pixels.
    """

    seed: int = 0
    size: int = SAMPLE_SIZE[128]
    counts = None
    samples = float("inf")

    @property
    def name(self) -> str:
        return f"{GENERATED}seed={self.seed},size={self.size}"

    @property
    def pieces(self) -> list[str]:
        return [self.fingerprint]

    @property
    def bodies(self) -> dict[str, dict]:
        from dpose.synthetic.samples import open_body  # slow to import, and most data come from shards

        return {"open": open_body().record}

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits, of the generator's version, the seed, the size and the body."""
        from dpose.synthetic import VERSION

        return hashlib.sha256(repr((VERSION, self.name, self.bodies)).encode()).hexdigest()[:16]

    def people(self, at: list[int], consumer: int, consumers: int) -> Iterator[Sample]:
        """One consumer's share of an epoch, from a position on.

        at: [epoch, scenes done, people taken of the next scene], where to begin; updated in place. Of what
        comes before, only that scene is rendered again.
        """
        from dpose.synthetic import person_samples, sample_scene
        from dpose.synthetic.scene import MOST_SCENES, MOST_SEEDS

        epoch, done, taken = at
        for index in range(consumer + done * consumers, MOST_SCENES, consumers):
            people = person_samples(sample_scene((self.seed + epoch) % MOST_SEEDS, "train", index), self.size)
            for number, sample in enumerate(people[taken:], taken + 1):
                at[1:] = done, number
                yield check_sample(sample)
            done, taken = done + 1, 0

    def read(self, index: int, bad=None, lazy=None) -> Iterator[Sample]:
        """The people of the first epoch in order."""
        return self.people([0, 0, 0], 0, 1)

    def decode(self, sample: Sample) -> Sample:
        return sample


def generated(data: str, size: int = Generated.size) -> Generated:
    """The source that `data` names; size: where the name has none. Raises ValueError for a wrong option."""
    options = {"size": size}
    for text in filter(None, data.removeprefix(GENERATED).split(",")):
        name, _, value = text.partition("=")
        low, high = LIMITS.get(name, (1, 0))
        if not (re.fullmatch(r"[0-9]{1,10}", value) and low <= int(value) <= high):
            known = " and ".join(
                f"{name}=N with N from {low} to {high}" for name, (low, high) in LIMITS.items()
            )
            raise ValueError(f"{data}: {text!r} is not an option; these are, separated by commas: {known}")
        options[name] = int(value)
    return Generated(**options)


def with_sizes(data: Data, image_size: int) -> tuple[Path | str, ...]:
    """The data sets, each `synth:` with seed and size; image_size: side of the network's input in pixels."""
    size = round(MARGIN * image_size)
    return tuple(generated(one, size).name if is_generated(one) else one for one in data_roots(data))
