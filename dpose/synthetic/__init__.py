"""Open training data: dressed people of the open body in furnished scenes, rendered on the CPU.

`sample_scene` makes a scene from (seed, split, scene number) alone, so a small data set is the beginning of a
large one and every machine makes the same people. `generate` writes crops as shards for training and full
frames in BEDLAM's layout. Of `dpose.data` only the label and shard formats and the part labels are used.

The people and pictures of training vary more than those of validation and test, which stay what they were:
`variety` has the options. Labels are those of the bare body: parts without occlusion, depth of what is
visible of the person, clothes and hair included. What people carry belongs to the environment.

Modules: `poses` and `people` sample body poses and outfits, `belongings`, `props`, `textures` and
`surroundings` the environment, `scene` combines them with a camera; `viewport` renders pictures with the
kernels of `raytrace` (validation, test, full frames) or the faster ones of `rasterize` (training); `finish`
changes them as a lens and a sensor do; `samples` adds labels, and `dataset` writes the files.
"""

from dpose.synthetic.dataset import VERSION, add_arguments, generate, run, write_frames
from dpose.synthetic.samples import person_samples
from dpose.synthetic.scene import Scene, sample_scene
from dpose.synthetic.viewport import SceneRenderer

__all__ = [
    "VERSION",
    "Scene",
    "SceneRenderer",
    "add_arguments",
    "generate",
    "person_samples",
    "run",
    "sample_scene",
    "write_frames",
]
