"""The network as a diagram (Figure 2 of the paper), drawn from a forward pass through it.

`trace` runs the network on tensors without memory and records which component uses which tensors of which
other component. `network_diagram` draws the result as SVG: a box per component, and a line with the tensors'
shapes per pair of components. Only titles, symbols and the two tensors that place the
body (`PLACEMENT`) are written down here, so the diagram is that of any network whose components are its child
modules.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from itertools import combinations, pairwise, permutations
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from IPython.display import HTML

    from dpose.body import Body
    from dpose.model.network import DPose

TITLES = {  # of the boxes, and the page of the book that explains each
    "image": ("Image", "architecture"),
    "box": ("Box information", "camera"),
    "encoder": ("Encoder", "encoder"),
    "depth_decoder": ("Depth decoder", "decoders"),
    "parts_decoder": ("Part decoder", "decoders"),
    "attention": ("Soft attention", "attention"),
    "regressor": ("Regressor", "regressor"),
    "body": ("Body model", "body_model"),
    "camera": ("Camera", "camera"),
}
SYMBOLS = {  # of the tensors that a component returns, by position or field
    "encoder": {"f1": "F_1", "f2": "F_2", "f3": "F_3", "f4": "F_4", "f_up": "F_up"},
    "depth_decoder": {1: "D"},
    "parts_decoder": {0: "S", 1: "D"},
    "attention": {0: "A"},
    "regressor": {0: "rotations", 1: "betas", 2: "camera"},
}
USERS = {"rotmats": "body", "betas": "body", "cam": "camera"}  # of the fields of a Prediction; maps have none


class Flow(NamedTuple):
    """A tensor that one component computes and another one uses."""

    source: str  # "image", "box", or the name of a child module
    target: str  # the name of a child module, "body", "camera"; "" for a map that nothing else uses
    name: str  # symbol
    shape: tuple[int, ...]  # without the batch dimension


PLACEMENT = (  # what places the body in front of the camera, outside of the network
    Flow("box", "camera", "box, f", ()),
    Flow("camera", "body", "t", (3,)),
)


class _Trace(TorchFunctionMode):
    """Follows tensors from component to component. What is computed between two keeps its source."""

    def __init__(self) -> None:
        self.flows: dict[Flow, None] = {}  # an ordered set
        self.inside = ""  # the component that computes
        self.origin: dict[int, list[Flow]] = {}  # of a tensor's id, with open targets
        self.alive: list[Tensor] = []  # ids are of objects that exist

    def register(self, tensor: Tensor, flows: list[Flow]) -> None:
        self.origin[id(tensor)] = flows
        self.alive.append(tensor)

    def use(self, tensors: Any, target: str) -> None:
        """`target` uses these tensors, in any nesting."""
        for tensor in tree_leaves(tensors):
            for flow in self.origin.get(id(tensor), ()):
                if flow.source != target:
                    self.flows[flow._replace(target=target)] = None

    def enter(self, name: str) -> None:
        self.inside = name

    def leave(self, name: str, result: Any) -> None:
        self.inside = ""
        items = result if isinstance(result, tuple) else (result,)
        fields = getattr(items, "_fields", range(len(items)))
        for field, tensor in zip(fields, items, strict=True):
            if isinstance(tensor, Tensor):
                symbol = SYMBOLS.get(name, {}).get(field, "")
                self.register(tensor, [Flow(name, "", symbol, tuple(tensor.shape[1:]))])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [tensor for tensor in tree_leaves(result) if isinstance(tensor, Tensor)]
        if not made or func.__name__.endswith("_like"):  # only the shape is used
            return result
        if self.inside:
            self.use((args, kwargs), self.inside)
            return result
        flows = [flow for x in tree_leaves((args, kwargs)) for flow in self.origin.get(id(x), ())]
        sources = {flow.source for flow in flows}
        kind = f"{func.__name__} " if func.__name__ in ("mean", "softmax") else ""
        for tensor in made if sources else ():
            if len(sources) == 1:  # otherwise, the name and shape that each had before they were joined
                flows = [
                    flows[0]._replace(name=f"{kind}{flows[0].name}".strip(), shape=tuple(tensor.shape[1:]))
                ]
            self.register(tensor, flows)
        return result


def trace(network: DPose) -> list[Flow]:
    """The tensors that pass between the components of a network, in the order of their first use.

    The forward pass has one image and computes shapes only.
    """
    tracer, training = _Trace(), network.training
    hooks = []
    for name, child in network.named_children():
        hooks += [
            child.register_forward_pre_hook(lambda _, __, name=name: tracer.enter(name)),
            child.register_forward_hook(lambda _, __, out, name=name: tracer.leave(name, out)),
        ]
    side, device = network.config.image_size, next(network.parameters()).device
    try:
        network.eval()
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
            image, box = torch.zeros(1, 3, side, side, device=device), torch.zeros(1, 3, device=device)
            tracer.register(image, [Flow("image", "", "", (3, side, side))])
            tracer.register(box, [Flow("box", "", "q", (3,))])
            with tracer:
                prediction = network(image, box)
            for field, tensor in prediction._asdict().items():
                tracer.use(tensor, USERS.get(field, ""))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return list(tracer.flows)


LANE, BOX, LINE, PICTURE = 172, 156, 15, 80  # width of a lane, and of a box in one; heights; pixels
COLOURS = {"depth_decoder": "#2e86c8", "parts_decoder": "#12926b"}  # visible on a light page and a dark one
STYLE = """
.dpose-network { width: 100%; display: block; margin: auto; }
.dpose-network text { font: 12.5px system-ui, sans-serif; fill: currentColor; }
.dpose-network .title { font-weight: 600; font-size: 14.5px; }
.dpose-network .symbol { font-weight: 600; font-style: italic; }
.dpose-network .index { font-size: 11px; }
.dpose-network a, .dpose-network a:hover { color: inherit; text-decoration: none; }
.dpose-network rect { fill: currentColor; fill-opacity: 0.06; stroke: currentColor; stroke-opacity: 0.75; }
.dpose-network a:hover rect, .dpose-network a:focus rect { fill-opacity: 0.16; stroke-opacity: 1; }
.dpose-network .flow path { fill: none; stroke: currentColor; stroke-width: 1.5; }
.dpose-network .flow .head { fill: currentColor; stroke: none; }
"""


def network_diagram(
    network: DPose, body: Body | None = None, pictures: Mapping[str, np.ndarray] | None = None
) -> HTML:
    """The components of a network, the shapes that pass between them and their numbers of parameters, as SVG.

    Each box is a link to the page of the book on this component.

    Args:
        body: to name the size of the mesh.
        pictures: RGB (S, S, 3) uint8 by the name of the box that shows it, a key of `TITLES`.
    """
    from IPython.display import HTML

    flows, pictures = trace(network), pictures or {}
    flows += [flow for flow in PLACEMENT if flow.target in {other.target for other in flows}]
    lines = {"image": [], "box": ["place of the crop"]}
    for name, child in network.named_children():
        kind, count = type(child).__name__, sum(parameter.numel() for parameter in child.parameters())
        new = kind.lower() not in _title(name).lower().replace(" ", "")
        lines[name] = [kind, f"{count:,} parameters"] if new else [f"{count:,} parameters"]
    lines |= {"body": [] if body is None else [f"{body.num_vertices:,} vertices"], "camera": ["translation"]}
    lines = {n: text for n, text in lines.items() if any(n in (flow.source, flow.target) for flow in flows)}
    edges: dict[tuple[str, str], list[Flow]] = {}
    for flow in sorted(
        flows, key=lambda flow: [*SYMBOLS.get(flow.source, {}).values(), flow.name].index(flow.name)
    ):
        if flow.target:
            edges.setdefault((flow.source, flow.target), []).append(flow)
        else:
            lines[flow.source].append(f"map: {_shape(flow)}")

    rows, spans = _layout(list(lines), list(edges))
    heights = {n: 30 + LINE * len(text) + (PICTURE + 6) * (n in pictures) for n, text in lines.items()}
    tops, bottom = {}, 2
    for row in rows:
        tops |= dict.fromkeys(row, bottom)
        labels = max((len(tensors) for (source, _), tensors in edges.items() if source in row), default=-2)
        bottom += max(heights.get(node, 0) for node in row) + 30 + LINE * labels
    drawn, extent = [], LANE * (1 + max(last for _, last in spans.values()))
    for edge, tensors in edges.items():
        svg, label_end = _line(edge, tensors, rows, spans, tops, heights)
        drawn.append(svg)
        extent = max(extent, label_end)
    for name, text in lines.items():
        drawn.append(_box(name, text, spans[name], tops[name], heights[name], pictures.get(name)))

    left = LANE * min(first for first, _ in spans.values())
    described = "; ".join(
        f"{_title(source)} to {_title(target)}: "
        + ", ".join(f"{f.name} {_shape(f)}".strip() for f in tensors)
        for (source, target), tensors in edges.items()
    )
    users: dict[str, list[str]] = {}  # the flow without the tensors, from top to bottom
    for source, target in sorted(edges, key=lambda edge: tops[edge[0]]):
        users.setdefault(_title(source), []).append(_title(target))
    flow = "; ".join(f"{source} to {', '.join(names)}" for source, names in users.items())
    label = f"Flow diagram of the network {network.config.name}, from top to bottom: {flow}"
    style = f"min-width: {0.96 * (extent - left):.0f}px; max-width: {extent - left}px"
    return HTML(
        '<div style="overflow-x: auto"><svg xmlns="http://www.w3.org/2000/svg" class="dpose-network" '
        f'role="group" aria-label="{escape(label)}" style="{style}" '
        f'viewBox="{left} 0 {extent - left} {bottom + 2}">'
        f"<desc>{escape(described)}</desc><style>{STYLE}</style>{''.join(drawn)}</svg></div>"
    )


def _layout(names: list[str], edges: list[tuple[str, str]]) -> tuple[list[list], dict[Any, tuple[int, int]]]:
    """Nodes in rows from top to bottom, and the first and last lane that each node covers.

    An edge that passes rows has a node (source, target, row) in each of them. Of all placements in lanes the
    one with the fewest crossings, then the shortest edges, is found row by row. Then boxes are widened, so
    that their edges can be vertical.
    """
    depth = dict.fromkeys(names, 0)
    for _ in names:
        for source, target in edges:
            depth[target] = max(depth[target], depth[source] + 1)
    for name in set(names) - {target for _, target in edges}:  # inputs: above their first user
        depth[name] = min(depth[target] for source, target in edges if source == name) - 1
    rows: list[list] = [[name for name in names if depth[name] == i] for i in range(max(depth.values()) + 1)]
    pieces = []
    for source, target in edges:
        passed = [(source, target, i) for i in range(depth[source] + 1, depth[target])]
        for node in passed:
            rows[node[2]].insert(1, node)
        pieces += pairwise([source, *passed, target])

    count = max(4, *map(len, rows))
    best: dict[tuple, tuple[int, list]] = {(): (0, [])}  # placements of the row above: cost, all rows so far
    for above, row in zip([[], *rows[:-1]], rows, strict=True):
        entering = [(above.index(a), row.index(b)) for a, b in pieces if b in row]
        reached = {}
        for places in permutations(range(count), len(row)):
            costs = []
            for before, (cost, history) in best.items():
                moves = [(before[a], places[b]) for a, b in entering]
                cost += 10 * sum((a - c) * (b - d) < 0 for (a, b), (c, d) in combinations(moves, 2))
                for a, b in moves:  # a distance costs more if neither box can be widened to the other's lane
                    between = range(min(a, b), max(a, b) + 1)
                    blocked = all(len({*between} & {*lanes}) > 1 for lanes in (before, places))
                    cost += len(between) + 3 * blocked
                costs.append((cost, [*history, places]))
            reached[places] = min(costs)
        best = reached
    _, chosen = min(best.values())

    lane = {n: x for row, places in zip(rows, chosen, strict=True) for n, x in zip(row, places, strict=True)}
    spans = {}
    for row in rows:
        taken = {lane[node] for node in row}
        for node in row:
            ends = [lane[b if a == node else a] for a, b in pieces if node in (a, b)]
            first = last = lane[node]
            while node in names and first > min(ends) and first - 1 not in taken:
                first -= 1
            while node in names and last < max(ends) and last + 1 not in taken:
                last += 1
            spans[node] = first, last
            taken |= {*range(first, last + 1)}
    return rows, spans


def _line(
    edge: tuple[str, str], tensors: list[Flow], rows: list[list], spans: dict, tops: dict, heights: dict
) -> tuple[str, int]:
    """An edge, and at its beginning the names and shapes of its tensors; also, where these end."""
    source, target = edge
    passed = [node for row in rows for node in row if isinstance(node, tuple) and node[:2] == edge]
    start, y, path = None, tops[source] + heights[source], ""
    for one, two in pairwise([source, *passed, target]):
        low, high = max(spans[one][0], spans[two][0]), min(spans[one][1], spans[two][1])
        ends = [(low + high) / 2] * 2 if low <= high else sorted((low, high), reverse=spans[one] > spans[two])
        x, end = (round(LANE * (lane + 0.5)) for lane in ends)
        start = x if start is None else start
        path += f"H{x}V{tops[two] - 16}H{end}V{tops[two] - 6}"
    labels = "".join(
        f'<text x="{start + 9}" y="{y + 20 + LINE * i}">{_label(flow)}</text>'
        for i, flow in enumerate(tensors)
    )
    label_end = start + 9 + 7 * max(len(f"{flow.name} {_shape(flow)}") for flow in tensors)
    svg = (
        f'<g class="flow" data-from="{source}" data-to="{target}">'
        f'<g style="color: {COLOURS.get(source, "inherit")}"><path d="M{start} {y}{path}"/>'
        f'<path class="head" d="M{end} {tops[target]}l-4.5 -8h9z"/></g>{labels}</g>'
    )
    return svg, label_end


def _box(
    name: str, text: list[str], span: tuple[int, int], top: int, height: int, picture: np.ndarray | None
) -> str:
    """A component as a link to its page."""
    x, width = LANE * span[0] + (LANE - BOX) / 2, LANE * (span[1] - span[0]) + BOX
    middle = x + width / 2
    inside = f'<text class="title" x="{middle}" y="{top + 20}">{escape(_title(name))}</text>'
    for i, line in enumerate(text):
        inside += f'<text x="{middle}" y="{top + 36 + LINE * i}">{escape(line)}</text>'
    if picture is not None:
        png = base64.b64encode(cv2.imencode(".png", picture[..., ::-1])[1]).decode()
        corner = f'x="{middle - PICTURE / 2}" y="{top + height - PICTURE - 8}"'
        inside += f'<image {corner} width="{PICTURE}" height="{PICTURE}" href="data:image/png;base64,{png}"/>'
    page = TITLES.get(name, ("", "architecture"))[1]
    return (
        f'<a href="{page}.html" data-name="{name}" aria-label="{escape(", ".join([_title(name), *text]))}">'
        f'<rect x="{x}" y="{top}" width="{width}" height="{height}" rx="7" '
        f'style="color: {COLOURS.get(name, "inherit")}"/><g text-anchor="middle">{inside}</g></a>'
    )


def _title(name: str) -> str:
    return TITLES[name][0] if name in TITLES else name.replace("_", " ").capitalize()


def _shape(flow: Flow) -> str:
    return " × ".join(map(str, flow.shape))


def _label(flow: Flow) -> str:
    """Symbol and shape as the inside of an SVG text, with the symbol's index (F_up) set lower."""
    if not flow.name:
        return _shape(flow)
    letter, _, index = flow.name.partition("_")
    index = index and f'<tspan class="index" dy="3">{escape(index)}</tspan>'
    rise = ' dy="-3"' if index else ""
    return f'<tspan class="symbol">{escape(letter)}</tspan>{index}<tspan dx="5"{rise}>{_shape(flow)}</tspan>'
