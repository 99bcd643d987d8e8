// A WebGL picture of lit meshes that the reader turns by dragging, for body_viewer.js and app.html. `view` holds yaw
// and pitch in radians, and in metres the centre, the distance to it, and the reach around it that is drawn; its
// focal length is in half sides of the canvas. `refresh` is called when the view has changed; it calls `clear` and
// `paint`, which are undefined where the browser has no WebGL 2.
(canvas, view, refresh, onclick = () => {}) => {
  const turn = () => { // rows of the rotation from the scene to the view: yaw, then pitch
    const [cy, sy, cp, sp] = [Math.cos(view.yaw), Math.sin(view.yaw), Math.cos(view.pitch), Math.sin(view.pitch)];
    return [[cy, 0, sy], [sp * sy, cp, -sp * cy], [-cp * sy, sp, cp * cy]];
  };
  const lens = () => { // focal length in half widths and half heights: the scene fits whichever is smaller
    const aspect = canvas.clientWidth / Math.max(canvas.clientHeight, 1), f = view.focal * Math.min(1, aspect);
    return [f / aspect, f];
  };
  const normalsOf = (vertices, faces, normals) => { // sums of the faces' normals, weighted by area; the shader makes unit vectors of them
    normals.fill(0);
    for (let f = 0; f < faces.length; f += 3) {
      const a = 3 * faces[f], b = 3 * faces[f + 1], c = 3 * faces[f + 2];
      const ux = vertices[b] - vertices[a], uy = vertices[b + 1] - vertices[a + 1], uz = vertices[b + 2] - vertices[a + 2];
      const vx = vertices[c] - vertices[a], vy = vertices[c + 1] - vertices[a + 1], vz = vertices[c + 2] - vertices[a + 2];
      const nx = uy * vz - uz * vy, ny = uz * vx - ux * vz, nz = ux * vy - uy * vx;
      for (const i of [a, b, c]) { normals[i] += nx; normals[i + 1] += ny; normals[i + 2] += nz; }
    }
    return normals;
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
  canvas.onpointerup = (event) => {
    const clicked = drag && drag.far < 4;
    drag = null;
    if (clicked) onclick(event);
  };
  new ResizeObserver(refresh).observe(canvas);

  const gl = canvas.getContext("webgl2", {antialias: true});
  if (!gl) return {turn, lens, normalsOf};
  const program = gl.createProgram();
  const shader = (kind, source) => {
    const it = gl.createShader(kind);
    gl.shaderSource(it, "#version 300 es\nprecision highp float;\n" + source);
    gl.compileShader(it);
    if (!gl.getShaderParameter(it, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(it));
    gl.attachShader(program, it);
  };
  shader(gl.VERTEX_SHADER, `
    in vec3 position, normal, colour; uniform mat3 turn; uniform vec3 centre; uniform vec2 lens; uniform float range, reach;
    out vec3 direction; out vec3 albedo;
    void main() {
      vec3 p = turn * (position - centre);
      float z = range - p.z;
      gl_Position = vec4(lens * p.xy, (z - range) / reach * z, z); // all within the reach of the centre is kept
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
  const buffers = {}, sent = {};
  const send = (name, values, target, still) => {
    buffers[name] ??= gl.createBuffer();
    gl.bindBuffer(target, buffers[name]);
    if (!still || sent[name] !== values) gl.bufferData(target, values, gl.DYNAMIC_DRAW);
    sent[name] = values;
  };
  const clear = () => {
    const density = window.devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * density; canvas.height = canvas.clientHeight * density;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniformMatrix3fv(uniform("turn"), true, turn().flat());
    gl.uniform3fv(uniform("centre"), view.centre);
    gl.uniform2fv(uniform("lens"), lens());
    gl.uniform1f(uniform("range"), view.distance);
    gl.uniform1f(uniform("reach"), view.reach);
  };
  // Float32Arrays of three numbers a vertex. With `faces` a mesh, whose arrays stay the same if it is `still`; else
  // lines or dots that shine through.
  const paint = ({position, normal = position, colour, faces, dots = false, still = false}) => {
    gl[faces ? "enable" : "disable"](gl.DEPTH_TEST);
    gl.uniform1f(uniform("lit"), faces ? 1 : 0);
    gl.uniform1i(uniform("dots"), dots ? 1 : 0);
    Object.entries({position, normal, colour}).forEach(([name, values]) => {
      const at = gl.getAttribLocation(program, name);
      send(name, values, gl.ARRAY_BUFFER, still);
      gl.enableVertexAttribArray(at);
      gl.vertexAttribPointer(at, 3, gl.FLOAT, false, 0, 0);
    });
    if (!faces) return gl.drawArrays(dots ? gl.POINTS : gl.LINES, 0, position.length / 3);
    send("faces", faces, gl.ELEMENT_ARRAY_BUFFER, true);
    gl.drawElements(gl.TRIANGLES, faces.length, gl.UNSIGNED_INT, 0);
  };
  return {turn, lens, normalsOf, clear, paint};
}
