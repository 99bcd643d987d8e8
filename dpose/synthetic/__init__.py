"""Open training data: dressed people in furnished scenes, ray-cast from the open body, in the real formats.

`sample_scene` makes a scene from a seed; `generate` writes crops as shards for training and full frames in
BEDLAM's layout for looking at and for testing the BEDLAM reader. Everything is a function of (seed, split,
scene number), so a small set is the beginning of a large one and any machine makes the same people.

`poses` and `people` say who does what in which clothes, `props` and `surroundings` what is around them,
`scene` puts it together with a camera; `raytrace` (the kernels) and `viewport` take the picture, `generate`
writes files.
"""

from dpose.synthetic.dataset import VERSION, add_arguments, generate, person_samples, run, write_frames
from dpose.synthetic.scene import Scene, sample_scene
from dpose.synthetic.viewport import Prepared

__all__ = [
    "VERSION", "Prepared", "Scene", "add_arguments", "generate", "person_samples", "run", "sample_scene",
    "write_frames",
]  # fmt: skip
