// Surfaces that can be turned: triangles drawn from the furthest to the nearest. Without scripts, and on paper, the
// still picture is shown instead.
for (const frame of document.querySelectorAll(".surface")) {
  const mesh = JSON.parse(frame.dataset.mesh);
  const bytes = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)).buffer;
  const points = new Int16Array(bytes(mesh.points)), levels = new Uint8Array(bytes(mesh.levels));
  const corners = new (mesh.wide ? Uint32Array : Uint16Array)(bytes(mesh.triangles));
  const count = points.length / 3, seen = new Float32Array(points.length);
  const canvas = document.createElement("canvas");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", frame.dataset.what);
  frame.prepend(canvas);
  let [turn, tilt] = mesh.turn, zoom = 1, waiting = false;

  const project = ([left, back, up], a, b) => {
    const deep = back * Math.cos(a) - left * Math.sin(a);
    return [left * Math.cos(a) + back * Math.sin(a), up * Math.cos(b) + deep * Math.sin(b), deep * Math.cos(b) - up * Math.sin(b)];
  };

  const draw = () => {
    waiting = false;
    const size = canvas.clientWidth * (window.devicePixelRatio || 1);
    if (!size) return;
    canvas.width = canvas.height = size;
    const pen = canvas.getContext("2d"), half = size / 2, scale = (zoom * half) / 1.16 / 32767;
    const a = (turn * Math.PI) / 180, b = (tilt * Math.PI) / 180;
    for (let k = 0; k < count; k++) seen.set(project(points.subarray(3 * k, 3 * k + 3), a, b), 3 * k);
    const faces = [];
    for (let t = 0; t < levels.length; t++) {
      const [i, j, k] = [3 * corners[3 * t], 3 * corners[3 * t + 1], 3 * corners[3 * t + 2]];
      const [ux, uy, uz] = [seen[j] - seen[i], seen[j + 1] - seen[i + 1], seen[j + 2] - seen[i + 2]];
      const [vx, vy, vz] = [seen[k] - seen[i], seen[k + 1] - seen[i + 1], seen[k + 2] - seen[i + 2]];
      const [nx, ny, nz] = [uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx];
      const toward = nz / (Math.hypot(nx, ny, nz) || 1);
      if (toward > 0) faces.push([seen[i + 2] + seen[j + 2] + seen[k + 2], i, j, k, levels[t], toward]);
    }
    faces.sort((one, other) => other[0] - one[0]);
    for (const [, i, j, k, level, toward] of faces) {
      const shade = mesh.light + (1 - mesh.light) * toward;
      pen.fillStyle = pen.strokeStyle = `rgb(${mesh.palette[level].map((part) => Math.round(part * shade))})`;
      pen.beginPath();
      for (const corner of [i, j, k]) pen.lineTo(half + scale * seen[corner], half - scale * seen[corner + 1]);
      pen.closePath();
      pen.fill();
      pen.stroke();
    }
    pen.fillStyle = getComputedStyle(canvas).color;
    pen.font = `${size / 22}px sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    const ways = { L: [1, 0, 0], P: [0, 1, 0], S: [0, 0, 1], R: [-1, 0, 0], A: [0, -1, 0], I: [0, 0, -1] };
    for (const [letter, way] of Object.entries(ways)) {
      const [x, y, away] = project(way, a, b), aside = Math.hypot(x, y);
      if (aside > 0.6 && away < 0.4) pen.fillText(letter, half + (0.95 * half * x) / aside, half - (0.95 * half * y) / aside);
    }
  };
  const later = () => { if (!waiting) { waiting = true; requestAnimationFrame(draw); } };
  const move = (right, down) => { turn -= right; tilt = Math.max(-90, Math.min(90, tilt + down)); later(); };

  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    if (canvas.hasPointerCapture(event.pointerId)) move(event.movementX / 2, event.movementY / 2);
  });
  const keys = {
    ArrowLeft: () => move(-10, 0), ArrowRight: () => move(10, 0), ArrowUp: () => move(0, -10), ArrowDown: () => move(0, 10),
    "+": () => { zoom *= 1.2; later(); }, "-": () => { zoom /= 1.2; later(); },
    0: () => { [turn, tilt] = mesh.turn; zoom = 1; later(); },
  };
  canvas.addEventListener("keydown", (event) => {
    if (keys[event.key]) { keys[event.key](); event.preventDefault(); }
  });
  frame.classList.add("turns");
  draw();
  new ResizeObserver(later).observe(canvas);
}
