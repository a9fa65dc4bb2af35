// Structure viewer on a 2D canvas: spheres, bonds and the cell, painted from back to front.
"use strict";
(() => {
  const MOST = 6000; // atoms drawn
  const BALL = 0.42; // of the covalent radius
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const shade = (hex, f) => {
    const n = parseInt(hex.slice(1), 16);
    const part = (shift) => { const c = (n >> shift) & 255; return Math.round(f > 0 ? c + (255 - c) * f : c * (1 + f)); };
    return `rgb(${part(16)} ${part(8)} ${part(0)})`;
  };
  const solve = (m, v) => { // m x = v by Cramer's rule; rows of m are the cell vectors, v = x · m
    const det = (a, b, c) => a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0]);
    const d = det(m[0], m[1], m[2]);
    return [det(v, m[1], m[2]) / d, det(m[0], v, m[2]) / d, det(m[0], m[1], v) / d];
  };

  class Viewer {
    constructor(box, data) {
      this.box = box;
      this.canvas = box.querySelector("canvas");
      this.data = data;
      this.species = Object.fromEntries(data.species.map((s) => [s.symbol, s]));
      this.periodic = data.pbc.some((p) => p) && Math.abs(this.volume()) > 1e-9;
      this.repeat = 1;
      this.build();
      this.reset();
      this.listen();
      new ResizeObserver(() => this.draw()).observe(this.canvas);
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    }

    volume() { const [a, b, c] = this.data.cell; return a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0]); }

    // Atoms with their images in the repeated cells; those on a face are shown on the face opposite too.
    build() {
      const { symbols, positions, cell, pbc } = this.data, atoms = [];
      const add = (symbol, f) => {
        if (atoms.length < MOST) atoms.push({ s: this.species[symbol], p: [0, 1, 2].map((j) => f[0] * cell[0][j] + f[1] * cell[1][j] + f[2] * cell[2][j]) });
      };
      symbols.forEach((symbol, k) => {
        if (!this.periodic) { if (atoms.length < MOST) atoms.push({ s: this.species[symbol], p: positions[k] }); return; }
        const f = solve(cell, positions[k]).map((x, j) => { const w = pbc[j] ? x - Math.floor(x + 1e-4) : x; return w; });
        const shifts = f.map((x, j) => {
          const n = pbc[j] ? this.repeat : 1, found = [...Array(n).keys()];
          if (pbc[j] && Math.abs(x) < 1e-3) found.push(n);
          return found;
        });
        for (const i of shifts[0]) for (const j of shifts[1]) for (const l of shifts[2]) add(symbol, [f[0] + i, f[1] + j, f[2] + l]);
      });
      const n = this.data.pbc.map((p) => (p ? this.repeat : 1));
      this.corners = this.periodic ? [...Array(8).keys()].map((k) => [0, 1, 2].map((j) => (k & 1) * n[0] * cell[0][j] + ((k >> 1) & 1) * n[1] * cell[1][j] + ((k >> 2) & 1) * n[2] * cell[2][j])) : [];
      const all = [...atoms.map((a) => a.p), ...this.corners];
      this.centre = [0, 1, 2].map((j) => (Math.min(...all.map((p) => p[j])) + Math.max(...all.map((p) => p[j]))) / 2);
      this.radius = Math.max(1.5, ...all.map((p) => Math.hypot(...p.map((x, j) => x - this.centre[j])))) + 0.6;
      this.atoms = atoms;
      // The edges in pieces, so that each is in front of or behind an atom; none inside a sphere.
      this.edges = [];
      const pieces = 12, inside = (p) => atoms.length <= 800 && atoms.some((a) => Math.hypot(...p.map((x, j) => x - a.p[j])) < BALL * a.s.radius);
      if (this.corners.length) for (let k = 0; k < 8; k++) for (const bit of [1, 2, 4]) if (!(k & bit)) {
        const A = this.corners[k], B = this.corners[k | bit], point = (t) => A.map((x, j) => x + (B[j] - x) * t);
        for (let i = 0; i < pieces; i++) if (!inside(point((i + 0.5) / pieces))) this.edges.push([point(i / pieces), point((i + 1) / pieces)]);
      }
      this.bonds = [];
      if (atoms.length <= 800) {
        for (let a = 0; a < atoms.length; a++) for (let b = a + 1; b < atoms.length; b++) {
          const d = Math.hypot(...atoms[a].p.map((x, j) => x - atoms[b].p[j]));
          if (d < 0.4 || d > 1.15 * (atoms[a].s.radius + atoms[b].s.radius)) continue;
          // From surface to surface, in two halves.
          const point = (t) => atoms[a].p.map((x, j) => x + (atoms[b].p[j] - x) * t);
          const from = (0.9 * BALL * atoms[a].s.radius) / d, to = 1 - (0.9 * BALL * atoms[b].s.radius) / d, mid = (from + to) / 2;
          this.bonds.push([point(from), point(mid), atoms[a].s], [point(mid), point(to), atoms[b].s]);
        }
      }
    }

    reset() { this.m = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]; this.zoom = 1; this.turn(-0.55, 0); this.turn(0, 0.35); this.draw(); }

    turn(h, v) { // about the screen's vertical and horizontal axes
      const [c, s, C, S] = [Math.cos(h), Math.sin(h), Math.cos(v), Math.sin(v)];
      const r = [[c, 0, s], [S * s, C, -S * c], [-C * s, S, C * c]];
      this.m = r.map((row) => [0, 1, 2].map((j) => row[0] * this.m[0][j] + row[1] * this.m[1][j] + row[2] * this.m[2][j]));
    }

    draw() {
      const canvas = this.canvas, px = devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
      if (!w) return;
      if (canvas.width !== Math.round(w * px)) { canvas.width = Math.round(w * px); canvas.height = Math.round(h * px); }
      const ctx = canvas.getContext("2d");
      ctx.setTransform(px, 0, 0, px, 0, 0);
      ctx.clearRect(0, 0, w, h);
      const scale = (Math.min(w, h) / 2 / this.radius) * 0.94 * this.zoom, far = this.radius * 5;
      const project = (p) => {
        const q = p.map((x, j) => x - this.centre[j]);
        const [x, y, z] = this.m.map((row) => row[0] * q[0] + row[1] * q[1] + row[2] * q[2]);
        const f = (scale * far) / (far - z);
        return { x: w / 2 + x * f, y: h / 2 - y * f, z, f };
      };
      const items = [];
      const at = this.atoms.map((a) => project(a.p));
      this.atoms.forEach((a, k) => items.push({ z: at[k].z, paint: () => this.sphere(ctx, at[k], a.s) }));
      for (const [from, to, s] of this.bonds) {
        const A = project(from), B = project(to);
        items.push({ z: (A.z + B.z) / 2, paint: () => {
          ctx.strokeStyle = shade(s.colour, -0.18); ctx.lineWidth = 0.14 * A.f; ctx.lineCap = "butt";
          ctx.beginPath(); ctx.moveTo(A.x, A.y); ctx.lineTo(B.x, B.y); ctx.stroke();
        } });
      }
      const line = colour("--soft");
      for (const edge of this.edges) {
        const [A, B] = edge.map(project);
        items.push({ z: (A.z + B.z) / 2 - 0.02, paint: () => { ctx.strokeStyle = line; ctx.lineWidth = 1.2; ctx.beginPath(); ctx.moveTo(A.x, A.y); ctx.lineTo(B.x, B.y); ctx.stroke(); } });
      }
      items.sort((a, b) => a.z - b.z).forEach((item) => item.paint());
      this.axes(ctx, h);
      this.box.dataset.ready = "true";
      this.box.dataset.atoms = this.atoms.length;
    }

    sphere(ctx, p, s) {
      const r = BALL * s.radius * p.f;
      const light = ctx.createRadialGradient(p.x - r * 0.35, p.y - r * 0.4, r * 0.08, p.x, p.y, r);
      light.addColorStop(0, shade(s.colour, 0.65)); light.addColorStop(0.45, s.colour); light.addColorStop(1, shade(s.colour, -0.42));
      ctx.fillStyle = light; ctx.beginPath(); ctx.arc(p.x, p.y, r, 0, 7); ctx.fill();
      ctx.strokeStyle = "rgb(0 0 0 / 35%)"; ctx.lineWidth = 0.7; ctx.stroke();
    }

    axes(ctx, h) {
      if (!this.periodic) return;
      ctx.font = "600 12px system-ui, sans-serif"; ctx.textAlign = "center"; ctx.textBaseline = "middle";
      this.data.cell.forEach((v, k) => {
        const n = Math.hypot(...v) || 1, x = this.m[0].reduce((sum, m, j) => sum + (m * v[j]) / n, 0), y = this.m[1].reduce((sum, m, j) => sum + (m * v[j]) / n, 0);
        const c = ["#c0392b", "#2e8b57", "#3a78c9"][k];
        ctx.strokeStyle = c; ctx.lineWidth = 2; ctx.beginPath(); ctx.moveTo(42, h - 42); ctx.lineTo(42 + 26 * x, h - 42 - 26 * y); ctx.stroke();
        ctx.fillStyle = colour("--ink"); ctx.fillText("abc"[k], 42 + 35 * x, h - 42 - 35 * y);
      });
    }

    act(name) {
      const turns = { left: [-0.15, 0], right: [0.15, 0], up: [0, -0.15], down: [0, 0.15] };
      if (turns[name]) this.turn(...turns[name]);
      else if (name === "in" || name === "out") this.zoom = Math.min(8, Math.max(0.3, this.zoom * (name === "in" ? 1.2 : 1 / 1.2)));
      else if (name === "reset") return this.reset();
      else if (name === "cells") {
        this.repeat = this.repeat === 1 ? 2 : 1;
        this.box.querySelector('[data-act="cells"]').setAttribute("aria-pressed", String(this.repeat === 2));
        this.build();
      }
      return this.draw();
    }

    listen() {
      const canvas = this.canvas;
      let last = null;
      canvas.addEventListener("pointerdown", (e) => { last = [e.clientX, e.clientY]; canvas.setPointerCapture(e.pointerId); });
      canvas.addEventListener("pointermove", (e) => {
        if (!last) return;
        this.turn((e.clientX - last[0]) * 0.01, (e.clientY - last[1]) * 0.01);
        last = [e.clientX, e.clientY];
        this.draw();
      });
      for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { last = null; });
      canvas.addEventListener("dblclick", () => this.reset());
      // Only while the viewer has the focus, so that the page can be scrolled past it.
      canvas.addEventListener("wheel", (e) => { if (document.activeElement === canvas) { e.preventDefault(); this.act(e.deltaY < 0 ? "in" : "out"); } }, { passive: false });
      canvas.addEventListener("keydown", (e) => {
        const name = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", "+": "in", "=": "in", "-": "out", 0: "reset" }[e.key];
        if (name && !e.ctrlKey && !e.metaKey) { e.preventDefault(); this.act(name); }
      });
      for (const button of this.box.querySelectorAll("[data-act]")) button.addEventListener("click", () => this.act(button.dataset.act));
    }
  }

  for (const box of document.querySelectorAll("[data-structure]")) {
    fetch(box.dataset.structure)
      .then((answer) => { if (!answer.ok) throw new Error(answer.status); return answer.json(); })
      .then((data) => new Viewer(box, data))
      .catch(() => { const p = document.createElement("p"); p.className = "notice"; p.textContent = box.dataset.failed; box.prepend(p); });
  }
})();
