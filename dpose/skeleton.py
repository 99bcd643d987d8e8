"""Joint names and kinematic trees of SMPL-X and SMPL."""

# fmt: off
PART_NAMES = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle",
    "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
)
JOINT_NAMES = (
    *PART_NAMES, "jaw", "left_eye", "right_eye",
    *(f"{side}_{finger}{i}" for side in ("left", "right")
      for finger in ("index", "middle", "pinky", "ring", "thumb") for i in (1, 2, 3)),
)
PARENTS = (
    -1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15,
    20, 25, 26, 20, 28, 29, 20, 31, 32, 20, 34, 35, 20, 37, 38,
    21, 40, 41, 21, 43, 44, 21, 46, 47, 21, 49, 50, 21, 52, 53,
)
# fmt: on

LIMBS = tuple(  # joints of the limbs, as COCO names them
    f"{side}_{joint}"
    for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    for side in ("left", "right")
)

# SMPL has the same body joints, and one joint per hand.
SMPL_JOINT_NAMES = (*PART_NAMES, "left_hand", "right_hand")
SMPL_PARENTS = (*PARENTS[:22], 20, 21)

NUM_BODY_JOINTS = len(PART_NAMES)  # 22, pelvis to wrists: the joints whose rotations the network predicts
NUM_CLASSES = NUM_BODY_JOINTS + 1  # 23 part labels: 0 is the background, j + 1 the part of body joint j
NUM_JOINTS = len(JOINT_NAMES)  # 55, SMPL-X with face and fingers
NUM_SMPL_JOINTS = len(SMPL_JOINT_NAMES)  # 24
