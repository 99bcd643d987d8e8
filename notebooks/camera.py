# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Bounding box and camera
#
# The network looks at a square cut out of a photograph. Cutting throws something away: *where* the square
# was. That sounds harmless, because a person is the same person everywhere in the picture. But a camera looks
# at the middle of its image straight and at the margin from the side, so one and the same crop, found at two
# places, shows two differently turned bodies.
#
# CLIFF {cite:p}`cliff` repairs this with three numbers beside the crop, and with a formula that takes the
# network's answer from the crop back into the whole image. D-PoSE {cite:p}`dpose` uses both. This page shows
# why the numbers are needed, computes them, and checks that the way back loses nothing.

# %% tags=["parameters"] nbmake={"mock": {"people": 4}}
width = 1280  # of the full image, pixels
height = 720
focal = 900.0  # of its camera, pixels: a wide lens
margin = 1075.0  # where the person near the edge stands: x of the box centre, pixels
distance = 4.2  # of the person in the middle, metres
checkpoint = "mini"  # a trained network: does it use the three numbers?
data = None  # data root; None: $DPOSE_DATA, else the open data
people = 24  # test people for that question
seed = 0

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import roma
import torch
from IPython.display import Markdown
from matplotlib.patches import Rectangle
from scipy.optimize import least_squares

import dpose
from dpose.camera import (
    BOX_UNIT,
    bbox_info,
    box_from_joints,
    crop_affine,
    crop_intrinsics,
    default_intrinsics,
    full_translation,
    project,
)
from dpose.data.loader import make_loader
from dpose.data.sample import warp_image
from dpose.figures import BACKGROUND, INK, MESH_COLOURS, draw_mesh, html_table, show_source, style_axis
from dpose.model.inference import to_device
from dpose.render import render_mesh
from dpose.synthetic.poses import sample_pose

torch.set_grad_enabled(False)
plt.rcParams["figure.dpi"] = 130

SIZE = 224  # pixels of a crop
img_size = torch.tensor([[float(width), float(height)]])
cam_int = torch.tensor([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]])

body = dpose.load_body()
pose = roma.rotvec_to_rotmat(
    torch.tensor(sample_pose(np.random.default_rng(seed + 4), "walk").rotations[:22])
)
pose = pose.float()[None]  # (1, 22, 3, 3)
pose[:, 0] = torch.eye(3)
posed = body(torch.zeros(1, 11), pose)
pelvis = posed.joints[:, :1]
surface, joints = (
    posed.vertices - pelvis,
    posed.joints[:, :22] - pelvis,
)  # (1, V, 3), (1, 22, 3) around the pelvis


def placed(points, orientation, translation):
    """Points (1, N, 3) of the body, turned and put before the camera."""
    return points @ orientation.mT + translation


# %% [markdown]
# ## The same crop at two places
#
# Take a person in the middle of the image, facing the camera. Now ask for a body whose box is near the right
# margin and whose *crop looks the same*: which orientation and position must it have? The next cell does not
# reason about angles. It turns and moves the body until its joints fall on the same pixels of the crop, as
# nearly as they can. One more thing it may do is to squeeze the crop, because a flat image shows whatever is
# near its margin stretched.

# %%
upright = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # the body's y is up, the camera's y is down
middle = torch.tensor([[0.0, -0.1, distance]])
visible = torch.ones(1, 22, dtype=torch.bool)
center, scale = box_from_joints(project(placed(joints, upright, middle), cam_int), visible, img_size)
center_edge = torch.tensor([[margin, center[0, 1].item()]])


def crop_pixels(unknowns, center):
    """Joints (22, 2) in the pixels of the crop around `center`, (0, 0) being the middle of it."""
    rotvec, translation, squeeze = torch.as_tensor(unknowns, dtype=torch.float64).split([3, 3, 1])
    points = placed(joints.double(), roma.rotvec_to_rotmat(rotvec) @ upright.double(), translation)
    pixels = project(points, crop_intrinsics(cam_int, center, scale, SIZE).double())[0] - SIZE / 2
    return (pixels / torch.cat([squeeze, torch.ones(1)])).numpy()


wanted = crop_pixels([0, 0, 0, *middle[0], 1], center)
start = [0, 0, 0, (margin - width / 2) / focal * distance, *middle[0, 1:], 1]
fit = least_squares(lambda x: (crop_pixels(x, center_edge) - wanted).ravel(), start)
turn = roma.rotvec_to_rotmat(torch.tensor(fit.x[:3])).float()
turned, edge = turn @ upright, torch.tensor(fit.x[None, 3:6]).float()

found = np.rad2deg(np.linalg.norm(fit.x[:3]))
direction = np.arctan((margin - width / 2) / focal)
miss = np.abs(fit.fun).max()
Markdown(
    f"The fit turns the body by **{found:.1f}°**; the box lies **{np.rad2deg(direction):.1f}°** off the camera's axis. "
    f"It squeezes the crop by {fit.x[6]:.3f}; the cosine of that angle is 1/{1 / np.cos(direction):.3f}. "
    f"Then no joint is more than {miss:.1f} of the crop's {SIZE} pixels from where it was."
)

# %% [markdown]
# So the body has to turn by the angle at which it is seen. In the picture below, blue stands in the middle.
# Green is the one that was fitted: it is turned, and its crop looks like blue's. Orange stands as far to the
# left *without* being turned: its crop is another one, although the body has the same pose and the same
# orientation.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Above: one image, three bodies in the same pose, with their boxes. Below: their crops, each with the blue body's outline in white, and the scene from above, with the way each chest points.", "name": "fig-same-crop"}}
def floor_lines(step=1.0):
    """Lines on the ground, as pixels (n, 2) each: what makes a picture of the space."""
    ground = (surface[..., 1].min() * -1 + middle[0, 1]).item()
    far = np.linspace(1.2, 16, 60)
    for x in np.arange(-14, 14.1, step):
        yield np.stack([np.full_like(far, x), np.full_like(far, ground), far], 1)
    for z in np.arange(2, 16.1, step):
        yield np.array([[-16, ground, z], [16, ground, z]])


blue, orange, green = MESH_COLOURS[:3]
left = torch.tensor([[width - margin, center[0, 1].item()]])  # the mirror place
aside = edge * torch.tensor([-1.0, 1, 1])
cast = [
    (orange, left, upright, aside),
    (blue, center, upright, middle),
    (green, center_edge, turned, edge),
]
picture = np.full((height, width, 3), BACKGROUND, np.uint8)
for colour, _, orientation, translation in cast:
    vertices = placed(surface, orientation, translation)[0]
    picture = draw_mesh(vertices, body.faces, cam_int[0], picture, colour)
somebody = (picture != BACKGROUND).any(-1)

blue_crop = crop_intrinsics(cam_int, center, scale, SIZE)
outline = render_mesh(placed(surface, upright, middle), body.faces, blue_crop, SIZE)[0][0] >= 0

figure, axes = plt.subplot_mosaic(
    [["image"] * 4, ["a", "b", "c", "above"]],
    figsize=(8.6, 7.2),
    height_ratios=(2.25, 1),
    layout="constrained",
)
axes["image"].imshow(np.full_like(picture, BACKGROUND))
axes["image"].imshow(np.dstack([picture, np.uint8(255) * somebody]), zorder=2)
for line in floor_lines():
    xy = project(torch.tensor(line, dtype=torch.float32)[None], cam_int)[0]
    axes["image"].plot(*xy.T, color=INK, linewidth=0.5, alpha=0.5, zorder=1)
axes["image"].set(xlim=(0, width), ylim=(height, 0))
side = (BOX_UNIT * scale).item()
for axis, (colour, where, orientation, translation) in zip((axes[k] for k in "abc"), cast, strict=True):
    corner = where[0].numpy() - side / 2
    axes["image"].add_patch(
        Rectangle(corner, side, side, fill=False, edgecolor=colour, linewidth=1.8, zorder=3)
    )
    camera = crop_intrinsics(cam_int, where, scale, SIZE)[0]
    axis.imshow(draw_mesh(placed(surface, orientation, translation)[0], body.faces, camera, SIZE, colour))
    axis.contour(outline.numpy(), [0.5], colors="white", linewidths=0.7)
    for spine in axis.spines.values():
        spine.set_color(colour), spine.set_linewidth(1.8)

top = axes["above"]
reach = 1.15 * edge[0, 2].item()
figure.patch.set_alpha(0), top.set_facecolor("none")
for sign in (-1, 1):
    top.plot([0, sign * reach * width / 2 / focal], [0, reach], color=INK, linewidth=0.8)
for colour, _, orientation, translation in cast:
    x, _, z = translation[0].tolist()
    chest = 1.1 * (orientation @ torch.tensor([0.0, 0.0, 1.0]))
    top.plot([0, x], [0, z], color=colour, linewidth=0.8, linestyle=":")
    top.annotate(
        "", (x + chest[0], z + chest[2]), (x, z), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.8}
    )
    top.plot(x, z, "o", color=colour, markersize=6)
top.plot(0, 0, "^", color=INK, markersize=8)
top.text(0.35, 0.0, "camera", color=INK, fontsize=8, va="center")
top.set(aspect="equal", ylim=(-0.4, reach), xticks=[], yticks=[])
top.set_frame_on(False)
for name in ("image", "a", "b", "c"):
    axes[name].set(xticks=[], yticks=[])
axes["image"].set_frame_on(False)
titles = ("same orientation", "in the middle", "turned", "from above")
for name, title in zip(("a", "b", "c", "above"), titles, strict=True):
    axes[name].set_title(title, color=INK, fontsize=9)
plt.show()

# %% [markdown]
# What is left between the blue and the green crop is a slight stretch, since a flat image shows its margins
# larger. Nothing else tells the two apart, so a network that sees the crop alone must give one answer for
# both, and be wrong by the whole angle in one of the two cases, or by half of it in both.
#
# ## Three numbers
#
# With a box of side $b$ centred at $(c_x, c_y)$, in an image of $W \times H$ pixels and focal length $f$,
# CLIFF's numbers are
#
# $$
# \mathbf{q} = \left( \frac{c_x - W/2}{f},\; \frac{c_y - H/2}{f},\; \frac{b}{f} \right).
# $$
#
# The first two are the tangents of the angles above, the third says how wide an angle the box covers.
# Dividing by $f$ is what makes them angles: the same pixel means another direction behind another lens.

# %%
show_source(bbox_info)

# %% tags=["hide-input"]
rows = []
for name, where in (("orange", left), ("blue", center), ("green", center_edge)):
    q = bbox_info(where, scale, cam_int)[0]
    rows.append(
        (
            name,
            f"{where[0, 0]:.0f}, {where[0, 1]:.0f}",
            *(f"{v:+.3f}".replace("-", "−") for v in q),
            f"{q[0].atan().rad2deg():+.1f}°".replace("-", "−"),
        )
    )
html_table(
    ("box", "centre, pixels", "q₁", "q₂", "q₃", "seen from"),
    rows,
    f"The three boxes, each {side:.0f} pixels wide",
    align="ll",
)

# %% [markdown]
# ### Does a trained network use them?
#
# The numbers enter beside the features of the image, so a network is free to ignore them. Here the trained
# one gets crops of test people and is told that they lie elsewhere: the pixels stay, only $q_1$ changes. A
# network that has understood turns its answer by the angle of the box, along the dashed line.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "How far the predicted global orientation turns about the vertical when only the first of the three numbers changes: every person (thin), their median (blue), and geometry (dashed).", "name": "fig-told"}}
network = dpose.load(checkpoint)
batch = to_device(next(iter(make_loader(data, "test", network.config, people))), "cpu")
box = bbox_info(batch["center"], batch["scale"], batch["cam_int"])
_, features = network(batch["image"], box, return_features=True)
mean_depth = None if features.depth_features is None else features.depth_features.mean((2, 3))


def orientation_at(degrees):
    """Predicted root rotations (B, 3, 3) when the boxes are said to lie `degrees` right of the axis."""
    q = box.clone()
    q[:, 0] = np.tan(np.deg2rad(degrees))
    return network.regressor(features.attended, q, mean_depth)[0][:, 0]


angles = np.linspace(-30, 30, 13)
straight = orientation_at(0.0)
vertical = torch.tensor([0.0, 1.0, 0.0])
turns = torch.stack([roma.rotmat_to_rotvec(orientation_at(a) @ straight.mT) @ vertical for a in angles])
turns = turns.rad2deg().numpy()  # (angles, B)

figure, axis = plt.subplots(figsize=(5.2, 3.6), layout="constrained")
axis.plot(angles, angles, "--", color=INK, linewidth=1.2)
axis.plot(angles, turns, color=blue, linewidth=0.6, alpha=0.3)
axis.plot(angles, np.median(turns, 1), color=blue, linewidth=2.2)
axis.set(xlabel="where the box is said to lie, degrees", ylabel="turn of the answer, degrees", ylim=(-34, 34))
axis.set_xticks(range(-30, 31, 10)), axis.set_yticks(range(-30, 31, 10))
axis.spines[["top", "right"]].set_visible(False)
style_axis(axis)
plt.show()

# %% tags=["hide-input"]
slopes = angles @ turns / (angles @ angles)
usual = np.quantile(box[:, 0].atan().rad2deg().abs(), 0.9)
Markdown(
    f"{network.config.name.upper()} turns by {100 * np.median(slopes):.0f} % of the angle (median of {len(slopes)} people; "
    f"the middle half of them: {100 * np.quantile(slopes, 0.25):.0f} to {100 * np.quantile(slopes, 0.75):.0f} %). "
    f"Nine in ten of these people stand within {usual:.0f}° of the camera's axis."
)

# %% [markdown]
# ## Back into the full image
#
# The network's own camera is a modest one: $(s, t_x, t_y)$, as if the crop were seen from very far away, with
# $2/s$ the width of the box in metres. The box is $b$ pixels wide, so the body must stand where $2/s$ metres
# cover $b$ pixels: at the distance $2f/(sb)$. From there the other two coordinates follow:
#
# $$
# \mathbf{t} = \left( t_x + \frac{2\,(c_x - W/2)}{s\,b},\; t_y + \frac{2\,(c_y - H/2)}{s\,b},\; \frac{2 f}{s\,b} \right).
# $$

# %%
show_source(full_translation)

# %% [markdown]
# An unknown focal length is therefore less of a drama than it seems. Put $\mathbf t$ into the projection, and
# $f$ cancels: for the same answer of the network the body's origin stays on its pixel, and only the distance
# grows in proportion. ($f$ is in $\mathbf q$ as well, so the answer itself may change a little.)

# %%
cam = torch.tensor([[0.9, 0.1, -0.05]])
guesses = (
    default_intrinsics(img_size, torch.tensor([0.5 * focal])),
    cam_int,
    default_intrinsics(img_size),
)
rows = []
for name, guess in zip(
    ("half the true one", "the true one", "image diagonal (CLIFF's guess)"), guesses, strict=True
):
    t = full_translation(cam, center_edge, scale, guess)
    u, v = project(t[:, None], guess)[0, 0]
    rows.append((name, f"{guess[0, 0, 0]:.0f}", f"{u:.2f}, {v:.2f}", f"{t[0, 2]:.2f} m"))
html_table(
    ("focal length", "pixels", "origin lands at", "distance"),
    rows,
    "The same network output under three focal lengths",
    align="l",
)

# %% [markdown]
# ## One property to doubt: two cameras, one image
#
# The crop can be looked at in two ways. Project with the full image's camera, and then cut; or give the crop
# a camera of its own, whose principal point may lie far outside the crop, and project with that. The 2D loss
# works in the full image, part labels are rendered by the crop's camera, so the two have to agree for every
# box, also for one that reaches beyond the image or lies outside altogether.

# %%
show_source(crop_affine)

# %%
generator = torch.Generator().manual_seed(seed)
count = 10_000
draw = lambda low, high: low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)  # noqa: E731
centers = torch.stack([draw(-0.2 * width, 1.2 * width), draw(-0.2 * height, 1.2 * height)], 1)
scales = draw(0.2, 4.0)  # boxes of 40 to 800 pixels
focals, sizes = draw(500, 2000), img_size.double().expand(count, 2)
cams = torch.stack([draw(0.3, 1.5), draw(-0.5, 0.5), draw(-0.5, 0.5)], 1)
cameras = default_intrinsics(sizes, focals)


def largest_difference(dtype):
    """Between the two ways, over all boxes and joints, in pixels of the crop."""
    c, s, k = centers.to(dtype), scales.to(dtype), cameras.to(dtype)
    points = joints.to(dtype) + full_translation(cams.to(dtype), c, s, k)[:, None]
    in_image = torch.cat([project(points, k), torch.ones(count, 22, 1, dtype=dtype)], -1)
    cut_afterwards = in_image @ crop_affine(c, s, SIZE).mT
    own_camera = project(points, crop_intrinsics(k, c, s, SIZE))
    return (cut_afterwards - own_camera).abs().max().item()


single, double = largest_difference(torch.float32), largest_difference(torch.float64)
assert single < 0.02 and double < 1e-9
low, high = centers - 100 * scales[:, None], centers + 100 * scales[:, None]
beyond = ((low < 0) | (high > sizes)).any(1)
outside = ((high <= 0) | (low >= sizes)).any(1)
Markdown(
    f"{count:,} random boxes, {beyond.sum():,} of them partly and {outside.sum():,} wholly outside the image: the two ways "
    f"differ by at most **{single:.4f} pixels** of the crop in single precision, and by {double:.0e} in double. "
    "It is rounding."
)

# %% [markdown]
# A box at the edge needs no special case: what lies beyond the image is black in the crop, and the joints
# there keep their true coordinates, as do the three numbers. Below, the green person has walked half out of
# the picture.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "A box that reaches beyond the image: the image, what is cut from it, and what the crop's own camera would see. Dots: joints, projected with the full image's camera and then cut.", "name": "fig-beyond"}}
out_center = torch.tensor([[width - 0.1 * side, center[0, 1].item()]])
out_q = bbox_info(out_center, scale, cam_int)
out_turn = roma.rotvec_to_rotmat(out_q[:, 0].atan()[:, None] * vertical)[0] @ upright
above = (project(middle[None], cam_int)[0, 0, 1] - center[0, 1]) * distance / focal  # of the pelvis, metres
out_cam = torch.tensor([[2 * focal / (side * distance), 0, above]])
out_at = full_translation(out_cam, out_center, scale, cam_int)
out_surface, out_joints = placed(surface, out_turn, out_at), placed(joints, out_turn, out_at)
grey = np.full((height, width, 3), (78, 82, 88), np.uint8)  # not black, which is what lies beyond the image
whole = draw_mesh(out_surface[0], body.faces, cam_int[0], grey, green)
affine = crop_affine(out_center, scale, SIZE)[0]
seen = warp_image(whole, affine.double().numpy(), SIZE)
own = crop_intrinsics(cam_int, out_center, scale, SIZE)[0]
complete = draw_mesh(out_surface[0], body.faces, own, grey[:SIZE, :SIZE], green)
points = project(out_joints, cam_int)[0]
in_crop = points @ affine[:, :2].T + affine[:, 2]

figure, axes = plt.subplots(1, 3, figsize=(8.6, 2.75), width_ratios=(1.62, 1, 1), layout="constrained")
figure.patch.set_alpha(0)
axes[0].imshow(whole)
axes[0].add_patch(
    Rectangle(
        out_center[0].numpy() - side / 2,
        side,
        side,
        fill=False,
        edgecolor=green,
        linewidth=1.8,
        clip_on=False,
    )
)
axes[0].set(xlim=(0, 1.17 * width), ylim=(height, 0))
for axis, shown in zip(axes[1:], (seen, complete), strict=True):
    axis.imshow(shown)
    axis.plot(*in_crop.T, "o", color="white", markeredgecolor="black", markeredgewidth=0.5, markersize=3.5)
for axis, title in zip(
    axes, ("image and box", "cut from the image", "seen by the crop's camera"), strict=True
):
    axis.set(xticks=[], yticks=[])
    axis.set_frame_on(False)
    axis.set_title(title, color=INK, fontsize=9)
plt.show()
