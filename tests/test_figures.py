"""Figures: distinct colours, sizes of pictures, small meshes, and the body viewer in a browser."""

import base64
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from dpose import figures
from dpose.body import OPEN_SMPL, load_body
from dpose.config import preset
from dpose.data.loader import make_loader
from dpose.model.inference import to_device
from dpose.model.network import DPose


@pytest.fixture(autouse=True)
def no_display(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")


def test_the_colours_of_parts_are_distinct():
    palette = figures.part_palette()
    assert palette.shape == (23, 3) and palette.dtype == np.uint8
    distances = np.linalg.norm(palette[:, None].astype(float) - palette[None], axis=-1)
    assert distances[~np.eye(23, dtype=bool)].min() > 20


def test_left_and_right_limbs_differ_in_more_than_hue():
    palette = figures.part_palette().astype(float)
    luminance = palette @ [0.2126, 0.7152, 0.0722]
    for left, right in ((1, 2), (4, 5), (7, 8), (10, 11), (13, 14), (16, 17), (18, 19), (20, 21)):
        assert luminance[right + 1] - luminance[left + 1] > 15


def test_maps_become_pictures_of_the_same_size():
    parts = np.arange(23).repeat(4).reshape(23, 4)
    assert figures.colour_parts(parts).shape == (23, 4, 3)
    depth = np.array([[0.0, 0.1, 1.0]])
    colours = figures.colour_depth(depth).astype(int)
    assert tuple(colours[0, 0]) == figures.BACKGROUND
    assert colours[0, 1].sum() > colours[0, 2].sum()  # near is bright


def test_a_network_input_is_converted_back_to_its_picture(people):
    batch = to_device(next(iter(make_loader(people, "test", preset("mini"), 2))), "cpu")
    picture = figures.to_picture(batch["image"])
    assert picture.shape == (2, 128, 128, 3) and picture.dtype == np.uint8
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    back = (picture / 255 - mean) / std
    np.testing.assert_allclose(back, batch["image"].permute(0, 2, 3, 1), atol=0.01)


def test_the_true_body_covers_the_true_person(people):
    batch = to_device(next(iter(make_loader(people, "test", preset("mini"), 1))), "cpu")
    body = load_body()
    vertices = body(batch["betas"], batch["pose"], batch["trans"]).vertices[0]
    black = np.zeros((128, 128, 3), np.uint8)
    drawn = figures.overlay(
        black, vertices, body.faces, batch["cam_int"][0], batch["center"][0], batch["scale"][0]
    )
    person = batch["parts"][0].repeat_interleave(2, 0).repeat_interleave(2, 1).numpy() > 0
    covered = drawn.sum(-1) > 30
    assert (person & covered).sum() > 0.97 * covered.sum()  # the test's splats are fatter than the mesh
    assert covered.sum() > 0.6 * person.sum()


def test_a_mesh_is_drawn_in_its_colour_and_the_rest_of_the_picture_stays():
    sphere = trimesh.creation.icosphere(subdivisions=3, radius=0.5)
    vertices = torch.tensor(sphere.vertices + [0, 0, 4], dtype=torch.float32)
    camera = torch.tensor([[200.0, 0, 32], [0, 200, 32], [0, 0, 1]])
    drawn = figures.draw_mesh(vertices, torch.tensor(sphere.faces), camera, 64, "#009E73").astype(int)
    assert drawn.shape == (64, 64, 3)
    assert tuple(drawn[2, 2]) == figures.BACKGROUND  # the sphere's shadow has a radius of 25 pixels
    red, green, blue = drawn[24, 28]
    assert green > blue > red and green > 80
    again = figures.draw_mesh(vertices, torch.tensor(sphere.faces), camera, np.full((64, 64, 3), 9, np.uint8))
    assert tuple(again[2, 2]) == (9, 9, 9)


def test_a_prediction_is_drawn_in_pictures_of_equal_size(people):
    for name in ("mini", "mini-no-depth"):
        model = DPose(preset(name)).eval()
        batch = to_device(next(iter(make_loader(people, "test", model.config, 2))), "cpu")
        with torch.inference_mode():
            prediction = model(batch["image"], torch.zeros(2, 3))
            pictures = figures.prediction_pictures(prediction, batch, load_body(), 1)
        assert [p.shape for p in pictures] == [(128, 128, 3)] * len(figures.PREDICTION_TITLES)
    grid = figures.picture_grid([pictures, pictures[:2]], figures.PREDICTION_TITLES, ["a", "b"])
    assert len(grid.axes) == 12


def test_a_prediction_is_drawn_in_the_size_of_a_given_picture(people):
    model = DPose(preset("mini")).eval()
    batch = to_device(next(iter(make_loader(people, "test", model.config, 2))), "cpu")
    with torch.inference_mode():
        prediction = model(batch["image"], torch.zeros(2, 3))
        large = np.full((192, 192, 3), 77, np.uint8)
        pictures = figures.prediction_pictures(prediction, batch, load_body(), 1, large)
    assert [p.shape for p in pictures] == [(192, 192, 3)] * len(figures.PREDICTION_TITLES)
    assert (pictures[0] == 77).all()
    true = figures.colour_parts(batch["parts"][1].numpy()).repeat(3, 0).repeat(3, 1)
    np.testing.assert_array_equal(pictures[1], true)


def test_a_block_has_image_maps_and_mesh_in_its_places():
    pictures = [np.full((64, 64, 3), value, np.uint8) for value in (10, 20, 30, 40)]
    block = figures.picture_block(*pictures)
    assert block.shape == (64, 2 * 64 + 31 + 2 * 2, 4)
    found = [tuple(block[y, x]) for y, x in ((0, 0), (0, 66), (63, 66), (30, 162))]
    assert found == [(10, 10, 10, 255), (20, 20, 20, 255), (30, 30, 30, 255), (40, 40, 40, 255)]
    assert block[:, 64:66, 3].max() == block[31:33, 66:97, 3].max() == 0  # gaps are transparent


def test_ink_is_readable_on_white_and_on_black():
    channels = np.array([int(figures.INK[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]  # WCAG 2
    assert 1.05 / (luminance + 0.05) >= 4.5 and (luminance + 0.05) / 0.05 >= 4.5


def test_values_are_coloured_from_their_smallest_to_their_largest():
    colours = figures.colour_values(torch.tensor([[-3.0, 0.0], [5.0, 1.0]]))
    assert colours.shape == (2, 2, 3) and colours.dtype == np.uint8
    brightness = colours.astype(int).sum(-1)
    assert brightness[0, 0] < brightness[0, 1] < brightness[1, 1] < brightness[1, 0]
    flat = figures.colour_values(torch.zeros(2, 2))
    assert (flat == flat[0, 0]).all()  # and no division by zero


def test_an_attention_overlay_is_yellow_at_the_largest_weight_and_half_as_bright_at_zero():
    picture = np.full((8, 8, 3), 200, np.uint8)
    weights = torch.zeros(4, 4)
    weights[0, 0] = 0.3
    drawn = figures.attention_overlay(picture, weights)
    assert tuple(drawn[0, 0]) == (254, 232, 56) and tuple(drawn[7, 7]) == (100, 100, 100)


def test_a_grid_has_titles_for_columns_or_for_each_picture():
    pictures = [[np.zeros((4, 4, 3), np.uint8)] * 2] * 2
    columns, every = (
        [axis.get_title() for axis in figures.picture_grid(pictures, titles).axes]
        for titles in (("a", "b"), (("a", "b"), ("c", "d")))
    )
    assert columns == ["a", "b", "", ""] and every == ["a", "b", "c", "d"]


@pytest.mark.parametrize("columns", [2, 8])
def test_the_text_of_a_grid_has_11_pixels_in_a_column_of_720(columns):
    picture = np.zeros((8, 8, 3), np.uint8)
    grid = figures.picture_grid([[picture] * columns], ["x"] * columns, ["y"])
    for axis in grid.axes[:1]:
        for text in (axis.title, axis.yaxis.label):
            assert text.get_fontsize() / 72 / grid.get_figwidth() * 720 >= 11 - 1e-6


def test_a_styled_diagram_is_transparent_with_all_text_in_ink():
    import matplotlib.pyplot as plt
    from matplotlib.colors import to_rgba

    figure, axis = plt.subplots()
    axis.plot([0, 1], label="a line")
    axis.set_title("title"), axis.set_xlabel("x"), axis.legend()
    figures.style_axis(axis)
    assert figure.patch.get_alpha() == 0 and axis.get_facecolor()[3] == 0
    texts = [axis.title, axis.xaxis.label, axis.get_legend().get_texts()[0], axis.get_xticklabels()[0]]
    assert {to_rgba(text.get_color()) for text in texts} == {to_rgba(figures.INK)}


def test_names_of_curves_keep_their_order_and_their_distance_and_stay_around_the_ends():
    import matplotlib.pyplot as plt

    _, axis = plt.subplots()
    axis.set_yscale("log"), axis.set_ylim(0.01, 1)
    lines = {"high": ("red", 0.11), "low": ("blue", 0.1), "far": ("green", 0.9)}
    figures.label_ends(axis, lines, gap=0.1)
    heights = {text.get_text(): text.get_position()[1] for text in axis.texts}
    assert heights["high"] - heights["low"] == pytest.approx(0.1)
    assert heights["far"] > heights["high"] + 0.1
    ends = [1 + np.log10(last) / 2 for _, last in lines.values()]  # shares of the axis
    assert np.mean(list(heights.values())) == pytest.approx(np.mean(ends))
    assert {text.get_text(): text.get_color() for text in axis.texts}["low"] == "blue"
    figures.label_ends(axis, {})


def test_a_contact_sheet_keeps_the_reading_order():
    pictures = [np.full((4, 4, 3), 10 * i, np.uint8) for i in range(5)]
    sheet = figures.contact_sheet(pictures, columns=3, gap=1)
    assert sheet.shape == (9, 14, 3)
    assert sheet[0, 0, 0] == 0 and sheet[0, 13, 0] == 20 and sheet[8, 6, 0] == 40


def test_loss_curves_have_a_panel_for_each_term_that_was_trained(trained, tmp_path):
    shown = [axis for axis in figures.loss_curves(trained.log).axes if axis.get_visible()]
    assert [axis.get_title() for axis in shown] == [
        *("total", "depth_l1", "depth_ssim", "segm", "pose", "shape", "joints3d", "vertices", "joints2d")
    ]
    assert list(shown[0].lines[0].get_xdata()) == [2, 4, 6]
    (tmp_path / "log.csv").write_text("step,total\n")
    with pytest.raises(ValueError, match="log.csv"):
        figures.loss_curves(tmp_path / "log.csv")


def test_a_decimated_sphere_is_still_a_sphere():
    sphere = trimesh.creation.icosphere(subdivisions=5)
    vertices, faces = figures.decimate(sphere.vertices, sphere.faces, 0.1)
    assert len(vertices) < len(sphere.vertices) / 2
    assert faces.max() == len(vertices) - 1
    smaller = trimesh.Trimesh(vertices, faces)
    assert smaller.volume == pytest.approx(sphere.volume, rel=0.05)
    same, all_faces = figures.decimate(sphere.vertices, sphere.faces, 1e-9)
    assert len(same) == len(sphere.vertices) and len(all_faces) == len(sphere.faces)


def test_an_interactive_body_is_small_in_millimetres_and_upright():
    body = load_body()
    betas, pose = torch.zeros(1, 11), torch.eye(3).repeat(1, 22, 1, 1)
    pose[:, 0] = torch.diag(torch.tensor([1.0, -1, -1]))  # upright in the camera frame
    vertices = body(betas, pose).vertices[0].numpy()
    figure = figures.mesh_figure([vertices, vertices], body.faces.numpy(), ["true", "predicted"])
    text = figure.to_json()
    assert len(text) < 700_000
    trace = json.loads(text)["data"][0]
    z = np.frombuffer(base64.b64decode(trace["z"]["bdata"]), trace["z"]["dtype"])
    assert 1400 < np.ptp(z) < 2000 and z.argmax() != z.argmin()
    assert vertices[:, 1].min() == pytest.approx(-z.max() / 1000, abs=0.02)  # up is the camera's -y
    ratio = json.loads(text)["layout"]["scene"]["aspectratio"]
    assert max(ratio.values()) == pytest.approx(1.3)  # plotly's unit; fits into the picture
    assert ratio["x"] / ratio["z"] == pytest.approx(np.ptp(vertices[:, 0]) / np.ptp(vertices[:, 1]))
    faces = [body.faces.numpy(), body.faces.numpy()[:100]]
    first, second = figures.mesh_figure([vertices, vertices], faces).data
    assert len(second.i) <= 100 < len(first.i)


def test_powers_of_ten_are_set_as_in_print():
    texts = [figures.power_of_ten(value) for value in (5e-7, 3.0, -2.4e12, 0.0)]
    assert texts == ["5\xa0×\xa010⁻⁷", "3\xa0×\xa010⁰", "−2\xa0×\xa010¹²", "0"]
    assert figures.power_of_ten(torch.tensor(1.26e-5), digits=1) == "1.3\xa0×\xa010⁻⁵"


def test_source_is_shown_dedented_without_docstrings_and_with_its_place(monkeypatch):
    from dpose.model.attention import SoftAttention

    monkeypatch.delenv("DPOSE_BOOK", raising=False)
    text = figures.show_source(SoftAttention.weights, SoftAttention).data
    assert "\n````python\ndef weights(self, logits: Tensor) -> Tensor:\n    return " in f"\n{text}"
    assert '"""' not in text and "<details" not in text
    lines = Path(figures.__file__).parents[1].joinpath("model/attention.py").read_text().splitlines()
    places = [int(line) for line in re.findall(r"`dpose/model/attention\.py:(\d+)`", text)]
    assert lines[places[0] - 1].startswith("    def weights(") and lines[places[1] - 1].startswith(
        "class Soft"
    )
    with pytest.raises(TypeError):
        figures.show_source(len)

    monkeypatch.setenv("DPOSE_BOOK", "1")
    text = figures.show_source(SoftAttention.weights).data
    assert f"{{source}}`dpose.model.attention:{places[0]}`" in text


def test_only_docstrings_are_left_out_of_shown_source_and_long_source_is_folded():
    def short(value):
        """One line."""
        text = """not a docstring"""

        def inner():
            """Several
            lines.
            """

            return text * value

        return inner

    def only_a_docstring():
        """This stays."""

    text = figures.show_source(short).data
    expected = [
        "def short(value):",
        '    text = """not a docstring"""',
        "",
        "    def inner():",
        "        return text * value",
        "",
        "    return inner",
    ]
    assert text.startswith("\n".join(["````python", *expected, "````"]))
    assert "This stays." in figures.show_source(only_a_docstring).data
    folded = figures.show_source(figures.body_viewer).data
    assert folded.startswith('<details class="dpose"><summary>') and folded.count("</details>") == 1
    assert "open" not in folded.split("</summary>")[0]


def in_a_browser(page: str, folder) -> str:
    """The document of a page after its scripts have run in headless Chromium; skips without one."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    program = os.environ.get("CHROME") or next((p for p in map(shutil.which, names) if p), None)
    if program is None:
        pytest.skip("Chromium is not installed")
    (folder / "page.html").write_text(f'<!doctype html><meta charset="utf-8">{page}', encoding="utf-8")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    command = [program, *flags, (folder / "page.html").as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.parametrize("path", [None, OPEN_SMPL], ids=["smplx", "smpl"])
def test_the_body_in_the_page_is_the_body_of_the_package(path, tmp_path):
    body = load_body(path)
    page = figures.body_viewer(body, betas=3, poses={"fold": np.zeros((body.num_rotations, 3))}).data
    assert len(page) < 1_500_000
    rng = np.random.default_rng(5)
    betas, pose = rng.normal(size=3), rng.normal(size=(body.num_rotations, 3))
    ask = f"""
      const {{vertices, joints}} = document.querySelector(".dpose-body").dposeBody.set(
        {betas.tolist()}, {pose.tolist()});
      const answer = JSON.stringify({{vertices: [...vertices], joints}});
      document.body.append(Object.assign(document.createElement("pre"), {{textContent: answer}}));"""
    document = in_a_browser(f"{page}<script>{ask}</script>", tmp_path)
    answer = json.loads(document.split("<pre>")[1].split("</pre>")[0])
    whole = torch.tensor(np.pad(betas, (0, body.num_betas - 3))[None])
    posed = body(whole, torch.tensor(pose[None]), form="axis-angle")
    there = np.reshape(answer["vertices"], (-1, 3))
    assert np.linalg.norm(there - posed.vertices[0].numpy(), axis=1).max() < 1e-4
    np.testing.assert_allclose(answer["joints"], posed.joints[0, : body.num_rotations], atol=1e-5)
    assert 'data-drawn="yes"' in document and "within 0.0" in document and "fold</button>" in document


def test_the_body_in_the_page_turns_with_the_arrow_keys_and_all_controls_have_names(tmp_path):
    page = figures.body_viewer(load_body(), betas=1).data
    ask = """
      const root = document.querySelector(".dpose-body"), canvas = root.querySelector("canvas");
      const {view} = root.dposeBody;
      const before = [view.yaw, view.pitch];
      for (const key of ["ArrowRight", "ArrowRight", "ArrowUp", "a"])
        canvas.dispatchEvent(new KeyboardEvent("keydown", {key, cancelable: true}));
      const names = [...root.querySelectorAll("canvas, select, input, button")].map(
        (e) => e.ariaLabel || e.labels?.[0]?.textContent || e.textContent);
      const turned = [view.yaw - before[0], view.pitch - before[1]];
      const answer = JSON.stringify({turned, names, focus: canvas.tabIndex, role: canvas.role});
      document.body.append(Object.assign(document.createElement("pre"), {textContent: answer}));"""
    document = in_a_browser(f"{page}<script>{ask}</script>", tmp_path)
    answer = json.loads(document.split("<pre>")[1].split("</pre>")[0])
    assert answer["turned"] == pytest.approx([0.2, -0.1])
    assert answer["focus"] == 0 and answer["role"] == "img"
    assert len(answer["names"]) > 7 and all(name.strip() for name in answer["names"])
