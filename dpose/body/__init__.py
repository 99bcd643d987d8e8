"""Body models: betas and joint rotations in, posed vertices and joints out.

`Body` (`dpose.body.model`) computes SMPL-X and SMPL. `load_body` and `Bodies` (`dpose.body.bodies`) resolve
names and files: the open body that is part of this package, or the licensed files that each user downloads
(`dpose.body.files`). Joints and vertices that are weighted sums of vertices are in `dpose.body.regressors`.
"""

from dpose.body.bodies import (
    BODY_NAMES,
    DEFAULT_BODY,
    OPEN_BODIES,
    OPEN_BODY,
    OPEN_SMPL,
    Bodies,
    check_record,
    load_body,
    num_rotations,
)
from dpose.body.model import FORMS, Body, BodyOutput
from dpose.skeleton import JOINT_NAMES, PARENTS, PART_NAMES, SMPL_JOINT_NAMES, SMPL_PARENTS

__all__ = [
    "BODY_NAMES",
    "DEFAULT_BODY",
    "FORMS",
    "JOINT_NAMES",
    "OPEN_BODIES",
    "OPEN_BODY",
    "OPEN_SMPL",
    "PARENTS",
    "PART_NAMES",
    "SMPL_JOINT_NAMES",
    "SMPL_PARENTS",
    "Bodies",
    "Body",
    "BodyOutput",
    "check_record",
    "load_body",
    "num_rotations",
]
