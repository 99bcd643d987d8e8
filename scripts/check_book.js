// What scripts/check_book.py runs inside each page.
window.checkBook = (() => {
const SMALLEST = 11; // text in drawings, pixels
// Resolves when MathJax and all plotly figures are done, or gives up after 30 s. Lazy images are loaded at once.
const settle = async () => {
  const until = async (done) => {
    for (let i = 0; i < 300 && !done(); i++) await new Promise((r) => setTimeout(r, 100));
  };
  for (const image of document.images) image.loading = "eager";
  if (document.querySelector(".math")) await until(() => window.MathJax && MathJax.startup && MathJax.startup.promise);
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  await until(() => [...document.querySelectorAll(".dpose-plotly")].every((d) => d.dataset.drawn));
  await Promise.all([...document.images].map((i) => i.decode().catch(() => null)));
  await document.fonts.ready;
  await new Promise((r) => setTimeout(r, 300));
};

const overflow = () => {
  const faults = [];
  const [width, room] = [document.documentElement.scrollWidth, window.innerWidth];
  if (width > room + 2) faults.push(`page wider than the window: ${width} > ${room}`);
  for (const caption of document.querySelectorAll("table caption")) // of tables that scroll in themselves, too
    if (caption.offsetWidth > room) faults.push("caption wider than the window: " + caption.textContent.trim().slice(0, 80));
  for (const math of document.querySelectorAll("div.math > mjx-container")) // its left end could not be scrolled to
    if (math.getBoundingClientRect().left < math.parentElement.getBoundingClientRect().left - 1)
      faults.push("equation cut off at the left: " + math.textContent.trim().slice(0, 80));
  return faults;
};

// What axe-core finds: rule, impact and places.
const accessibility = async (options) => {
  const {violations} = await axe.run(document, {...options, resultTypes: ["violations"]});
  return violations.map(({id, impact, nodes}) => ({id, impact, places: nodes.map((node) => node.target.join(" "))}));
};

// The faults that can be seen from inside the page, its links and anchors, and how many things it shows.
const inspect = () => {
  const faults = [];
  const article = document.querySelector("article") || document.body;
  const short = (text) => text.replace(/\s+/g, " ").trim().slice(0, 80);

  // Text that a reader sees, without code and without what MathJax has set.
  const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  const skip = "pre, code, script, style, mjx-container, .dpose-plotly, textarea";
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (node.parentElement.closest(skip)) continue;
    const text = node.textContent;
    if (/\\\(|\\\)|\\\[|\\\]|\$\$|\\(frac|mathbf|mathrm|sum|sigma|hat|text|begin|left|lambda|theta|beta)\b/.test(text))
      faults.push("TeX left as text: " + short(text));
    if (/\{(cite|ref|numref|doc|eq)[^}]*\}`/.test(text)) faults.push("markup left as text: " + short(text));
  }
  for (const math of article.querySelectorAll(".math")) {
    if (math.closest("pre, code")) continue;
    if (!math.querySelector("mjx-container")) faults.push("equation not set: " + short(math.textContent));
  }
  for (const error of article.querySelectorAll("mjx-merror, [data-mjx-error]"))
    faults.push("equation with an error: " + short(error.getAttribute("data-mjx-error") || error.textContent));

  for (const image of article.querySelectorAll("img")) {
    const name = short(image.getAttribute("src") || "").slice(-60);
    if (!image.complete || !image.naturalWidth || !image.naturalHeight) faults.push("picture not loaded: " + name);
  }

  // The beginning of a text, without punctuation and capitals.
  const beginning = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, " ").trim().slice(0, 40);
  for (const image of article.querySelectorAll("figure img")) {
    const figure = image.closest("figure");
    const caption = figure.querySelector(".caption-text") || figure.querySelector("figcaption");
    const [alt, shown] = [beginning(image.alt), beginning(caption ? caption.textContent : "")];
    if (alt && shown && (alt.startsWith(shown) || shown.startsWith(alt)))
      faults.push("alternative text repeats the caption: " + short(image.alt));
  }

  // Text of drawings in the page. That of bitmaps, and of drawings in files of their own, cannot be measured.
  for (const svg of article.querySelectorAll("svg")) {
    const sizes = [...svg.querySelectorAll("text")].filter((text) => text.textContent.trim() && text.getScreenCTM())
      .map((text) => [parseFloat(getComputedStyle(text).fontSize) * Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b), text]);
    const [size, text] = sizes.sort(([a], [b]) => a - b)[0] || [Infinity];
    if (size < SMALLEST - 0.05) faults.push(`text of ${size.toFixed(1)} pixels in a drawing, less than ${SMALLEST}: ` + short(text.textContent));
  }

  for (const plot of article.querySelectorAll(".dpose-plotly, .js-plotly-plot, .plotly-graph-div")) {
    const id = plot.id || "?";
    if (!plot.querySelector(".main-svg")) { faults.push("interactive figure not drawn: " + id); continue; }
    const box = plot.getBoundingClientRect();
    if (box.width < 100 || box.height < 100) faults.push("interactive figure without size: " + id);
    const marks = plot.querySelectorAll(
      ".scatterlayer .trace, .barlayer .trace, .boxlayer .trace, .plot path, .plot image, canvas"
    );
    if (!marks.length) faults.push("interactive figure without content: " + id);
    if (/WebGL is not supported/i.test(plot.textContent)) faults.push("interactive figure without WebGL: " + id);
  }
  for (const viewer of article.querySelectorAll(".dpose-body"))
    if (!viewer.dataset.drawn || !viewer.querySelector("canvas")) faults.push("interactive body not drawn: " + viewer.id);
  for (const widget of article.querySelectorAll("script[type^='application/vnd.jupyter.widget']"))
    faults.push("a Jupyter widget, which needs a network or a kernel");

  for (const output of article.querySelectorAll(".cell_output .traceback, .output.traceback, .output_error"))
    faults.push("a cell shows an exception: " + short(output.textContent));
  for (const output of article.querySelectorAll(".cell_output"))
    if (/Traceback \(most recent call last\)/.test(output.textContent)) faults.push("a cell shows a traceback");
  faults.push(...overflow());
  for (const table of article.querySelectorAll("table")) {
    const room = (table.closest(".cell_output") || table.parentElement).clientWidth;
    if (table.offsetWidth > room + 2) faults.push(`table wider than its column (${table.offsetWidth} > ${room}): ` + short(table.textContent));
  }
  for (const code of article.querySelectorAll("pre"))
    if (code.scrollWidth > code.clientWidth + 2 && code.clientWidth) faults.push("code wider than its column: " + short(code.textContent));

  const pictures = [...article.querySelectorAll("img")].map((image) => image.currentSrc || image.src);
  // The inner part of each interactive figure, where its content is, without bars and legends.
  const plots = [...article.querySelectorAll(".dpose-plotly, .dpose-body canvas")].map((plot) => {
    const box = plot.getBoundingClientRect();
    return {
      name: plot.id || plot.parentElement.id,
      clip: {
        x: window.scrollX + box.x + 0.2 * box.width,
        y: window.scrollY + box.y + 0.2 * box.height,
        width: 0.6 * box.width,
        height: 0.6 * box.height,
        scale: 1,
      },
    };
  });
  const links = [];
  for (const a of document.querySelectorAll("a[href]")) { // in SVG, too
    const address = a.getAttribute("href");
    if (URL.canParse(address, location)) links.push(new URL(address, location).href);
    else faults.push("link to an impossible address: " + short(address));
  }
  const ids = [...document.querySelectorAll("[id], a[name]")].map((e) => e.id || e.name);
  const counts = {
    equations: article.querySelectorAll("mjx-container").length,
    pictures: article.querySelectorAll("img").length,
    figures: article.querySelectorAll(".dpose-plotly, .dpose-body").length,
  };
  return {faults: [...new Set(faults)], links, ids, pictures, plots, counts};
};

return {settle, inspect, overflow, accessibility};
})();
