# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Photo in, people out
#
# This page takes photographs through the whole pipeline: a detector finds the people, the network predicts a
# body for each of them, and the bodies are placed in the camera of the picture. The page shows the results, what
# they depend on, and where they are wrong. [From rendered people to photographs](photographs.ipynb) measures
# the network on photographs with annotated joints.
#
# :::{chapter}
# :needs: [The network at a glance](architecture.ipynb), [Bounding box and camera](camera.ipynb)
# :learn: how to get bodies from a photograph, in Python and in a terminal; what a prediction contains; how box and focal length change it; which files other programs read
# :::
#
# In a terminal, `dpose predict photo.jpg folder/ --out out/` does the same; `dpose app` opens a page in the
# browser that takes pictures. With `-p picture photo.jpg` this notebook uses another picture, with `-p checkpoint`
# another network.

# %% tags=["parameters", "hide-input"] mystnb={"code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"}
picture = None  # file of a photograph; None: NASA's portrait of Eileen Collins
checkpoint = "lite"  # a shipped network, or a file

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the setup", "code_prompt_hide": "Hide the setup"}
from dpose.figures import check_parameters

check_parameters()

import tempfile
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import roma
import skimage.data
import smplx
import torch
from IPython.display import Markdown, display
from matplotlib.cbook import get_sample_data
from PIL import Image

import dpose
from dpose.body import OPEN_BODY, Bodies
from dpose.camera import crop_intrinsics
from dpose.data.frames import frames_of, mask_numbers, read_person_mask
from dpose.data.labels import Labels
from dpose.export import DEFAULT, SIDE_VIEW, colour, sheet, turned_view, write
from dpose.figures import NBSP, colour_depth, colour_parts, html_table, mesh_figure, picture_grid, plotly_html
from dpose.paths import body_models, data_root
from dpose.pictures import read_image
from dpose.predictor import overlay
from dpose.render import shade
from dpose.results import read_json
from dpose.synthetic import write_frames

torch.set_grad_enabled(False)
plt.rcParams["figure.dpi"] = 130
temporary = tempfile.TemporaryDirectory()
SIDE = 256  # pixels of small pictures


def distance(person):
    """Metres from the camera to the pelvis."""
    return float(np.linalg.norm(person.joints[0]))


def angles_between(first, second):
    """Degrees between the joint rotations of two predictions, (22,)."""
    rotmats = (torch.from_numpy(person.rotmats) for person in (first, second))
    return np.rad2deg(roma.rotmat_geodesic_distance(*rotmats).numpy())


def shown(picture):
    """A picture as the output of a cell."""
    return Image.fromarray(picture)


# %% [markdown]
# ## One photograph
#
# `people = dpose.predict("photo.jpg")` returns the people in one picture. A `Predictor` does the same for many: it loads the network, its
# body and the detector once. Called with a picture (a file, an array or a tensor), a list of pictures or a folder, it returns
# the people in them.

# %%
photo = read_image(picture or skimage.data.astronaut())
predictor = dpose.Predictor(checkpoint)
people = predictor(picture or photo)

# %% tags=["remove-input"]
text = "; ".join(f"score {one.score:.2f}, {distance(one):.2f}{NBSP}m from the camera" for one in people)
Markdown(f"People found: {len(people)} ({text}).") if people else Markdown("Nobody was found.")

# %% [markdown]
# `dpose.export.sheet` draws everything about one person. The first tile is the square that the network receives. The
# body is the result. The part map decides where the features of each joint are read; the depth map is a second
# output, which is not used for the body. Limbs outside of the picture are predicted too, from the poses that are
# common in the training data.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Six pictures of one person: the photograph, the predicted body over it, the part map, the body from the side and from above, the depth map."}}
shown(sheet(people[0], photo) if people else photo)

# %% [markdown]
# A {py:obj}`~dpose.predictor.Person` holds numpy arrays, of which the table has the main ones. Lengths are in metres, rotations in radians, and the camera frame has x right, y
# down and z forward.

# %% tags=["remove-input"]
MEANINGS = {
    "vertices": "of the body, camera frame",
    "joints": "of the body, camera frame; the first 22 are the body's, the others those of hands and head",
    "joints2d": "their projections, pixels of the picture",
    "global_orient": "axis-angle of the root in the camera frame",
    "body_pose": "axis-angle of joints 1 to 21, relative to their parents",
    "betas": "shape",
    "transl": "SMPL-X's translation, camera frame",
    "cam_int": "intrinsics of the picture, pixels",
    "box": "left, top, width, height around the visible person, pixels",
    "parts": "labels, 0 for the background",
    "depth": "from 0.1, near, to 1, far, relative to the person",
}
if people:
    values = {name: getattr(people[0], name) for name in MEANINGS}
    rows = [(name, MEANINGS[name], str(value.shape)) for name, value in values.items() if value is not None]
    table = html_table(("field", "meaning", "shape"), rows, align="llr")
else:
    table = None
table

# %% [markdown]
# ## Three photographs
#
# Two more photographs that installed packages contain: a cameraman from the side (scikit-image, CC0) and Grace
# Hopper to the waist (matplotlib; US Navy, public domain). The true bodies of these people are unknown. A measure
# that does without them is whether the predicted body covers the predicted part map: the titles of the rows give the
# intersection over union (IoU) of the two silhouettes.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Photographs with predicted bodies, part and depth maps, and the bodies from the side (camera on the left).", "name": "fig-photographs"}, "image": {"alt": "Three rows, one for each of three people in photographs: the photograph, the body over it, the part map, the depth map, the body from the side. The maps have the outlines of the people. The bodies have roughly the pose, but lie too low: their heads are at the chin or the chest of the people."}}
def silhouette(person):
    """Pixels of the maps (M, M) that the predicted body covers."""
    side, square = len(person.parts), (torch.as_tensor(person.center), torch.tensor(person.scale))
    camera = crop_intrinsics(torch.as_tensor(person.cam_int), *square, side)
    black = np.zeros((side, side, 3), np.uint8)
    return shade(person.vertices, torch.as_tensor(person.faces), camera, black, opacity=1, samples=1).any(-1)


def agreement(person):
    """Text with the intersection over union of the body's silhouette and the part map, if there is one."""
    if person.parts is None:
        return ""
    body, parts = silhouette(person), person.parts > 0
    return f"\nIoU {(body & parts).sum() / (body | parts).sum():.2f}"


photos = {
    "astronaut": skimage.data.astronaut(),
    "cameraman": read_image(skimage.data.camera()),
    "Grace Hopper": read_image(get_sample_data("grace_hopper.jpg", asfileobj=False)),
}
rows, labels, columns = [], [], {}
for number, (name, image) in enumerate(photos.items(), start=1):
    person = predictor(image)[0]
    crop = cv2.resize(person.crop, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    square = torch.as_tensor(person.center), torch.tensor(person.scale)
    camera = crop_intrinsics(torch.as_tensor(person.cam_int), *square, SIDE)
    covered = None if person.parts is None else person.parts > 0
    columns = {
        "picture": crop,
        "body": shade(person.vertices, torch.as_tensor(person.faces), camera, crop, colour(number)),
        "parts": None if person.parts is None else colour_parts(person.parts),
        "depth": None if person.depth is None else colour_depth(person.depth, covered),
        "from the side": turned_view(person, SIDE_VIEW, SIDE, number),
    }
    columns = {title: one for title, one in columns.items() if one is not None}
    rows.append([cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST) for one in columns.values()])
    labels.append(name + agreement(person))
picture_grid(rows, tuple(columns), labels, side=1.5)
plt.show()

# %% [markdown]
# The part maps follow the outlines of the people, also where clothes hide the body; some labels are wrong, for instance a sleeve
# that is labelled as a thigh. The bodies are less accurate. These people are cut off at the waist or the thighs, so legs and distance are
# guesses, and the bodies lie too low. [From rendered people to photographs](photographs.ipynb) measures the errors on people with
# annotated joints.
#
# What helps:
#
# - the whole person in the picture: the fewer joints are cut off, the smaller are the errors ([What the errors depend
#   on](analysis.ipynb));
# - a focal length, from the EXIF data of an unedited file or given as `--focal`, for the distance;
# - boxes by hand (`--box`) where the detector misses people or takes two for one.
#
# ## Several people, and the truth
#
# A frame of the open test split has two people, whose true bodies and camera are known. `cam_int` passes the
# camera to the predictor.

# %% tags=["remove-input"]
frames = data_root() / "frames"
if not (frames / "labels" / "open_test.npz").is_file():
    frames = Path(temporary.name) / "frames"
    write_frames(frames, "test", 24, progress=False)
labels = Labels.load(frames / "labels" / "open_test.npz")
people_of = frames_of(labels)  # rows of the table by frame
images = {name: read_image(frames / "open_test" / "png" / name) for name in people_of}
truth = Bodies()(str(labels.body[0]))


def true_bodies(rows):
    """Vertices (P, V, 3) and joints (P, J, 3) of people of the labels, camera frame."""
    pose = torch.as_tensor(labels.pose_cam[rows, :66]).view(-1, 22, 3)
    shape, place = torch.as_tensor(labels.shape[rows]), torch.as_tensor(labels.trans_cam[rows])
    posed = truth(shape, pose, place, form="axis-angle")
    return posed.vertices.numpy(), posed.joints.numpy()


# %%
found = {name: predictor(image) for name, image in images.items() if len(people_of[name]) == 2}
several = next(name for name, people in found.items() if len(people) == 2)
rows = people_of[several]
people = predictor(images[several], cam_int=labels.cam_int[rows[0]])

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Part of a frame of the open test split, with predicted and with true bodies.", "name": "fig-several"}, "image": {"alt": "Two standing people in a picture, and the same with predicted and with true bodies drawn over them. The true bodies lie inside the outlines of the people, the predicted ones lie partly beside them."}}
vertices, joints = true_bodies(rows)
colours = [colour(1), colour(2)]
nearest = [int(np.argmin(np.linalg.norm(joints[:, 0] - one.joints[0], axis=1))) for one in people]
true = shade(vertices[nearest], truth.faces, people[0].cam_int, images[several], colours)
drawn = overlay(people, images[several], color=colours)
corners = np.array([[*one.box[:2], *(one.box[:2] + one.box[2:])] for one in people])
left, top = (corners.min(0)[:2] - 40).clip(0).astype(int)
right, bottom = (corners.max(0)[2:] + 40).astype(int)
cuts = [one[top:bottom, left:right] for one in (images[several], drawn, true)]
picture_grid([cuts], ("picture", "predicted", "true"), side=2.4)
plt.show()

# %% tags=["remove-input"]
table = []
for number, (one, i) in enumerate(zip(people, nearest, strict=True), start=1):
    apart = one.joints[:22] - one.joints[0] - (joints[i, :22] - joints[i, 0])
    table.append(
        (
            str(number),
            f"{one.score:.2f}",
            f"{distance(one):.2f}{NBSP}m",
            f"{np.linalg.norm(joints[i, 0]):.2f}{NBSP}m",
            f"{1000 * np.linalg.norm(apart, axis=1).mean():.0f}{NBSP}mm",
        )
    )
html_table(("person", "score", "distance", "true distance", "MPJPE"), table)

# %% [markdown]
# The bodies are in one space, so they can be turned together:

# %% tags=["remove-input"]
meshes = [mesh for one, i in zip(people, nearest, strict=True) for mesh in (vertices[i], one.vertices)]
names = [f"{i}, {kind}" for i in range(1, 1 + len(people)) for kind in ("true", "predicted")]
figure = mesh_figure(meshes, [truth.faces.numpy(), people[0].faces] * len(people), names)
plotly_html(figure.update_layout(scene_camera_eye={"x": 0.0, "y": -2.4, "z": 0.1}))

# %% [markdown]
# ## What the detector misses
#
# The detector is NanoDet-g, 3.8 million weights trained on the photographs of COCO. Its input is the whole
# picture, shrunk to 416 pixels. The cell compares its boxes with the boxes around the visible pixels of all people
# in the frames of the open test split. A person counts as found if one of the detector's boxes has an IoU of at least 0.5 with
# the person's box.


# %% tags=["remove-input"]
def box_of(mask):
    """Left, top, width and height of the true pixels of a mask (H, W)."""
    y, x = np.nonzero(mask)
    return np.array([x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1], float)


def iou(one, other):
    """Intersection over union of two boxes."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[:2] + one[2:4], other[:2] + other[2:4])
    both = np.clip(high - low, 0, None).prod()
    return both / (one[2] * one[3] + other[2] * other[3] - both)


MIN_IOU, MIN_PIXELS = 0.5, 400
masks, checked = frames / "open_test" / "masks", []  # of each frame: name, boxes found, true ones, their IoUs
for name, image in images.items():
    found = predictor.detector(image)
    visible = [read_person_mask(masks, name, number) for number in mask_numbers(masks, name)]
    people_boxes = [box_of(mask) for mask in visible if mask.sum() >= MIN_PIXELS]
    table = np.array([[iou(box, known) for known in people_boxes] for box in found])
    checked.append((name, found, people_boxes, table.reshape(len(found), len(people_boxes))))
total = sum(len(known) for _, _, known, _ in checked)
recalled = sum((ious.max(0, initial=0) >= MIN_IOU).sum() for *_, ious in checked)
extra = sum(len(ious) - min((ious >= MIN_IOU).any(0).sum(), len(ious)) for *_, ious in checked)
empty = ("coffee", "chelsea", "rocket")  # photographs without people
wrong = sum(len(predictor(getattr(skimage.data, name)())) > 0 for name in empty)
Markdown(
    f"Of {total} people with at least {MIN_PIXELS} visible pixels in {len(checked)} frames, {recalled} are found; {extra} further boxes "
    f"surround parts of people, people a second time, or nobody. Three photographs show no people (coffee, a cat, a "
    f"rocket); the detector finds people in {wrong or 'none'} of them."
)

# %% [markdown]
# The frames with the most errors. White boxes are people who are not found, yellow boxes match nobody.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Faults of the detector: people who are missed (white) and superfluous boxes (yellow, with scores).", "name": "fig-missed"}, "image": {"alt": "Four rendered scenes. White boxes surround people who are completely visible and still missed. Yellow boxes surround a motorcycle on a wall, a seated person together with it, and people who are seated or cut off."}}
def faults(entry):
    """Missed boxes and superfluous detections of a frame."""
    _, found, known, ious = entry
    best = ious.argmax(0) if len(found) else []
    used = {int(i) for i, column in zip(best, ious.T, strict=False) if column.max() >= MIN_IOU}
    missed = [box for box, column in zip(known, ious.T, strict=True) if column.max(initial=0) < MIN_IOU]
    return missed, [box for i, box in enumerate(found) if i not in used]


worst = sorted(checked, key=lambda entry: -sum(map(len, faults(entry))))[:4]
drawn = []
for entry in worst:
    canvas = images[entry[0]].copy()
    missed, superfluous = faults(entry)
    for boxes, ink in ((missed, (255, 255, 255)), (superfluous, (255, 220, 0))):
        for x, y, w, h, *score in boxes:
            corners = (round(x), round(y)), (round(x + w), round(y + h))
            cv2.rectangle(canvas, *corners, (0, 0, 0), 9)
            cv2.rectangle(canvas, *corners, ink, 5)
            if score:
                where = (round(x) + 10, max(round(y) + 56, 56))
                cv2.putText(canvas, f"{score[0]:.2f}", where, cv2.FONT_HERSHEY_SIMPLEX, 1.8, (0, 0, 0), 12)
                cv2.putText(canvas, f"{score[0]:.2f}", where, cv2.FONT_HERSHEY_SIMPLEX, 1.8, ink, 4)
    drawn.append(canvas)
picture_grid([drawn[:2], drawn[2:]], side=3.4)
plt.show()

# %% [markdown]
# Some boxes are too large, some people get several boxes, and some objects are detected as people. A larger
# minimum score (`--min-score`) removes such boxes, but also people. Of several boxes of one person only the best
# is kept if they overlap by an IoU of 0.6, or if one is only the upper part of another with a larger score. Small
# people are not found:

# %% tags=["remove-input"]
portrait, found = photos["astronaut"], []
for height in range(200, 8, -4):  # of the portrait, in pixels of what the detector sees
    small = cv2.resize(portrait, (height, height), interpolation=cv2.INTER_AREA)
    scene = np.full((416, 416, 3), 114, np.uint8)
    scene[100 : 100 + height, 100 : 100 + height] = small
    found.append((height, len(predictor.detector(scene)) > 0))
smallest = min((height for height, seen in found if seen), default=None)
Markdown(
    f"The portrait, pasted into a grey picture in {len(found)} sizes, is found in {sum(seen for _, seen in found)} of "
    f"them; the smallest one found is {smallest} of the detector's 416 pixels high."
)

# %% [markdown]
# Boxes by hand replace the detector: `predictor(photo, boxes=[(60, 0, 330, 512)])`. A detector of your own is a
# function from a picture to boxes and scores, or an ONNX file: `dpose.Predictor(detector=...)`.
#
# ## From the detector's box to the network's square
#
# The detector's {term}`bounding box` is tight around the visible person: left, top, width, height. The network
# receives a square with the same centre, whose side is the longer side of the box (`dpose.predictor.BOX_FACTOR` is 1). In
# training, most squares surround the *joints* instead: 1.2 times their extent. `benchmarks/box_factor.py` compares
# the two on the open data.

# %% tags=["remove-input"]
record = Path(dpose.__file__).parents[1] / "results" / "box_factor.json"
if record.is_file():
    measured = read_json(record)
    everybody, whole = (measured["ratios"][name] for name in ("all", "whole"))
    rows = []
    for name, errors in measured["errors"].items():
        around = f"visible person, times {name}" if name[0].isdigit() else "joints, times 1.2"
        rows.append((around, f"{errors['mpjpe']:.1f}{NBSP}mm", f"{errors['pa_mpjpe']:.1f}{NBSP}mm"))
    text = (
        f"A training square is {everybody['quartiles'][1]:.2f} times as large as the longer side of the box around the visible person (median of "
        f"{everybody['people']:,} people; half of them lie between {everybody['quartiles'][0]:.2f} and "
        f"{everybody['quartiles'][2]:.2f}), {whole['quartiles'][1]:.2f} times for the {whole['people']:,} people of whom "
        f"nothing is hidden or cut off. The table has the errors of `{measured['network']}` with squares of other sizes."
    )
    header = ("square around", "MPJPE", "PA-MPJPE")
    display(
        Markdown(text), html_table(header, rows, f"{measured['samples']:,} people of the open test split")
    )

# %% [markdown]
# ## The focal length decides the distance
#
# A small person near a wide-angle lens looks like a tall one far away. The focal length in pixels is taken from
# the caller (`focal` or `cam_int`), else from the EXIF data of the file (the equivalent for 35 mm film, which
# phones write). Otherwise the image diagonal is used, which corresponds to a common lens. `Person.focal_from`
# names the source.

# %% tags=["remove-input"]
image = photos["cameraman"]
diagonal = np.hypot(*image.shape[:2])
exif = Image.Exif()
exif.get_ifd(0x8769)[0xA405] = 85  # millimetres
Image.fromarray(image).save(Path(temporary.name) / "portrait.jpg", exif=exif, quality=95)
(reference,) = predictor(image)
cases = [predictor(image, focal=factor * diagonal)[0] for factor in (0.5, 2)]
cases = [reference, *cases, predictor(Path(temporary.name) / "portrait.jpg")[0]]
rows = []
for one in cases:
    apart = (one.joints - one.joints[0] - reference.joints + reference.joints[0])[:22]
    moved = np.linalg.norm(one.joints2d[:22] - reference.joints2d[:22], axis=1).mean()
    rows.append(
        (
            one.focal_from,
            f"{one.cam_int[0, 0]:,.0f}{NBSP}pixels",
            f"{distance(one):.2f}{NBSP}m",
            "–" if one is reference else f"{1000 * np.linalg.norm(apart, axis=1).mean():.0f}{NBSP}mm",
            "–" if one is reference else f"{moved:.1f}{NBSP}pixels",
        )
    )
html_table(
    (
        "focal length from",
        "focal length",
        "distance",
        "pose differs by",
        "in the picture by",
    ),
    rows,
    "The cameraman with other focal lengths, compared with the first row. Pose: mean distance of the 22 joints, relative to the pelvis",
)

# %% tags=["remove-input"]
nearer, farther = (distance(one) / distance(reference) for one in cases[1:3])
Markdown(
    f"With half the focal length the distance is {nearer:.2f} times as large, with twice the focal length {farther:.2f} times. The pose changes, "
    "too, because the direction from the camera to the box is an input of the network, and depends on the focal length. The "
    "principal point of a cropped photo is not its middle: pass `cam_int`."
)

# %% [markdown]
# ## Files for other programs
#
# `dpose predict` and `dpose.export.write` make a folder for each picture, below `prediction/` or the folder that `--out` names;
# `--save` selects the kinds of files.

# %%
folder = Path(temporary.name) / "prediction" / "photo"
files = write(people, folder, images[several], (*DEFAULT, "amass"))

# %% tags=["remove-input"]
CONTENTS = {
    "overlay.jpg": "the bodies over the picture",
    "people.json": "camera, boxes, parameters and joints of everybody",
    "scene.glb": "the meshes in their places, for Blender, browsers and other viewers",
    "person-1.npz": "parameters with the names of the smplx package, joints, camera, maps",
    "person-1-amass.npz": "parameters in the layout of AMASS, for SMPL-X's add-on for Blender",
    "person-1-parts.png": "the part map",
    "person-1-depth.png": "the depth map",
}
sizes = {file.name: f"{file.stat().st_size / 1000:,.0f}{NBSP}kB" for file in files}
rows = [(name, content, sizes[name]) for name, content in CONTENTS.items() if name in sizes]
html_table(("file", "content", "size"), rows, align="llr")

# %% [markdown]
# The parameters make the same mesh in the [smplx](https://pypi.org/project/smplx/) package. `num_betas` has to be
# passed, because smplx takes 10 where the open body has 11.

# %%
p = np.load(folder / "person-1.npz")
options = {"use_pca": False, "flat_hand_mean": True, "num_betas": int(p["num_betas"])}
names = ("betas", "global_orient", "body_pose", "transl")
models = OPEN_BODY.parent.parent if people[0].body == "open" else body_models()
mesh = smplx.create(models, "smplx", **options)(**{k: torch.from_numpy(p[k]) for k in names})

# %% tags=["remove-input"]
apart = np.linalg.norm(mesh.vertices[0].numpy() - people[0].vertices, axis=1).max()
Markdown(f"Its vertices differ from `Person.vertices` by at most {1000 * apart:.3f}{NBSP}mm.")

# %% [markdown]
# In Blender, `scene.glb` is imported as it is. To change the pose, install the
# [SMPL-X add-on](https://gitlab.tuebingen.mpg.de/jtesch/smplx_blender_addon) and add `person-1-amass.npz` as an
# animation with one frame, in the format "AMASS".
#
# ## Videos
#
# `dpose predict film.mp4` finds the people of each frame and gives the same person the same number and colour in
# all of them. `--smooth` smooths pose, shape and place over time.
#
# ## The released checkpoint
#
# The authors' network is used in the same way. No result of it is shown here, because neither its weights nor its
# body model are part of this repository.
#
# 1. Download `paper_arxiv.ckpt` from the authors' page, and SMPL-X (neutral, `SMPLX_NEUTRAL.npz`) from
#    [its site](https://smpl-x.is.tue.mpg.de), which requires an account.
# 2. `export DPOSE_BODY_MODELS=~/models`, the folder that contains `smplx/SMPLX_NEUTRAL.npz`. `dpose doctor` reports
#    whether it is found.
# 3. `dpose predict photo.jpg --checkpoint paper_arxiv.ckpt`, `dpose app --checkpoint paper_arxiv.ckpt`, or
#    `dpose.Predictor("paper_arxiv.ckpt")`; this page with `-p checkpoint paper_arxiv.ckpt`. Only tensors and plain
#    values of the file are unpickled.
#    `dpose convert paper_arxiv.ckpt paper.safetensors` makes a file without pickles.
#
# ## Takeaways
#
# - One call turns a photograph into people with a body, its place in front of the camera, and both maps.
# - Box and focal length are inputs as well: other values change the place of the body and the body itself.
# - The exported parameters reproduce the predicted body in `smplx`.
#
# ## Exercises
#
# **Exercise 1.** The focal length of most photographs is unknown. Predict the first person of the first photograph again
# with a focal length twice as large. By which factor does the distance change, and does the body change, too?

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
people = predictor(picture or photo)  # `people` was the frame's
if people:
    focal = float(people[0].cam_int[0, 0])
    longer = predictor(photo, [people[0].box], focal=2 * focal)[0]
    same = predictor(photo, [people[0].box], focal=focal)[0]
    turned = angles_between(same, longer)  # (22,) degrees
    # The depth is 2 f / (s b), with the same side b of the square in both cases.
    enlarged = 2 * same.transl[2] / longer.transl[2]
    solution = (
        f"The distance grows by the factor {distance(longer) / distance(same):.2f}. It would be 2 with the same camera "
        "scale $s$. The focal length is part of the box information $\\mathbf q$, which is an input of the network, so $s$ "
        f"changes, too, by the factor {enlarged:.2f}. The body changes as well: its joint rotations differ by "
        f"{turned.mean():.1f}° on average."
    )
else:
    solution = "Nobody was found."
Markdown(solution)

# %% [markdown]
# **Exercise 2.** The two halves of a person are predicted from one crop. Predict the same person from the upper
# half of the box alone, and compare the rotations of arms and legs.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
if people:
    x, y, wide, high = people[0].box
    half = predictor(photo, [(x, y, wide, high / 2)], focal=focal)[0]
    turned = angles_between(same, half)
    legs, arms = (
        [1, 2, 4, 5, 7, 8],
        [16, 17, 18, 19, 20, 21],
    )  # hips, knees, ankles; shoulders, elbows, wrists
    solution = (
        f"The arms turn by {turned[arms].mean():.0f}°, the legs by {turned[legs].mean():.0f}° on average, all joints by "
        f"{turned.mean():.1f}°. The box sets the scale of the crop and what is visible in it."
    )
Markdown(solution)
