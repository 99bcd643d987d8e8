// A body model in a page, without a server and without Python: the arithmetic of dpose.body.Body (shape, joints,
// kinematic tree, linear blend skinning) and a picture of it by mesh_view.js. dpose.figures.body_viewer writes `model`,
// all arrays little-endian in base64, and calls this function; tests compare the vertices with the package's.
(root, model, meshView) => {
  const array = (Type, text) => new Type(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const metres = ({step, data}) => Float32Array.from(array(Int16Array, data), (n) => n * step);
  const template = metres(model.template); // x, y, z of each vertex
  const directions = model.directions.map(metres); // the same for each beta
  const faces = Uint32Array.from(array(template.length < 3 * 2 ** 16 ? Uint16Array : Uint32Array, model.faces));
  const parts = array(Uint8Array, model.parts); // the joint that each vertex moves with most
  const [counts, movers] = [array(Uint8Array, model.counts), array(Uint8Array, model.movers)];
  const weights = Float32Array.from(array(Uint16Array, model.weights), (n) => n / 65535);
  const palette = model.palette.map((rgb) => rgb.map((c) => (c / 255) ** 2.2)); // light, not code
  const {parents, names} = model;

  // --- the body: betas and one rotation vector a joint in, `vertices` and `joints` out
  const betas = directions.map(() => 0);
  let pose = names.map(() => [0, 0, 0]);
  const vertices = new Float32Array(template.length), normals = new Float32Array(template.length);
  let joints = [];

  const matrix = ([x, y, z]) => { // Rodrigues; rows
    const angle = Math.hypot(x, y, z), c = Math.cos(angle);
    const s = angle > 1e-8 ? Math.sin(angle) / angle : 1, k = angle > 1e-8 ? (1 - c) / angle ** 2 : 0.5;
    return [
      [c + k * x * x, k * x * y - s * z, k * x * z + s * y],
      [k * x * y + s * z, c + k * y * y, k * y * z - s * x],
      [k * x * z - s * y, k * y * z + s * x, c + k * z * z],
    ];
  };
  const apply = (m, p) => m.map((row) => row[0] * p[0] + row[1] * p[1] + row[2] * p[2]);
  const times = (a, b) => a.map((row) => [0, 1, 2].map((j) => row[0] * b[0][j] + row[1] * b[1][j] + row[2] * b[2][j]));

  const compute = () => {
    const shaped = Float64Array.from(template);
    const rest = model.joints.map((p) => [...p]);
    betas.forEach((beta, k) => {
      if (beta) directions[k].forEach((d, i) => { shaped[i] += beta * d; });
      rest.forEach((p, j) => p.forEach((_, i) => { p[i] += beta * model.joint_directions[k][j][i]; }));
    });
    const linear = [], offset = []; // of each joint: rest pose to world
    joints = rest.map((p, j) => {
      const up = parents[j], turn = matrix(pose[j]);
      const at = up < 0 ? p : apply(linear[up], p).map((v, i) => v + offset[up][i]); // carried by its parent
      linear.push(up < 0 ? turn : times(linear[up], turn));
      offset.push(apply(linear[j], p).map((v, i) => at[i] - v)); // and the rest turns about it
      return at;
    });
    const flat = linear.map((m, j) => m.flatMap((row, i) => [...row, offset[j][i]])); // 3 x 4
    for (let v = 0, n = 0; v < counts.length; v++) {
      const at = 3 * v, x = shaped[at], y = shaped[at + 1], z = shaped[at + 2];
      let px = 0, py = 0, pz = 0;
      for (const end = n + counts[v]; n < end; n++) {
        const w = weights[n], m = flat[movers[n]];
        px += w * (m[0] * x + m[1] * y + m[2] * z + m[3]);
        py += w * (m[4] * x + m[5] * y + m[6] * z + m[7]);
        pz += w * (m[8] * x + m[9] * y + m[10] * z + m[11]);
      }
      vertices[at] = px; vertices[at + 1] = py; vertices[at + 2] = pz;
    }
  };

  // --- the controls
  const element = (tag, properties = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  };
  const slider = (label, limit, unit, onmove) => {
    const input = element("input", {type: "range", min: -limit, max: limit, step: limit / 120, value: 0});
    const output = element("output");
    const show = (value) => { input.value = value; output.textContent = (+value).toFixed(unit ? 0 : 1).replace("-", "−") + unit; };
    input.oninput = () => { show(input.value); onmove(+input.value); refresh(); };
    show(0);
    return {show, row: element("label", {className: "dial"}, element("span", {textContent: label}), input, output)};
  };
  const box = (label, checked) => {
    const input = element("input", {type: "checkbox", checked, onchange: () => refresh()});
    return {input, row: element("label", {}, input, " " + label)};
  };
  let chosen = Math.max(0, names.indexOf("left_shoulder"));
  const shape = betas.map((_, k) => slider(`β${k + 1}`, 3, "", (value) => { betas[k] = value; }));
  const turns = ["x", "y", "z"].map((axis, i) =>
    slider(axis, 180, "°", (value) => { pose[chosen][i] = value * Math.PI / 180; }));
  const joint = element("select", {ariaLabel: "Joint to turn"}, ...names.map((name, j) => element("option", {value: j, textContent: name.replace("_", " ")})));
  joint.onchange = () => choose(+joint.value);
  const coloured = box("parts", false), skeleton = box("joints", false);
  const buttons = Object.entries({"T-pose": names.map(() => [0, 0, 0]), ...model.poses}).map(([name, to]) =>
    element("button", {type: "button", textContent: name, onclick: () => move(to)}));
  const mean = element("button", {type: "button", textContent: "mean shape", onclick: () => { betas.fill(0); showAll(); refresh(); }});
  const canvas = element("canvas", {tabIndex: 0, role: "img", ariaLabel: "The body in 3D. Drag or use the arrow keys to turn it."});
  canvas.onkeydown = (event) => {
    const step = {ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1]}[event.key];
    if (!step) return;
    event.preventDefault();
    view.yaw += step[0];
    view.pitch = Math.max(-1.5, Math.min(1.5, view.pitch + step[1]));
    refresh();
  };
  const note = element("p");
  root.append(
    element("style", {textContent: `
      .dpose-body { display: flex; flex-wrap: wrap; gap: 1em; align-items: center; color: inherit; }
      .dpose-body canvas { flex: 1 1 320px; min-width: 0; height: min(${model.height}px, 105vw); touch-action: pan-y; cursor: grab; }
      .dpose-body form { flex: 0 1 250px; display: grid; gap: 0.3em; font-size: 0.9em; accent-color: #0072B2; }
      .dpose-body .dial { display: grid; grid-template-columns: 1.6em 1fr 3em; align-items: center; }
      .dpose-body .dial input { min-width: 0; } .dpose-body output { text-align: right; font-variant-numeric: tabular-nums; }
      .dpose-body form div { display: flex; flex-wrap: wrap; gap: 0.3em 0.8em; margin-bottom: 0.6em; }
      .dpose-body button, .dpose-body select { font: inherit; color: inherit; background: rgba(127,127,127,0.15);
        border: 1px solid rgba(127,127,127,0.5); border-radius: 4px; padding: 0.1em 0.6em; cursor: pointer; }
      .dpose-body option { color: black; background: white; }
      .dpose-body p { font-size: 0.85em; margin: 0.3em 0; }`}),
    canvas,
    element("form", {onsubmit: () => false},
      element("strong", {textContent: "Shape"}), ...shape.map((s) => s.row), element("div", {}, mean),
      element("strong", {textContent: "Pose"}), joint, ...turns.map((t) => t.row), element("div", {}, ...buttons),
      element("div", {}, coloured.row, skeleton.row), note));

  const showAll = () => {
    shape.forEach((s, k) => s.show(betas[k]));
    turns.forEach((t, i) => t.show(pose[chosen][i] * 180 / Math.PI));
    joint.value = chosen;
  };
  const choose = (j) => { chosen = j; showAll(); refresh(); };
  const move = (to) => { // to another pose, in 0.4 s
    const from = pose, start = performance.now();
    const step = (now) => {
      const t = Math.min(1, Math.max(0, (now - start) / 400)), s = t * t * (3 - 2 * t);
      pose = from.map((a, j) => a.map((v, i) => v + s * (to[j][i] - v)));
      showAll(); refresh();
      if (t < 1) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  };

  // --- the picture
  const view = {yaw: 0.35, pitch: 0.08, centre: model.centre, distance: 4.2, reach: 4, focal: 3.9};
  const [plain, accent] = [[0.42, 0.56, 0.8], [0.9, 0.35, 0.02]];
  let waiting = false;
  const refresh = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; compute(); draw(); });
  };
  const clicked = (event) => { // chooses the part under the mouse: that of the nearest of the vertices around
    const m = turn(), [fx, fy] = lens(), frame = canvas.getBoundingClientRect();
    let best = -Infinity, found = null;
    for (let v = 0; v < counts.length; v++) {
      const p = apply(m, [0, 1, 2].map((i) => vertices[3 * v + i] - view.centre[i])), z = view.distance - p[2];
      const x = frame.left + (1 + fx * p[0] / z) * frame.width / 2, y = frame.top + (1 - fy * p[1] / z) * frame.height / 2;
      if (Math.hypot(x - event.clientX, y - event.clientY) < 7 && p[2] > best) [best, found] = [p[2], parts[v]];
    }
    if (found !== null) choose(found);
  };
  const {turn, lens, normalsOf, clear, paint} = meshView(canvas, view, refresh, clicked);
  const draw = () => {
    if (!paint) return;
    clear();
    const colour = new Float32Array(vertices.length);
    parts.forEach((j, v) => colour.set(coloured.input.checked ? palette[j] : j === chosen ? accent : plain, 3 * v));
    paint({position: vertices, normal: normalsOf(vertices, faces, normals), colour, faces});
    if (!skeleton.input.checked) return;
    const show = (points, of, dots) =>
      paint({position: new Float32Array(points.flat()), colour: new Float32Array(points.flatMap(() => of)), dots});
    show(joints.flatMap((p, j) => (parents[j] < 0 ? [] : [joints[parents[j]], p])), [0, 0, 0], false);
    show(joints, [0, 0, 0], true);
    show([joints[chosen]], accent, true);
  };
  if (!paint) canvas.replaceWith(element("p", {textContent: "This browser has no WebGL 2, so the body cannot be shown."}));

  // --- for tests, and for the reader: this page's vertices against the package's at a random shape and pose
  const set = (newBetas, newPose) => {
    betas.forEach((_, k) => { betas[k] = newBetas[k] ?? 0; });
    pose = newPose.map((p) => [...p]);
    compute();
    showAll(); refresh();
    return {vertices, joints};
  };
  const {check} = model, truth = array(Float32Array, check.vertices);
  set(check.betas, check.pose);
  let apart = 0;
  for (let n = 0; n < truth.length; n += 3) {
    const at = check.every * n;
    apart = Math.max(apart, Math.hypot(...[0, 1, 2].map((i) => vertices[at + i] - truth[n + i])));
  }
  note.textContent = "Drag or use the arrow keys to turn, click a part to choose its joint. At a random shape and pose, "
    + `${truth.length / 3} vertices computed here are within ${(Math.ceil(1e5 * apart) / 100).toFixed(2)} mm of dpose.body's`
    + (check.correctives ? ", whose pose correctives this page leaves out." : ".");
  set([], names.map(() => [0, 0, 0]));
  root.dposeBody = {set, apart, view, refresh};
  root.dataset.drawn = "yes";
}
