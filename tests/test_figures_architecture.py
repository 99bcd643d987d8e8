"""The diagram of the network: dataflow, shapes and parameters of the network, valid links and geometry."""

import functools
import re
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml
from test_notebooks_meta import ROOT
from torch import nn

from dpose.batch import Prediction
from dpose.body import load_body
from dpose.config import PRESETS, preset
from dpose.figures import network_diagram
from dpose.figures.architecture import trace
from dpose.model.network import DPose, parameter_table

SMALL = [name for name in PRESETS if not name.startswith("paper")]
SVG = "{http://www.w3.org/2000/svg}"


@functools.cache
def network_of(name: str) -> nn.Module:
    return Foreign() if name == "foreign" else DPose(preset(name))


@functools.cache
def svg_of(name: str) -> ElementTree.Element:
    pictures = {"image": np.zeros((4, 4, 3), np.uint8)}
    diagram = network_diagram(network_of(name), pictures=pictures, body=load_body())
    return ElementTree.fromstring(diagram.data).find(f"{SVG}svg")


@functools.cache
def edges_of(name: str) -> dict[tuple[str, str], dict[str, tuple[int, ...]]]:
    """Shapes by name, by source and target."""
    edges = {}
    for flow in trace(network_of(name)):
        edges.setdefault((flow.source, flow.target), {})[flow.name] = flow.shape
    return edges


def run(network):
    """Prediction and features of a real forward pass."""
    side = network.config.image_size
    with torch.no_grad():
        return network.eval()(torch.rand(1, 3, side, side), torch.rand(1, 3), return_features=True)


@pytest.mark.parametrize("name", ["mini", "mini-no-depth", "lite"])
def test_the_shapes_of_the_diagram_are_those_of_a_real_forward_pass(name):
    network = network_of(name)
    prediction, features = run(network)

    def shape(tensor):
        return tuple(tensor.shape[1:])

    maps = {f"F_{i}": shape(getattr(features, f"f{i}")) for i in (1, 2, 3, 4)}
    side = network.config.image_size
    expected = {
        ("image", "encoder"): {"": (3, side, side)},
        ("encoder", "parts_decoder"): maps,
        ("encoder", "attention"): {"F_up": shape(features.f_up)},
        ("parts_decoder", "attention"): {"S": shape(prediction.parts)},
        ("attention", "regressor"): {"A": shape(features.attended)},
        ("box", "regressor"): {"q": (3,)},
        ("regressor", "body"): {"rotations": shape(prediction.rotmats), "betas": shape(prediction.betas)},
        ("regressor", "camera"): {"camera": shape(prediction.cam)},
        ("parts_decoder", ""): {"S": shape(prediction.parts)},
    }
    if network.config.depth:
        expected[("encoder", "depth_decoder")] = maps
        expected[("depth_decoder", "regressor")] = {"mean D": shape(features.depth_features)[:1]}
        expected[("depth_decoder", "")] = {"": shape(prediction.depth)}
    assert edges_of(name) == expected


def test_the_diagram_of_another_head_has_the_lines_of_its_dataflow():
    hmr, cliff, pare, no_attention = (
        edges_of(f"lite-{name}") for name in ("hmr", "cliff", "pare", "no-attention")
    )
    assert ("box", "regressor") in cliff and ("box", "regressor") not in hmr
    assert not any("parts_decoder" in edge for edge in hmr)
    weights = run(network_of("lite-pare"))[1].attention
    assert pare["parts_decoder", "regressor"] == {"softmax S": tuple(weights.shape[1:])}
    assert ("parts_decoder", "attention") not in no_attention and ("encoder", "attention") in no_attention


@pytest.mark.parametrize("name", SMALL)
def test_the_parameters_in_the_boxes_add_up_to_the_networks(name):
    network = network_of(name)
    text = " ".join(svg_of(name).itertext())
    counts = [int(count.replace(",", "")) for count in re.findall(r"([\d,]+) parameters", text)]
    table = parameter_table(network)
    assert sorted(counts) == sorted(row.parameters for row in table[:-1])
    assert sum(counts) == table[-1].parameters == sum(p.numel() for p in network.parameters())


def test_each_box_is_a_named_link_to_a_page_of_the_book():
    svg = svg_of("mini")
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = {chapter["file"] for part in toc["parts"] for chapter in part["chapters"]}
    links = {link.get("data-name"): link for link in svg.iter(f"{SVG}a")}
    assert {f"notebooks/{link.get('href').removesuffix('.html')}" for link in links.values()} <= pages
    assert links["depth_decoder"].get("href") == "decoders.html"
    assert links["encoder"].get("aria-label").startswith("Encoder, HRNet")
    assert f"{load_body().num_vertices:,} vertices" in links["body"].get("aria-label")
    assert "; Depth decoder to Regressor; " in svg.get("aria-label")
    assert "Depth decoder to Regressor: mean D 16" in svg.find(f"{SVG}desc").text


class Foreign(nn.Module):
    """A network with other components, one of which leads past the others, and joins two outside of them."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(name="<foreign>", image_size=8)
        self.trunk, self.left, self.right = nn.Linear(8, 4), nn.Linear(4, 5), nn.Linear(4, 6)
        self.middle, self.last_head = nn.Linear(11, 7), nn.Linear(7 + 4 + 3, 2)
        self.unused = nn.Linear(1, 1)

    def forward(self, image, box):
        x = self.trunk(image.mean((1, 2)))
        y = self.middle(torch.cat([self.left(x), self.right(x)], 1))
        out = self.last_head(torch.cat([y, x, box], 1))
        return Prediction(out, out, out, None, None)


@pytest.mark.parametrize("name", [*SMALL, "foreign"])
def test_boxes_do_not_overlap_and_lines_go_from_box_to_box(name):
    svg = svg_of(name)
    left, top, width, height = map(float, svg.get("viewBox").split())
    boxes = {}
    for link in svg.iter(f"{SVG}a"):
        rect = link.find(f"{SVG}rect")
        x, y, w, h = (float(rect.get(key)) for key in ("x", "y", "width", "height"))
        assert left <= x and x + w <= left + width and top <= y and y + h <= top + height
        boxes[link.get("data-name")] = x, y, x + w, y + h
        assert all(y <= float(text.get("y")) <= y + h for text in link.iter(f"{SVG}text"))
    corners = np.array(list(boxes.values()))
    for i, (x, y, right, bottom) in enumerate(corners):
        others = np.delete(corners, i, 0)
        assert not (
            (others[:, 0] < right) & (x < others[:, 2]) & (others[:, 1] < bottom) & (y < others[:, 3])
        ).any()
    lines = [group for group in svg.iter(f"{SVG}g") if group.get("class") == "flow"]
    assert {(line.get("data-from"), line.get("data-to")) for line in lines} == {
        *((source, target) for source, target in edges_of(name) if target),
        ("box", "camera"),
        ("camera", "body"),
    }
    for line in lines:
        one, two = boxes[line.get("data-from")], boxes[line.get("data-to")]
        shaft, head = (path.get("d") for path in line.iter(f"{SVG}path"))
        x, y = map(float, re.match(r"M([\d.]+) ([\d.]+)", shaft).groups())
        assert one[0] < x < one[2] and y == one[3]
        x, y = map(float, re.match(r"M([\d.]+) ([\d.]+)", head).groups())
        assert two[0] < x < two[2] and y == two[1]


def test_a_foreign_network_is_traced_by_its_modules():
    edges = edges_of("foreign")
    assert edges["left", "middle"] == {"": (5,)} and edges["right", "middle"] == {"": (6,)}
    assert edges["trunk", "last_head"] == {"": (4,)} and edges["box", "last_head"] == {"q": (3,)}
    assert edges["image", "trunk"] == {"mean": (8,)} and edges["last_head", "camera"] == {"": (2,)}
    text = " ".join(svg_of("foreign").itertext())
    assert "Last head" in text and "unused" not in text.lower()


def test_tracing_changes_nothing_in_the_network():
    network = network_of("mini").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trace(network)
    assert network.training and all(torch.equal(before[n], v) for n, v in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
