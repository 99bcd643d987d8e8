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
# The network receives a square crop, but the predicted body has to lie at the right place in front of the
# camera of the whole photograph. This page follows the computation from the bounding box to the projected
# joints (eq. 6 of the paper), shows what information a crop loses, and how CLIFF's {cite:p}`cliff` three
# numbers restore it.
#
# :::{chapter}
# :needs: [The body model](body_model.ipynb), the pinhole camera
# :learn: how a box becomes a crop; what the three numbers of a weak-perspective camera mean; how they give a translation in the full image, and why the 2D loss is computed there; why a crop alone cannot determine the global orientation; what an unknown focal length changes
# :::

# %% tags=["parameters", "hide-input"] nbmake={"mock": {"people": 4}} mystnb={"code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"}
width = 1280  # of the full image, pixels
height = 720
focal = 900.0  # of its camera, pixels: a wide lens
margin = 1075.0  # where the person near the edge stands: x of the box centre, pixels
distance = 4.2  # of the person in the middle, metres
checkpoint = "mini"  # the trained network of the measurement
data = None  # data root; None: $DPOSE_DATA, else the open data
people = 200  # test people of the measurement, and training people of its range
seed = 0

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the setup", "code_prompt_hide": "Hide the setup"}
from dpose.figures import check_parameters

check_parameters()

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
from dpose.figures import BACKGROUND, INK, MESH_COLOURS, draw_mesh, html_table, signed, style_axis
from dpose.model.inference import to_device
from dpose.render import render_mesh
from dpose.synthetic.poses import sample_pose

torch.set_grad_enabled(False)
plt.rcParams["figure.dpi"] = 130

SIZE = 224  # pixels of a crop
blue, orange, green = MESH_COLOURS[:3]
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
surface = posed.vertices - pelvis  # (1, V, 3)
joints = posed.joints[:, :22] - pelvis  # (1, 22, 3)
upright = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # the body's y is up, the camera's y is down


def placed(points, orientation, translation):
    """Points (1, N, 3) of the body in the camera frame, turned and translated."""
    return points @ orientation.mT + translation


def box_around(points):
    """Centre and scale of the box around joints (1, 22, 3) in the camera frame."""
    every = torch.ones(1, 22, dtype=torch.bool)
    return box_from_joints(project(points, cam_int), every, img_size)


# %% [markdown]
# ## From bounding box to crop
#
# A person is given by a square {term}`bounding box` with centre $(c_x, c_y)$ and side $b$ in pixels of the
# full image. Data sets store $b / 200$ as `scale`. For training, the box is the smallest square around the
# visible body joints, enlarged by the factor 1.2 ({py:obj}`dpose.camera.box_from_joints`). The joint of the head is at
# the base of the skull, so the box can cut off the top of the head ({numref}`fig-projection`). An
# {term}`affine crop` maps the box to the network's input of $N$ × $N$ pixels ($N$ = 224 for `PAPER` and in the figures of this page):
#
# $$
# x_\mathrm{crop} = \frac{N}{b} \left( x - c_x + \frac b2 \right), \qquad
# y_\mathrm{crop} = \frac{N}{b} \left( y - c_y + \frac b2 \right)
# $$
#
# {py:obj}`dpose.camera.crop_affine` returns this map as a matrix. A box that reaches beyond the image needs no special case: the missing
# pixels are black, and the formulas of this page hold for every box.
#
# ## Weak perspective in the crop
#
# For a crop, the network predicts a {term}`weak perspective` camera: a scale $s$ and a shift
# $(t_x, t_y)$ in metres. With body coordinates $(X, Y, Z)$ in metres and crop coordinates from −1 to 1,
#
# $$
# \tilde x = s\,(X + t_x), \qquad \tilde y = s\,(Y + t_y) .
# $$
#
# The crop is therefore $2/s$ metres wide. The depth $Z$ does not occur: all points are treated as if they were
# equally far from the camera, which is adequate while the body's own depth is small compared with its
# distance. These three numbers can be predicted from a crop, where size and place of the body are visible. A
# distance in metres cannot, because the crop shows neither the original size of the box nor the
# {term}`focal length`.
#
# ## Translation in the full image
#
# The box and the camera of the full image turn $(s, t_x, t_y)$ into a 3D translation. Let $f$ be the focal
# length in pixels and $(p_x, p_y)$ the {term}`principal point`. At distance $t_z$, one metre covers $f / t_z$
# pixels. The box covers $b$ pixels and $2/s$ metres, so $b = 2 f / (s\, t_z)$. Solved for the distance, and with
# the offset of the box centre from the principal point converted to metres in the same way, this gives
#
# $$
# \mathbf t^\mathrm{full} = \left( t_x + \frac{2\,(c_x - p_x)}{s\,b},\;
# t_y + \frac{2\,(c_y - p_y)}{s\,b},\; \frac{2 f}{s\,b} \right)
# $$
#
# The function is {py:obj}`dpose.camera.full_translation`. CLIFF takes the image centre for $(p_x, p_y)$; the package takes
# it from the {term}`camera intrinsics` of each image. Joints are then projected into the full image:
#
# $$
# J_{2D}^\mathrm{full} = \Pi\, J_{3D}^\mathrm{full} = \Pi \bigl( J_{3D} + \mathbf t^\mathrm{full} \bigr) \tag{6}
# $$
#
# $\Pi$ is the {term}`perspective projection` $(X, Y, Z) \mapsto (f X / Z + p_x,\; f Y / Z + p_y)$
# ({py:obj}`dpose.camera.project`). As an example, take a body at a known position, and for `cam` the
# $(s, t_x, t_y)$ that a perfect network would predict for it:

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the setup", "code_prompt_hide": "Hide the setup"}
standing = torch.tensor([[1.4, -0.1, distance]])  # of the body, metres
points = placed(joints, upright, standing)
center, scale = box_around(points)
side = (BOX_UNIT * scale).item()
body_joints = points - standing  # turned, around the pelvis
s = 2 * focal / (standing[0, 2] * side)
offset = (center[0] - img_size[0] / 2) * 2 / (s * side)
cam = torch.cat([s[None], standing[0, :2] - offset])[None]  # (1, 3): s, tx, ty

# %%
translation = full_translation(cam, center, scale, cam_int)  # (1, 3) metres
pixels = project(body_joints + translation[:, None], cam_int)  # eq. 6

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Left: the full image with the box, the body and its joints, projected by eq. 6; the cross is the principal point. Right: the crop. The box is around the joints, so it cuts off the top of the head. Filled dots: the joints of eq. 6, mapped into the crop. Circles: the weak-perspective camera alone.", "name": "fig-projection"}, "image": {"alt": "Two renderings of a blue body with white dots at its joints: small inside a white square to the right of the middle of a wide image, which a cross marks, and enlarged in the square crop, where most dots lie in yellow rings and those of hands and feet beside them."}}
affine = crop_affine(center, scale, SIZE)[0]
in_crop = (pixels[0] @ affine[:, :2].T + affine[:, 2]).numpy()
weak = ((1 + s * (body_joints[0, :, :2] + cam[0, 1:])) * SIZE / 2).numpy()
grey = np.full((height, width, 3), (78, 82, 88), np.uint8)
vertices = placed(surface, upright, translation)[0]
whole = draw_mesh(vertices, body.faces, cam_int[0], grey, blue)
crop_cam = crop_intrinsics(cam_int, center, scale, SIZE)[0]
crop = draw_mesh(vertices, body.faces, crop_cam, grey[:SIZE, :SIZE], blue)

figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.0), width_ratios=(width / height, 1), layout="constrained")
figure.patch.set_alpha(0)
axes[0].imshow(whole)
axes[0].add_patch(
    Rectangle(center[0].numpy() - side / 2, side, side, fill=False, edgecolor="white", linewidth=1.5)
)
axes[0].plot(*pixels[0].T, "o", color="white", markeredgecolor="black", markeredgewidth=0.5, markersize=3)
axes[0].plot(width / 2, height / 2, "+", color="white", markersize=10)
axes[0].text(width / 2 - 14, height / 2 - 22, "principal point", color="white", fontsize=9, ha="right")
axes[1].imshow(crop)
axes[1].plot(*in_crop.T, "o", color="white", markeredgecolor="black", markeredgewidth=0.5, markersize=4.5)
axes[1].plot(*weak.T, "o", color="none", markeredgecolor="#F0E442", markeredgewidth=1.2, markersize=9)
for axis, title in zip(axes, ("full image", "crop"), strict=True):
    axis.set(xticks=[], yticks=[])
    axis.set_frame_on(False)
    axis.set_title(title, color=INK, fontsize=10)
plt.show()

# %% tags=["remove-input"]
assert torch.allclose(translation, standing, atol=1e-4)
apart = np.linalg.norm(in_crop - weak, axis=1)
Markdown(
    f"In {{numref}}`fig-projection` the camera ({cam[0, 0]:.2f}, {signed(cam[0, 1], 2)}, {signed(cam[0, 2], 2)}) and the box give the translation "
    f"({translation[0, 0]:.2f}, {signed(translation[0, 1], 2)}, {translation[0, 2]:.2f}) metres. Perspective in the full image and weak perspective "
    f"in the crop place the joints {apart.mean():.1f} pixels of {SIZE} apart on average, {apart.max():.1f} at most. The difference comes from the depth of "
    "the joints, and it grows with the distance of the box from the principal point."
)

# %% [markdown]
# The paper computes the 2D loss in the full image (section 3.7), as CLIFF does. The labels
# come from a camera with perspective; comparing them with weak-perspective joints would add the error above.
#
# ## What a crop does not show
#
# Cutting the crop removes the information *where* the box was. This matters for the
# {term}`global orientation`: a camera looks straight at the middle of its image, but sees whatever is near the
# margin from the side.
#
# Take a person in the middle of the image, facing the camera. Which orientation and position must a body near
# the right margin have so that its *crop looks the same*? The next cell finds out by least squares: it turns
# and translates the body until its joints fall on the same pixels of the crop. One more unknown is a horizontal
# stretch, because a flat image shows things near its margin wider.

# %%
middle = torch.tensor([[0.0, -0.1, distance]])
center, scale = box_around(placed(joints, upright, middle))
center_edge = torch.tensor([[margin, center[0, 1].item()]])


def crop_pixels(unknowns, center):
    """Rotation vector, translation, stretch -> joints (22, 2) from the crop's middle."""
    rotvec, translation, stretch = torch.tensor(unknowns).double().split([3, 3, 1])
    orientation = roma.rotvec_to_rotmat(rotvec) @ upright.double()
    points = placed(joints.double(), orientation, translation)
    crop_camera = crop_intrinsics(cam_int, center, scale, SIZE).double()
    pixels = project(points, crop_camera)[0] - SIZE / 2
    return (pixels / torch.cat([stretch, torch.ones(1)])).numpy()


wanted = crop_pixels([0, 0, 0, *middle[0], 1], center)
start = [0, 0, 0, (margin - width / 2) / focal * distance, *middle[0, 1:], 1]
fit = least_squares(lambda x: (crop_pixels(x, center_edge) - wanted).ravel(), start)

# %% tags=["remove-input"]
turn = roma.rotvec_to_rotmat(torch.tensor(fit.x[:3])).float()
turned, edge = turn @ upright, torch.tensor(fit.x[None, 3:6]).float()
side = (BOX_UNIT * scale).item()
fitted = np.rad2deg(np.linalg.norm(fit.x[:3]))
direction = np.rad2deg(np.arctan((margin - width / 2) / focal))
miss = np.abs(fit.fun).max()
Markdown(
    f"The fitted body is turned by **{fitted:.1f}°**. The direction of its box is **{direction:.1f}°** off the camera's axis. After a horizontal "
    f"stretch by {fit.x[6]:.2f} (expected for this direction: {1 / np.cos(np.deg2rad(direction)):.2f}) no joint is more than {miss:.1f} of {SIZE} pixels off."
)

# %% [markdown]
# So the body turns by the angle at which it is viewed. In {numref}`fig-same-crop` blue is the body in the
# middle and green the fitted one: their crops look alike, but their orientations differ. The orange body
# stands as far to the left *with the orientation of the blue one*, and its crop looks different.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Above: one image (cut above and below the boxes), three bodies in the same pose, with their boxes. Below: their crops, each with the outline of the blue body in white, and the scene from above with the direction that each chest faces.", "name": "fig-same-crop"}, "image": {"alt": "A wide image with an orange, a blue and a green body from left to right, each in a box; three crops, in which blue and green fill the same white outline and orange does not; and a plan in which the arrow of green points to the camera and that of orange is parallel to that of blue."}}
def floor_lines(step=1.0):
    """Lines on the ground, as points (n, 3) each."""
    ground = (surface[..., 1].min() * -1 + middle[0, 1]).item()
    far = np.linspace(1.2, 16, 60)
    for x in np.arange(-14, 14.1, step):
        yield np.stack([np.full_like(far, x), np.full_like(far, ground), far], 1)
    for z in np.arange(2, 16.1, step):
        yield np.array([[-16, ground, z], [16, ground, z]])


left = torch.tensor([[width - margin, center[0, 1].item()]])  # the mirrored place
aside = edge * torch.tensor([-1.0, 1, 1])
bodies = [
    (orange, left, upright, aside),
    (blue, center, upright, middle),
    (green, center_edge, turned, edge),
]
picture = np.full((height, width, 3), BACKGROUND, np.uint8)
for colour, _, orientation, translation in bodies:
    vertices = placed(surface, orientation, translation)[0]
    picture = draw_mesh(vertices, body.faces, cam_int[0], picture, colour)
covered = (picture != BACKGROUND).any(-1)

blue_crop = crop_intrinsics(cam_int, center, scale, SIZE)
outline = render_mesh(placed(surface, upright, middle), body.faces, blue_crop, SIZE)[0][0] >= 0

figure, axes = plt.subplot_mosaic(
    [["image"] * 4, ["a", "b", "c", "above"]],
    figsize=(7.5, 5.2),
    height_ratios=(1.4, 1),
    layout="constrained",
)
upper, lower = (center[0, 1].item() + sign * (side / 2 + 35) for sign in (-1, 1))  # empty beyond
axes["image"].imshow(np.full_like(picture, BACKGROUND))
axes["image"].imshow(np.dstack([picture, np.uint8(255) * covered]), zorder=2)
for line in floor_lines():
    xy = project(torch.tensor(line, dtype=torch.float32)[None], cam_int)[0]
    axes["image"].plot(*xy.T, color=INK, linewidth=0.5, alpha=0.5, zorder=1)
axes["image"].set(xlim=(0, width), ylim=(min(lower, height), max(upper, 0)))
for axis, (colour, where, orientation, translation) in zip((axes[k] for k in "abc"), bodies, strict=True):
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
for colour, _, orientation, translation in bodies:
    x, _, z = translation[0].tolist()
    chest = 1.1 * (orientation @ torch.tensor([0.0, 0.0, 1.0]))
    top.plot([0, x], [0, z], color=colour, linewidth=0.8, linestyle=":")
    top.annotate(
        "", (x + chest[0], z + chest[2]), (x, z), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.8}
    )
    top.plot(x, z, "o", color=colour, markersize=6)
top.plot(0, 0, "^", color=INK, markersize=8)
top.text(0.35, 0.0, "camera", color=INK, fontsize=9, va="center")
top.set(aspect="equal", ylim=(-0.4, reach), xticks=[], yticks=[])
top.set_frame_on(False)
for name in ("image", "a", "b", "c"):
    axes[name].set(xticks=[], yticks=[])
axes["image"].set_frame_on(False)
titles = ("same orientation", "in the middle", "fitted", "from above")
for name, title in zip(("a", "b", "c", "above"), titles, strict=True):
    axes[name].set_title(title, color=INK, fontsize=10)
plt.show()

# %% [markdown]
# Apart from the slight stretch, nothing tells the blue and the green crop apart. A network that sees only the
# crop must predict one orientation for both. Its error is the whole angle in one of the two cases, or half of it
# in both.
#
# ## CLIFF's box information
#
# {term}`CLIFF` therefore gives the network three more numbers, and D-PoSE appends them to the features of every
# joint:
#
# $$
# \mathbf{q} = \left( \frac{c_x - p_x}{f},\; \frac{c_y - p_y}{f},\; \frac{b}{f} \right)
# $$
#
# The function is {py:obj}`dpose.camera.bbox_info`. The first two numbers are the tangents of the angles at which the box is viewed.
# The third is the side of the box in focal lengths, which for a small box near the axis is its angular size in radians. Division by $f$ makes them independent of the lens: the same
# pixel is another direction behind another lens.

# %% tags=["remove-input"]
rows = []
for name, where in (("orange", left), ("blue", center), ("green", center_edge)):
    q = bbox_info(where, scale, cam_int)[0]
    rows.append(
        (
            name,
            f"{where[0, 0]:.0f}, {where[0, 1]:.0f}",
            *(signed(v, 3) for v in q),
            signed(q[0].atan().rad2deg(), 1) + "°",
        )
    )
html_table(
    ("box", "centre, pixels", "q₁", "q₂", "q₃", "viewed at"),
    rows,
    f"Box information of the three boxes of the figure, each {side:.0f} pixels wide",
)

# %% [markdown]
# ### Does a trained network use it?
#
# The box information enters beside the image features, so a network is free to ignore it. To measure this, the
# trained network receives crops of rendered people of the open data with changed box information: the pixels stay, only $q_1$ changes. If the
# network uses $q_1$ correctly, the predicted orientation turns about the vertical by the angle of the box.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Turn of the predicted global orientation about the vertical when only the first component of the box information changes: single test people (thin), their median (blue), and the geometrically correct turn (dashed). Shaded: the range that contains 95 % of the training boxes; outside it the network extrapolates.", "name": "fig-box-information"}, "image": {"alt": "Line chart of the turn of the prediction against the direction of the box, both in degrees. Thin lines rise through the origin with a scatter; their median rises more gently than the dashed diagonal. A grey band covers the middle of the horizontal axis."}}
network = dpose.load(checkpoint)
batch = to_device(next(iter(make_loader(data, "test", network.config, people))), "cpu")
box = bbox_info(batch["center"], batch["scale"], batch["cam_int"])
_, features = network(batch["image"], box, return_features=True)
mean_depth = None if features.depth_features is None else features.depth_features.mean((2, 3))
training = to_device(next(iter(make_loader(data, "train", network.config, people, spread=people))), "cpu")
training_box = bbox_info(training["center"], training["scale"], training["cam_int"])
limit = training_box[:, 0].atan().rad2deg().abs().quantile(0.95).item()


def orientation_at(degrees):
    """Predicted root rotations (B, 3, 3) when all boxes are placed `degrees` right of the camera's axis."""
    q = box.clone()
    q[:, 0] = np.tan(np.deg2rad(degrees))
    return network.regressor(features.attended, q, mean_depth)[0][:, 0]


angles = np.linspace(-45, 45, 31)
straight = orientation_at(0.0)
vertical = torch.tensor([0.0, 1.0, 0.0])
turns = torch.stack([roma.rotmat_to_rotvec(orientation_at(a) @ straight.mT) @ vertical for a in angles])
turns = turns.rad2deg().numpy()  # (angles, B)

figure, axis = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
axis.axvspan(-limit, limit, color=INK, alpha=0.3, linewidth=0)
axis.plot(angles, turns[:, :60], color="#127CB7", linewidth=0.7, alpha=0.5)
axis.plot(angles, angles, "--", color=INK, linewidth=1.4)
axis.plot(angles, np.median(turns, 1), color="#127CB7", linewidth=2.6)
axis.set(xlabel="direction of the box, degrees", ylabel="turn of the prediction, degrees", ylim=(-60, 60))
axis.set_xticks(range(-45, 46, 15)), axis.set_yticks(range(-60, 61, 20))
axis.spines[["top", "right"]].set_visible(False)
style_axis(axis)
plt.show()

# %% tags=["remove-input"]
inside = np.abs(angles) <= limit
slopes = angles[inside] @ turns[inside] / (angles[inside] @ angles[inside])
low, median, high = 100 * np.quantile(slopes, (0.25, 0.5, 0.75))
hidden = int((np.abs(turns[:, :60]).max(0) > 60).sum())
Markdown(
    f"Within the range of the training boxes (±{limit:.0f}°), `{network.config.name}` turns its prediction by **{median:.0f} %** of the correct angle "
    f"(median of {len(slopes)} people; the middle half of them: {low:.0f} to {high:.0f} %). So this small network uses the box information, but "
    f"{'not fully' if median < 90 else 'about fully'}. {{numref}}`fig-box-information` draws the first {min(60, len(slopes))} people; "
    f"{hidden or 'none'} of them leave{'s' if hidden == 1 else ''} the frame."
)

# %% [markdown]
# The paper reports that appending the box information improves the estimated global orientation (section 3.7);
# it gives no number for it.
#
# ## When the focal length is unknown
#
# The focal length in pixels and the {term}`field of view` $\alpha$ are two names for the same property of a
# camera. For an image $W$ pixels wide, $f = W / (2 \tan(\alpha / 2))$. Photographs often come without either.
# CLIFF then assumes $f = \sqrt{W^2 + H^2}$, the image diagonal, which is a diagonal field of view of 53°
# ({py:obj}`dpose.camera.default_intrinsics`).
#
# For a fixed prediction $(s, t_x, t_y)$, a wrong $f$ does not move the projected origin of the body. Inserting
# $\mathbf t^\mathrm{full}$ into $\Pi$, the focal length cancels:
#
# $$
# f\, \frac{t_x^\mathrm{full}}{t_z^\mathrm{full}} + p_x
# = f \left( t_x + \frac{2\,(c_x - p_x)}{s\,b} \right) \frac{s\,b}{2 f} + p_x
# = c_x + \frac{s\,b}{2}\, t_x .
# $$
#
# The distance, however, is proportional to $f$. The following table takes the box of the green body in
# {numref}`fig-same-crop` and an arbitrary camera, so its distances are not those of a body of the figure.

# %% tags=["remove-input"]
cam = torch.tensor([[0.9, 0.1, -0.05]])
guesses = {
    "half the true one": default_intrinsics(img_size, torch.tensor([0.5 * focal])),
    "the true one": cam_int,
    "image diagonal (CLIFF)": default_intrinsics(img_size),
}
rows = []
for name, guess in guesses.items():
    t = full_translation(cam, center_edge, scale, guess)
    u, v = project(t[:, None], guess)[0, 0]
    f = guess[0, 0, 0].item()
    rows.append(
        (
            name,
            f"{f:,.0f}",
            f"{2 * np.rad2deg(np.arctan(width / 2 / f)):.0f}°",
            f"{u:.1f}, {v:.1f}",
            f"{t[0, 2]:.2f} m",
        )
    )
html_table(
    ("focal length", "in pixels", "horizontal field of view", "origin projected to, pixels", "distance"),
    rows,
    "Place and distance of the body's origin for the box of the green body, three focal lengths and the same camera "
    f"(s, tx, ty) = ({cam[0, 0]:.2f}, {cam[0, 1]:.2f}, {signed(cam[0, 2], 2)})",
)

# %% [markdown]
# In an actual prediction, $f$ also changes $\mathbf q$, which is an input of the network. So a wrong $f$ changes
# camera, pose and shape as well, and through them the projected body;
# [Photo in, people out](inference.ipynb) measures by how much. Errors that are measured after alignment of the
# pelvis ([Metrics](metrics.ipynb)) do not contain the distance. According to its
# authors' released code, D-PoSE is trained with the true focal lengths of the synthetic images and evaluated
# with the diagonal, see [Paper against released code](paper_vs_code.ipynb).
#
# ## Takeaways

# %% tags=["remove-input"]
Markdown(
    f"""* The network predicts a weak-perspective camera for the crop; box and focal length turn it into a translation in the full image, where joints
  are projected with perspective ({{eqn}}`6`).
* Two bodies whose boxes are viewed {direction:.0f}° apart have nearly the same crop if their orientations differ by {fitted:.0f}°, so a crop alone does not
  determine the global orientation; the box information $\\mathbf q$ supplies the missing angle.
* For a fixed prediction, a wrong focal length leaves the projected origin in place and scales the distance proportionally; through
  $\\mathbf q$ it also changes the prediction."""
)

# %% [markdown]
# ## Exercises
#
# **Exercise 1.** The part labels are rendered directly into the crop, by a camera of the crop with intrinsics
# $K_\mathrm{crop}$. The 2D loss projects into the full image with $K$. Derive $K_\mathrm{crop}$ from $K$, $(c_x, c_y)$,
# $b$ and the crop's side, and verify on random boxes, also outside the image, that both ways agree.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
generator = torch.Generator().manual_seed(seed)
count = 1000


def uniform(low, high):
    return low + (high - low) * torch.rand(count, generator=generator).double()


centers = torch.stack([uniform(-0.2 * width, 1.2 * width), uniform(-0.2 * height, 1.2 * height)], 1)
scales, cams = uniform(0.2, 4.0), torch.stack([uniform(0.3, 1.5), uniform(-0.5, 0.5), uniform(-0.5, 0.5)], 1)
K = default_intrinsics(img_size.double().expand(count, 2), uniform(500, 2000))
points = joints.double() + full_translation(cams, centers, scales, K)[:, None]

zoom = SIZE / (BOX_UNIT * scales)
K_crop = K.clone()  # the affine map of the crop, applied after K
K_crop[:, :2] *= zoom[:, None, None]
K_crop[:, :2, 2] -= zoom[:, None] * (centers - 100 * scales[:, None])
assert torch.allclose(K_crop, crop_intrinsics(K, centers, scales, SIZE))

matrix = crop_affine(centers, scales, SIZE)
cut_afterwards = project(points, K) @ matrix[:, :, :2].mT + matrix[:, None, :, 2]
difference = (cut_afterwards - project(points, K_crop)).abs().max().item()
assert difference < 1e-8
Markdown(
    "The affine map of the crop multiplies pixels by $z = N/b$ and subtracts $z\\,(c_x - b/2)$, so $K_\\mathrm{crop}$ has the focal length "
    "$z f$ and the principal point $z\\,(p_x - c_x + b/2)$, likewise for $y$. The principal point may lie far outside the crop. "
    f"On {count:,} random boxes the two ways differ by less than 10⁻⁸\u00a0pixels in double precision."
)

# %% [markdown]
# **Exercise 2.** The main camera of many phones has the horizontal field of view of a lens of 26 mm on film 36 mm wide.
# What is $f$ in pixels for a photograph of 4,000 × 3,000 pixels? By which factor is the distance of a
# person wrong if the image diagonal is used instead?

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
phone = torch.tensor([[4000.0, 3000.0]])
true_focal = 26 / 36 * 4000
box_of_person = torch.tensor([[1500.0, 1800.0]]), torch.tensor([6.0])
cameras = default_intrinsics(phone, torch.tensor([true_focal])), default_intrinsics(phone)
depths = [full_translation(torch.tensor([[0.9, 0.0, 0.0]]), *box_of_person, k)[0, 2] for k in cameras]
factor = (depths[1] / depths[0]).item()
assert abs(factor - 5000 / true_focal) < 1e-4
Markdown(
    f"$f = 26/36 \\cdot 4000 = {true_focal:.0f}$\u00a0pixels. The diagonal is 5,000\u00a0pixels, so every distance comes out {factor:.2f}\u00a0times too large. "
    "For the same prediction, the person is drawn at the same place in the photograph. (EXIF's equivalent for 35 mm film is commonly defined by the "
    f"diagonal, 43.3\u00a0mm on film; then $f = {26 / 43.27 * 5000:.0f}$\u00a0pixels and the factor {43.27 / 26:.2f}.)"
)

# %% [markdown]
# **Exercise 3.** Weak perspective ignores the depth of the joints. For a box centred in the image, from which
# distance on does it place all joints of this page's body within one pixel of the 224-pixel crop?

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}


def largest_error(metres):
    """Largest distance of weak-perspective joints from the perspective ones, pixels of the crop."""
    at = torch.tensor([[0.0, 0.0, metres]])
    points = placed(joints, upright, at)
    lens = default_intrinsics(img_size, torch.tensor([focal * metres / distance]))  # the box keeps its size
    pixels = project(points, lens)[0]
    flat = img_size[0] / 2 + lens[0, 0, 0] / metres * (points - at)[0, :, :2]
    return (SIZE / side * (pixels - flat).norm(dim=1)).max().item()


distances = 2.0 ** np.arange(1, 7)
errors = [largest_error(metres) for metres in distances]
needed = next(metres for metres in np.arange(2, 200.0) if largest_error(metres) < 1)
assert errors == sorted(errors, reverse=True)
Markdown(
    "A joint at relative depth $Z$ is displaced by the factor $t_z / (t_z + Z)$, so the error falls as $1 / t_z$: "
    + ", ".join(f"{e:.1f}\u00a0pixels at {d:.0f}\u00a0m" for d, e in zip(distances, errors, strict=True))
    + f". It is below one pixel from about {needed:.0f}\u00a0m on."
)
