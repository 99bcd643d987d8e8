// An interactive plotly figure: loads plotly.js from the book's _static folder if the page does not have it, and
// draws in the colours of the page's light or dark theme. dpose.figures.plotly_html calls this function.
(div, figure) => {
  const root = document.documentElement;
  const ink = () => getComputedStyle(div.parentElement || div).color;
  const layout = () => {
    const grid = "rgba(127,127,127,0.35)";
    const clear = "rgba(0,0,0,0)";
    const out = Object.assign({}, figure.layout, {paper_bgcolor: clear, plot_bgcolor: clear});
    out.colorway = out.colorway || ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"];
    out.font = Object.assign({}, out.font, {color: ink()});
    const axes = Object.keys(out).filter((key) => /^[xy]axis\d*$/.test(key)).concat(["xaxis", "yaxis"]);
    for (const key of axes) out[key] = Object.assign({gridcolor: grid, zerolinecolor: grid}, out[key]);
    return out;
  };
  const draw = () => window.Plotly.react(div, figure.data, layout(), {responsive: true, displayModeBar: false});
  const library = () => {
    if (window.Plotly) return Promise.resolve();
    if (window.dposePlotly) return window.dposePlotly;
    if (root.dataset.content_root === undefined)
      return Promise.reject(new Error("plotly.js is not on this page; run the notebook again from the top"));
    const load = new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = root.dataset.content_root + "_static/plotly.js";
      script.onload = resolve;
      script.onerror = () => reject(new Error("cannot load " + script.src));
      document.head.append(script);
    });
    window.dposePlotly = load.then(async () => { // the script holds the library, deflated
      const bytes = Uint8Array.from(atob(window.dposePlotlyPacked), (c) => c.charCodeAt(0));
      const inflated = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
      document.head.append(Object.assign(document.createElement("script"), {text: await new Response(inflated).text()}));
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
}
