"""Figures of the notebooks and the book, for readers without a network.

Importing this module imports neither matplotlib nor plotly.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from IPython.display import HTML

_counter = itertools.count(1)
_library_sent = False

# Draws the figure as soon as the library is there, in the colours of the page's light or dark theme.
_SCRIPT = """
(function () {
  const div = document.getElementById("__ID__");
  const figure = __FIGURE__;
  const root = document.documentElement;
  const ink = () => getComputedStyle(div.parentElement || div).color;
  const layout = () => {
    const grid = "rgba(127,127,127,0.35)";
    const clear = "rgba(0,0,0,0)";
    const out = Object.assign({}, figure.layout, {paper_bgcolor: clear, plot_bgcolor: clear});
    out.colorway = out.colorway || ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"];
    out.font = Object.assign({}, out.font, {color: ink()});
    const axes = Object.keys(out).filter((key) => /^[xy]axis\\d*$/.test(key)).concat(["xaxis", "yaxis"]);
    for (const key of axes) out[key] = Object.assign({gridcolor: grid, zerolinecolor: grid}, out[key]);
    return out;
  };
  const draw = () => window.Plotly.react(div, figure.data, layout(), {responsive: true, displaylogo: false});
  const library = () => {
    if (window.Plotly) return Promise.resolve();
    if (window.dposePlotly) return window.dposePlotly;
    if (root.dataset.content_root === undefined)
      return Promise.reject(new Error("plotly.js is not on this page; run the notebook again from the top"));
    window.dposePlotly = new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = root.dataset.content_root + "_static/plotly.min.js";
      script.onload = resolve;
      script.onerror = () => reject(new Error("cannot load " + script.src));
      document.head.appendChild(script);
    });
    return window.dposePlotly;
  };
  library().then(draw).then(() => {
    div.dataset.drawn = "yes";
    new MutationObserver(draw).observe(root, {attributes: true, attributeFilter: ["data-theme"]});
  }).catch((error) => {
    div.textContent = "This interactive figure could not be drawn: " + error.message + ".";
    console.error(error);
  });
})();
"""


def plotly_html(figure: go.Figure, height: int = 460) -> HTML:
    """An interactive plotly figure as HTML that needs no network: the last expression of a notebook cell.

    In the book (`DPOSE_BOOK=1` in the environment, set by scripts/build_book.py) the output holds the
    figure alone, and the page loads `_static/plotly.min.js` once. Anywhere else the first figure of a
    kernel brings the library of the installed plotly package along (4.8 MB), and the ones after it use
    that.

    Args:
        figure: any plotly figure; its background and text colours are replaced by the page's.
        height: pixels; the width is that of the page.
    """
    global _library_sent
    from IPython.display import HTML

    in_book = os.environ.get("DPOSE_BOOK") == "1"
    library = ""
    if not in_book and not _library_sent:
        from plotly.offline import get_plotlyjs

        library = f"<script>if (!window.Plotly) {{ {get_plotlyjs()} }}</script>"
        _library_sent = True
    content = json.loads(figure.to_json())
    content["layout"].pop("template", None)
    content["layout"]["autosize"] = True
    content["layout"]["height"] = height
    payload = json.dumps(content, separators=(",", ":")).replace("</", "<\\/")
    name = f"dpose-plot-{next(_counter)}-{hashlib.sha256(payload.encode()).hexdigest()[:8]}"
    script = _SCRIPT.replace("__ID__", name).replace("__FIGURE__", payload)
    div = f'<div id="{name}" class="dpose-plotly" style="width:100%;height:{height}px"></div>'
    return HTML(f"{library}{div}<script>{script}</script>")
