// Plots of a dataset page: histogram, pairs, hull. uPlot draws axes and zooms; points and bars are drawn here. Every
// plot has a keyboard cursor, a line of text that says what it is on, and a table of the same numbers.
"use strict";
(() => {
  const TABLE_ROWS = 500;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const raise = (text) => String(text).replace(/(?<=[A-Za-z)\]])\d+/g, (d) => [...d].map((c) => "₀₁₂₃₄₅₆₇₈₉"[c]).join(""));
  const number = (x) => {
    const text = Number(x.toPrecision(5)).toString().replace(/e([+-]?)(\d+)/, (_, s, d) =>
      "×10" + (s === "-" ? "⁻" : "") + [...d].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]).join(""));
    return text.replace(/^-/, "−");
  };
  const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, key) => values[key]);
  const make = (tag, text) => { const el = document.createElement(tag); if (text !== undefined) el.textContent = text; return el; };

  class Plot {
    constructor(figure) {
      this.figure = figure;
      this.kind = figure.dataset.plot;
      this.box = figure.querySelector(".canvas");
      this.readout = figure.querySelector(".readout");
      this.form = figure.parentElement.querySelector("[data-controls]");
      this.at = -1;
      this.form.addEventListener("change", () => this.load());
      this.form.addEventListener("submit", (event) => event.preventDefault());
      this.box.addEventListener("keydown", (event) => this.key(event));
      dark.addEventListener("change", () => this.data && this.draw());
      new ResizeObserver(() => this.resize()).observe(this.box);
    }

    async load() {
      const query = new URLSearchParams(new FormData(this.form));
      const turn = (this.turn = (this.turn || 0) + 1);
      this.figure.setAttribute("aria-busy", "true");
      try {
        const answer = await fetch(`${this.figure.dataset.url}?${query}`);
        if (!answer.ok) throw new Error(answer.status);
        const data = await answer.json();
        if (turn !== this.turn) return;
        this.data = data;
        this.prepare();
        this.draw();
        this.table();
        this.say(this.summary());
      } catch (error) {
        if (turn === this.turn) this.say(this.figure.dataset.failed);
      }
      this.figure.removeAttribute("aria-busy");
      this.figure.dataset.ready = this.turn;
    }

    say(text) { this.readout.textContent = text; }

    // Points in the order of x, so that the keys go from left to right; lines of the hull first in the data.
    prepare() {
      const d = this.data;
      if (this.kind === "histogram") {
        this.x = d.counts.map((_, k) => (d.edges[k] + d.edges[k + 1]) / 2);
        this.y = d.counts;
        this.order = this.x.map((_, k) => k);
      } else {
        this.x = d.x; this.y = d.y;
        this.order = d.x.map((_, k) => k).sort((a, b) => d.x[a] - d.x[b] || d.y[a] - d.y[b]);
      }
      // In a triangle there is no left to right: from the most stable on.
      this.ternary = !!d.corners;
      if (this.ternary) this.order.sort((a, b) => d.above[a] - d.above[b] || (d.formula[a] < d.formula[b] ? -1 : 1));
      this.at = -1;
    }

    summary() {
      const d = this.data, texts = this.figure.dataset;
      if (!d.count) return texts.empty;
      let text = fill(texts.count, { count: d.count.toLocaleString(), on_hull: d.on_hull });
      if (this.kind === "histogram") text += " · " + fill(texts.stats, { median: number(d.median), q1: number(d.q1), q3: number(d.q3) });
      else if (d.x.length < d.count) text += " · " + fill(texts.sampled, { shown: d.x.length.toLocaleString() });
      return text;
    }

    labels() {
      const names = this.data.labels;
      if (this.kind === "histogram") return [names[0], this.figure.dataset.colEntries];
      if (this.ternary) return [names[1], this.figure.dataset.above + (names[1].match(/ \([^()]*\)$/) || [""])[0]];
      if (this.kind === "hull") return [fill(this.figure.dataset.fraction, { name: names[0].split("-").sort()[1] || "" }), names[1]];
      return names;
    }

    draw() {
      if (this.plot) { this.plot.destroy(); this.plot = null; }
      this.box.replaceChildren();
      if (!this.data.count) return;
      const ink = colour("--soft"), grid = colour("--grid");
      const font = "12px " + getComputedStyle(document.body).fontFamily;
      const padded = (low) => (u, min, max) => {
        if (min === null || min === undefined) return [0, 1];
        const all = low.all;
        if (Math.abs(min - all[0]) > 1e-12 || Math.abs(max - all[1]) > 1e-12) return [min, max];
        const pad = (max - min || Math.abs(max) || 1) * 0.05;
        return [low.floor === undefined ? min - pad : low.floor, max + pad];
      };
      const d = this.data, bars = this.kind === "histogram";
      const xs = bars ? d.edges : this.x, ys = bars ? [0, ...d.counts] : this.y;
      const span = (values) => values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
      const labels = this.labels();
      const axis = (label, size) => ({ stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 }, font, labelFont: font, label, labelSize: 22, size, values: (u, ticks) => ticks.map((t) => number(t)) });
      if (this.ternary) { this.triangle(font); this.listen(); return; }
      const facets = [{ scale: "x", auto: true }, { scale: "y", auto: true }];
      const series = [null], data = [null];
      if (this.kind === "hull") {
        const line = [...Array(d.on_hull).keys()].sort((a, b) => d.x[a] - d.x[b]);
        series.push({ facets, stroke: colour("--plot-2"), paths: (u, k) => this.path(u, k, "line") });
        data.push([line.map((k) => d.x[k]), line.map((k) => d.y[k])]);
      }
      series.push({ facets, stroke: colour("--plot"), fill: colour("--plot"), paths: (u, k) => this.path(u, k, bars ? "bars" : "points") });
      // Bars reach from edge to edge: both edges count for the scale.
      data.push(bars ? [xs, ys] : [xs, ys]);
      this.plot = new uPlot({
        mode: 2, width: this.width(), height: 320, legend: { show: false }, series,
        scales: {
          x: { time: false, auto: true, range: padded({ all: span(xs), floor: bars ? d.edges[0] : undefined }) },
          y: { auto: true, range: padded({ all: span(ys), floor: bars ? 0 : undefined }) },
        },
        axes: [axis(labels[0], 44), axis(labels[1], 62)],
        cursor: { points: { show: false }, dataIdx: () => null, drag: { x: true, y: !bars, uni: 20 }, x: false, y: false },
      }, data, this.box);
      this.listen();
    }

    // Compositions of three elements: equal sides, so the width of the box sets what the scale of x spans.
    triangle(font) {
      const d = this.data, height = 340, low = -0.09, high = 0.97, half = ((high - low) / 2) * (this.width() / height);
      const facets = [{ scale: "x", auto: false }, { scale: "y", auto: false }];
      const none = { show: false };
      this.plot = new uPlot({
        mode: 2, width: this.width(), height, padding: [0, 0, 0, 0], legend: none,
        series: [null, { facets, stroke: colour("--soft"), paths: (u, k) => this.path(u, k, "edges") },
          { facets, stroke: colour("--plot"), paths: (u, k) => this.path(u, k, "phases") }],
        scales: { x: { time: false, auto: false, range: [0.5 - half, 0.5 + half] }, y: { auto: false, range: [low, high] } },
        axes: [none, none], cursor: { points: none, dataIdx: () => null, drag: { x: false, y: false }, x: false, y: false },
      }, [null, [[0], [0]], [d.x, d.y]], this.box);
      const over = this.plot.over, places = [[0, 0, "0.4em 0 0 -1.6em"], [1, 0, "0.4em 0 0 0.4em"], [0.5, Math.sqrt(0.75), "-1.5em 0 0 -0.5em"]];
      d.corners.forEach((name, k) => {
        const label = make("span", name), [x, y, margin] = places[k];
        Object.assign(label.style, { position: "absolute", font, color: colour("--ink"), pointerEvents: "none", margin, left: `${50 + (50 * (x - 0.5)) / half}%`, top: `${(100 * (high - y)) / (high - low)}%` });
        over.append(label);
      });
    }

    listen() {
      this.mark = make("div");
      Object.assign(this.mark.style, { position: "absolute", pointerEvents: "none", display: "none", border: `2px solid ${colour("--ink")}` });
      this.plot.over.append(this.mark);
      this.plot.over.addEventListener("mousemove", (event) => this.hover(event));
      this.plot.over.addEventListener("mouseleave", () => this.clear());
      this.plot.over.addEventListener("click", (event) => { if (this.at >= 0 && this.near(event.offsetX, event.offsetY) === this.at) this.open(); });
    }

    path(u, index, what) {
      uPlot.orient(u, index, (series, dx, dy, sx, sy, toX, toY, xOff, yOff, xDim, yDim) => {
        const ctx = u.ctx, d = u.data[index], px = devicePixelRatio;
        const X = (v) => toX(v, sx, xDim, xOff), Y = (v) => toY(v, sy, yDim, yOff);
        ctx.save();
        ctx.beginPath(); ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height); ctx.clip();
        ctx.fillStyle = ctx.strokeStyle = series.stroke(u, index);
        if (what === "line") {
          ctx.lineWidth = 2 * px; ctx.beginPath();
          d[0].forEach((v, k) => (k ? ctx.lineTo(X(v), Y(d[1][k])) : ctx.moveTo(X(v), Y(d[1][k]))));
          ctx.stroke();
          for (let k = 0; k < d[0].length; k++) { ctx.beginPath(); ctx.arc(X(d[0][k]), Y(d[1][k]), 6 * px, 0, 7); ctx.stroke(); }
        } else if (what === "edges") {
          ctx.lineWidth = 1.2 * px;
          for (const [a, b, c, e] of this.data.lines) { ctx.beginPath(); ctx.moveTo(X(a), Y(b)); ctx.lineTo(X(c), Y(e)); ctx.stroke(); }
        } else if (what === "phases") {
          // The farther above the hull, the paler; what is on it has a ring.
          const { above, on_hull } = this.data, most = Math.max(...above, 1e-9), ring = colour("--plot-2");
          for (let k = d[0].length - 1; k >= 0; k--) {
            ctx.globalAlpha = 1 - 0.8 * Math.sqrt(above[k] / most);
            ctx.beginPath(); ctx.arc(X(d[0][k]), Y(d[1][k]), 4 * px, 0, 7); ctx.fill();
            if (k < on_hull) { ctx.strokeStyle = ring; ctx.lineWidth = 2 * px; ctx.beginPath(); ctx.arc(X(d[0][k]), Y(d[1][k]), 6 * px, 0, 7); ctx.stroke(); }
          }
        } else if (what === "bars") {
          const { edges, counts } = this.data;
          counts.forEach((n, k) => {
            const a = X(edges[k]) + px / 2, b = X(edges[k + 1]) - px / 2, top = Y(n);
            ctx.fillRect(a, top, b - a, Y(0) - top);
          });
        } else {
          const size = (d[0].length > 1000 ? 2.2 : 3.4) * px;
          ctx.globalAlpha = d[0].length > 300 ? 0.55 : 0.85;
          for (let k = 0; k < d[0].length; k++) { ctx.beginPath(); ctx.arc(X(d[0][k]), Y(d[1][k]), size, 0, 7); ctx.fill(); }
        }
        ctx.restore();
      });
      return null;
    }

    place(k) { return [this.plot.valToPos(this.x[k], "x"), this.plot.valToPos(this.y[k], "y")]; }

    near(x, y) {
      if (this.kind === "histogram") {
        const v = this.plot.posToVal(x, "x"), k = this.data.edges.findIndex((e, j) => e <= v && v < this.data.edges[j + 1]);
        return k;
      }
      let best = -1, least = 14 * 14;
      for (let k = 0; k < this.x.length; k++) {
        const [px, py] = this.place(k), d = (px - x) ** 2 + (py - y) ** 2;
        if (d < least) { least = d; best = k; }
      }
      return best;
    }

    hover(event) {
      const k = this.near(event.offsetX, event.offsetY);
      if (k < 0) this.clear(); else if (k !== this.at) this.show(k);
      this.plot.over.style.cursor = k >= 0 && this.kind !== "histogram" ? "pointer" : "crosshair";
    }

    clear() { this.at = -1; if (this.mark) this.mark.style.display = "none"; this.say(this.summary()); }

    show(k) {
      this.at = k;
      const [x, y] = this.place(k), style = this.mark.style, d = this.data, labels = this.labels();
      style.display = "block";
      if (this.kind === "histogram") {
        const a = this.plot.valToPos(d.edges[k], "x"), b = this.plot.valToPos(d.edges[k + 1], "x"), zero = this.plot.valToPos(0, "y");
        Object.assign(style, { left: `${a}px`, top: `${y}px`, width: `${b - a}px`, height: `${Math.max(zero - y, 2)}px`, borderRadius: "0" });
        this.say(`${labels[0]}: ${number(d.edges[k])} … ${number(d.edges[k + 1])}; ${this.figure.dataset.colEntries}: ${d.counts[k].toLocaleString()}`);
      } else {
        Object.assign(style, { left: `${x - 8}px`, top: `${y - 8}px`, width: "16px", height: "16px", borderRadius: "50%" });
        const [first, second] = this.values(k);
        this.say(`${raise(d.formula[k])} · ${labels[0]}: ${number(first)} · ${labels[1]}: ${number(second)}`);
      }
    }

    values(k) { return this.ternary ? [this.data.energy[k], this.data.above[k]] : [this.data.x[k], this.data.y[k]]; }

    open() { if (this.kind !== "histogram" && this.at >= 0) location.assign(this.figure.dataset.entry + encodeURIComponent(this.data.id[this.at])); }

    key(event) {
      if (!this.plot) return;
      const last = this.order.length - 1, now = this.order.indexOf(this.at);
      const to = { ArrowRight: Math.min(now + 1, last), ArrowLeft: Math.max(now - 1, 0), Home: 0, End: last }[event.key];
      if (to !== undefined) this.show(this.order[to]);
      else if (event.key === "Enter") this.open();
      else if (event.key === "Escape") { this.clear(); this.plot.setData(this.plot.data, true); }
      else return;
      event.preventDefault();
    }

    table() {
      const d = this.data, texts = this.figure.dataset, labels = this.labels();
      const table = this.figure.querySelector("table"), head = make("tr"), body = table.tBodies[0];
      const bars = this.kind === "histogram";
      const names = bars ? [`${labels[0]}: ${texts.colFrom}`, texts.colTo, texts.colEntries] : [texts.colFormula, texts.colEntry, ...labels];
      names.forEach((name, k) => { const th = make("th", name); th.scope = "col"; if (bars || k > 1) th.className = "num"; head.append(th); });
      table.tHead.replaceChildren(head);
      body.replaceChildren(...this.order.slice(0, TABLE_ROWS).map((k) => {
        const row = make("tr");
        const cells = bars ? [number(d.edges[k]), number(d.edges[k + 1]), d.counts[k].toLocaleString()] : [raise(d.formula[k]), d.id[k], ...this.values(k).map(number)];
        cells.forEach((text, j) => {
          const cell = make(j ? "td" : "th", j === 1 && !bars ? undefined : text);
          if (!j) cell.scope = "row";
          if (bars || j > 1) cell.className = "num";
          if (j === 1 && !bars) { const a = make("a", text); a.href = texts.entry + encodeURIComponent(text); cell.append(a); }
          row.append(cell);
        });
        return row;
      }));
      const note = this.figure.querySelector(".many");
      if (note) note.remove();
      if (this.order.length > TABLE_ROWS) { const p = make("p", fill(texts.many, { n: TABLE_ROWS })); p.className = "hint many"; table.after(p); }
    }

    width() { return Math.max(this.box.clientWidth, 240); }
    resize() { if (this.plot && this.plot.width !== this.width()) { if (this.ternary) { this.draw(); return; } this.plot.setSize({ width: this.width(), height: 320 }); if (this.mark) this.mark.style.display = "none"; } }
  }

  // A plot is loaded when it comes near the screen.
  const plots = new Map([...document.querySelectorAll("figure.plot")].map((figure) => [figure, new Plot(figure)]));
  const watch = new IntersectionObserver((seen) => {
    for (const item of seen) if (item.isIntersecting) { watch.unobserve(item.target); plots.get(item.target).load(); }
  }, { rootMargin: "300px" });
  for (const figure of plots.keys()) watch.observe(figure);
})();
