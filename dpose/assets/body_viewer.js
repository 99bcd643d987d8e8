// A body model in a page, without a server and without Python: the arithmetic of dpose.body.Body (shape, joints,
// kinematic tree, linear blend skinning) and a WebGL picture of it. dpose.figures.body_viewer writes `model`, all
// arrays little-endian in base64, and calls this function; tests compare the vertices with the package's.
(root, model) => {
  const array = (Type, text) => new Type(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const metres = ({step, data}) => Float32Array.from(array(Int16Array, data), (n) => n * step);
  const template = metres(model.template); // x, y, z of each vertex
  const directions = model.directions.map(metres); // the same for each beta
  const faces = array(Uint32Array, model.faces);
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
  const computeNormals = () => { // sums of the faces' normals, weighted by area; the shader makes unit vectors of them
    normals.fill(0);
    for (let f = 0; f < faces.length; f += 3) {
      const a = 3 * faces[f], b = 3 * faces[f + 1], c = 3 * faces[f + 2];
      const ux = vertices[b] - vertices[a], uy = vertices[b + 1] - vertices[a + 1], uz = vertices[b + 2] - vertices[a + 2];
      const vx = vertices[c] - vertices[a], vy = vertices[c + 1] - vertices[a + 1], vz = vertices[c + 2] - vertices[a + 2];
      const nx = uy * vz - uz * vy, ny = uz * vx - ux * vz, nz = ux * vy - uy * vx;
      for (const i of [a, b, c]) { normals[i] += nx; normals[i + 1] += ny; normals[i + 2] += nz; }
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
  const turn = ["x", "y", "z"].map((axis, i) =>
    slider(axis, 180, "°", (value) => { pose[chosen][i] = value * Math.PI / 180; }));
  const joint = element("select", {}, ...names.map((name, j) => element("option", {value: j, textContent: name.replace("_", " ")})));
  joint.onchange = () => choose(+joint.value);
  const coloured = box("parts", false), skeleton = box("joints", false);
  const buttons = Object.entries({"T-pose": names.map(() => [0, 0, 0]), ...model.poses}).map(([name, to]) =>
    element("button", {type: "button", textContent: name, onclick: () => move(to)}));
  const mean = element("button", {type: "button", textContent: "mean shape", onclick: () => { betas.fill(0); showAll(); refresh(); }});
  const canvas = element("canvas"), note = element("p");
  root.append(
    element("style", {textContent: `
      .dpose-body { display: flex; flex-wrap: wrap; gap: 1em; align-items: center; color: inherit; }
      .dpose-body canvas { flex: 1 1 320px; min-width: 0; height: ${model.height}px; touch-action: pan-y; cursor: grab; }
      .dpose-body form { flex: 0 1 250px; display: grid; gap: 0.3em; font-size: 0.9em; accent-color: #0072B2; }
      .dpose-body .dial { display: grid; grid-template-columns: 1.6em 1fr 3em; align-items: center; }
      .dpose-body .dial input { min-width: 0; } .dpose-body output { text-align: right; font-variant-numeric: tabular-nums; }
      .dpose-body form div { display: flex; flex-wrap: wrap; gap: 0.3em 0.8em; margin-bottom: 0.6em; }
      .dpose-body button, .dpose-body select { font: inherit; color: inherit; background: rgba(127,127,127,0.15);
        border: 1px solid rgba(127,127,127,0.5); border-radius: 4px; padding: 0.1em 0.6em; cursor: pointer; }
      .dpose-body option { color: black; background: white; }
      .dpose-body p { font-size: 0.85em; opacity: 0.75; margin: 0.3em 0; }`}),
    canvas,
    element("form", {onsubmit: () => false},
      element("strong", {textContent: "Shape"}), ...shape.map((s) => s.row), element("div", {}, mean),
      element("strong", {textContent: "Pose"}), joint, ...turn.map((t) => t.row), element("div", {}, ...buttons),
      element("div", {}, coloured.row, skeleton.row), note));

  const showAll = () => {
    shape.forEach((s, k) => s.show(betas[k]));
    turn.forEach((t, i) => t.show(pose[chosen][i] * 180 / Math.PI));
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
  const gl = canvas.getContext("webgl2", {antialias: true});
  const view = {yaw: 0.35, pitch: 0.08, centre: model.centre, distance: 4.2, focal: 3.9};
  const turnOfView = () => times(matrix([view.pitch, 0, 0]), matrix([0, view.yaw, 0]));
  const lens = () => { // focal length in half widths and half heights: the body fits whichever is smaller
    const aspect = canvas.clientWidth / Math.max(canvas.clientHeight, 1), f = view.focal * Math.min(1, aspect);
    return [f / aspect, f];
  };
  let draw = () => {};
  if (gl) {
    const program = gl.createProgram();
    const shader = (kind, source) => {
      const it = gl.createShader(kind);
      gl.shaderSource(it, "#version 300 es\nprecision highp float;\n" + source);
      gl.compileShader(it);
      if (!gl.getShaderParameter(it, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(it));
      gl.attachShader(program, it);
    };
    shader(gl.VERTEX_SHADER, `
      in vec3 position, normal, colour; uniform mat3 turn; uniform vec3 centre; uniform vec2 lens; uniform float range;
      out vec3 direction; out vec3 albedo;
      void main() {
        vec3 p = turn * (position - centre);
        float z = range - p.z;
        gl_Position = vec4(lens * p.xy, (z - range) / 4.0 * z, z); // all within 4 m of the centre is kept
        gl_PointSize = 9.0; direction = turn * normal; albedo = colour;
      }`);
    shader(gl.FRAGMENT_SHADER, `
      in vec3 direction; in vec3 albedo; uniform float lit; uniform bool dots; out vec4 fragment;
      void main() { // the lights of dpose.render.shade
        if (dots && length(gl_PointCoord - 0.5) > 0.5) discard;
        vec3 n = normalize(direction);
        float light = 0.18 + 0.75 * max(0.0, dot(n, normalize(vec3(-0.5, 0.6, 0.7))))
          + 0.25 * max(0.0, dot(n, normalize(vec3(0.8, 0.1, 0.5)))) + 0.2 * max(0.0, dot(n, normalize(vec3(0, 1, -0.1))));
        fragment = vec4(pow(clamp(albedo * mix(1.0, light, lit), 0.0, 1.0), vec3(1.0 / 2.2)), 1);
      }`);
    gl.linkProgram(program);
    gl.useProgram(program);
    const uniform = (name) => gl.getUniformLocation(program, name);
    const send = (name, values) => { // an attribute, three numbers a vertex
      const at = gl.getAttribLocation(program, name);
      buffers[name] ??= gl.createBuffer();
      gl.bindBuffer(gl.ARRAY_BUFFER, buffers[name]);
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.DYNAMIC_DRAW);
      gl.enableVertexAttribArray(at);
      gl.vertexAttribPointer(at, 3, gl.FLOAT, false, 0, 0);
    };
    const buffers = {};
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faces, gl.STATIC_DRAW);
    const [plain, accent] = [[0.42, 0.56, 0.8], [0.9, 0.35, 0.02]];
    draw = () => {
      const density = window.devicePixelRatio || 1;
      canvas.width = canvas.clientWidth * density; canvas.height = canvas.clientHeight * density;
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.enable(gl.DEPTH_TEST);
      gl.uniformMatrix3fv(uniform("turn"), true, turnOfView().flat());
      gl.uniform3fv(uniform("centre"), view.centre);
      gl.uniform2fv(uniform("lens"), lens());
      gl.uniform1f(uniform("range"), view.distance);
      gl.uniform1f(uniform("lit"), 1);
      gl.uniform1i(uniform("dots"), 0);
      const colours = new Float32Array(vertices.length);
      parts.forEach((j, v) => colours.set(coloured.input.checked ? palette[j] : j === chosen ? accent : plain, 3 * v));
      send("position", vertices); send("normal", normals); send("colour", colours);
      gl.drawElements(gl.TRIANGLES, faces.length, gl.UNSIGNED_INT, 0);
      if (!skeleton.input.checked) return;
      gl.disable(gl.DEPTH_TEST); // shines through
      gl.uniform1f(uniform("lit"), 0);
      const show = (mode, points, colour) => {
        const values = new Float32Array(points.flat());
        send("position", values); send("normal", values); send("colour", new Float32Array(points.flatMap(() => colour)));
        gl.uniform1i(uniform("dots"), mode === gl.POINTS ? 1 : 0);
        gl.drawArrays(mode, 0, points.length);
      };
      show(gl.LINES, joints.flatMap((p, j) => (parents[j] < 0 ? [] : [joints[parents[j]], p])), [0, 0, 0]);
      show(gl.POINTS, joints, [0, 0, 0]);
      show(gl.POINTS, [joints[chosen]], accent);
    };
  } else canvas.replaceWith(element("p", {textContent: "This browser has no WebGL 2, so the body cannot be shown."}));

  let waiting = false;
  const refresh = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; compute(); computeNormals(); draw(); });
  };
  let drag = null;
  canvas.onpointerdown = (event) => { drag = {x: event.clientX, y: event.clientY, far: 0}; canvas.setPointerCapture(event.pointerId); };
  canvas.onpointermove = (event) => {
    if (!drag) return;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    drag = {x: event.clientX, y: event.clientY, far: drag.far + Math.hypot(dx, dy)};
    view.yaw += 0.01 * dx;
    view.pitch = Math.max(-1.5, Math.min(1.5, view.pitch + 0.01 * dy));
    refresh();
  };
  canvas.onpointercancel = () => { drag = null; };
  canvas.onpointerup = (event) => { // a click chooses the part under it: that of the nearest of the vertices around
    const clicked = drag && drag.far < 4;
    drag = null;
    if (!clicked) return;
    const m = turnOfView(), [fx, fy] = lens(), frame = canvas.getBoundingClientRect();
    let best = -Infinity, found = null;
    for (let v = 0; v < counts.length; v++) {
      const p = apply(m, [0, 1, 2].map((i) => vertices[3 * v + i] - view.centre[i])), z = view.distance - p[2];
      const x = frame.left + (1 + fx * p[0] / z) * frame.width / 2, y = frame.top + (1 - fy * p[1] / z) * frame.height / 2;
      if (Math.hypot(x - event.clientX, y - event.clientY) < 7 && p[2] > best) [best, found] = [p[2], parts[v]];
    }
    if (found !== null) choose(found);
  };

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
  note.textContent = "Drag to turn, click a part to choose its joint. At a random shape and pose, "
    + `${truth.length / 3} vertices computed here are within ${(Math.ceil(1e5 * apart) / 100).toFixed(2)} mm of dpose.body's`
    + (check.correctives ? ", whose pose correctives this page leaves out." : ".");
  set([], names.map(() => [0, 0, 0]));
  new ResizeObserver(refresh).observe(canvas);
  root.dposeBody = {set, apart, view, refresh};
  root.dataset.drawn = "yes";
}
