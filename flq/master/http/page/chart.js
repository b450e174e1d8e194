// A line chart in SVG: curves over rounds, with a pointer that reads values off.

const SVG = "http://www.w3.org/2000/svg";
const EDGE = { left: 46, right: 12, top: 10, bottom: 24 };
const CLASSES = ["first", "second"];
const SMALLEST = 1e-200; // what is nearer to 0 is drawn as 0
const LARGEST = 1e200; // what is further from 0 is not drawn: the distance of two such values may be no number

export class Chart {
  // figure: an empty <figure>. format: number -> text, for the values and the vertical axis.
  constructor(figure, format) {
    this.format = format;
    this.series = [];
    this.words = { round: "", empty: "" };
    this.pointer = null; // round under the pointer
    this.svg = element(figure, "svg", { role: "img" });
    this.caption = figure.appendChild(document.createElement("figcaption"));
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerdown", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.point(null));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  // series: [{name, points: [[round, value], ...]}], at most two, points in order. words: {round, empty}.
  show(title, series, words) {
    this.svg.setAttribute("aria-label", title);
    const isDrawn = ([, value]) => Math.abs(value) <= LARGEST; // false for NaN too
    this.series = series.map(({ name, points }) => ({ name, points: points.filter(isDrawn) }));
    this.words = words;
    this.draw();
  }

  point(event) {
    this.pointer = event ? this.roundAt(event.clientX - this.svg.getBoundingClientRect().left) : null;
    this.draw();
  }

  roundAt(x) {
    const rounds = this.series.flatMap((series) => series.points.map(([round]) => round));
    const distance = (round) => Math.abs(this.x(round) - x);
    return rounds.length ? rounds.reduce((best, round) => (distance(round) < distance(best) ? round : best)) : null;
  }

  x(round) {
    return EDGE.left + ((round - this.low.x) / (this.high.x - this.low.x)) * (this.width - EDGE.left - EDGE.right);
  }

  y(value) {
    return this.height - EDGE.bottom - ((value - this.low.y) / (this.high.y - this.low.y)) * (this.height - EDGE.top - EDGE.bottom);
  }

  draw() {
    this.width = this.svg.clientWidth || 480;
    this.height = this.svg.clientHeight || 220;
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.svg.replaceChildren();
    const points = this.series.flatMap((series) => series.points);
    if (points.length) {
      this.drawAxes(points);
      this.series.forEach((series, index) => this.drawCurve(series.points, CLASSES[index]));
      this.drawPointer();
    } else {
      element(this.svg, "text", { x: this.width / 2, y: this.height / 2, "text-anchor": "middle" }, this.words.empty);
    }
    this.drawCaption();
  }

  drawAxes(points) {
    const vertical = ticks(minimum(points, 1), maximum(points, 1), 4);
    const horizontal = ticks(0, maximum(points, 0), Math.max(2, Math.floor(this.width / 90))).filter(Number.isInteger);
    this.low = { x: 0, y: vertical[0] };
    this.high = { x: Math.max(1, maximum(points, 0)), y: vertical[vertical.length - 1] };
    for (const value of vertical) {
      element(this.svg, "line", { class: "grid", x1: EDGE.left, x2: this.width - EDGE.right, y1: this.y(value), y2: this.y(value) });
      element(this.svg, "text", { x: EDGE.left - 6, y: this.y(value) + 4, "text-anchor": "end" }, this.format(value));
    }
    for (const round of horizontal.filter((value) => value <= this.high.x)) {
      element(this.svg, "text", { x: this.x(round), y: this.height - 6, "text-anchor": "middle" }, String(round));
    }
  }

  drawCurve(points, name) {
    const path = points.map(([round, value]) => `${this.x(round).toFixed(1)},${this.y(value).toFixed(1)}`).join(" ");
    element(this.svg, "polyline", { class: `curve ${name}`, points: path });
    if (points.length === 1) {
      element(this.svg, "circle", { class: `dot ${name}`, cx: this.x(points[0][0]), cy: this.y(points[0][1]), r: 3 });
    }
  }

  drawPointer() {
    if (this.pointer === null) {
      return;
    }
    const x = this.x(this.pointer);
    element(this.svg, "line", { class: "pointer", x1: x, x2: x, y1: EDGE.top, y2: this.height - EDGE.bottom });
    this.series.forEach((series, index) => {
      const found = series.points.find(([round]) => round === this.pointer);
      if (found) {
        element(this.svg, "circle", { class: `dot ${CLASSES[index]}`, cx: x, cy: this.y(found[1]), r: 4 });
      }
    });
  }

  drawCaption() {
    const names = this.series.map((series, index) => {
      const found = series.points.find(([round]) => round === this.pointer);
      const span = document.createElement("span");
      span.className = `${CLASSES[index]}-name`;
      span.textContent = found ? `${series.name} ${this.format(found[1])}` : series.name;
      return span;
    });
    const round = document.createElement("span");
    round.textContent = this.pointer === null ? "" : `${this.words.round} ${this.pointer}`;
    this.caption.replaceChildren(...names, round);
  }
}

function element(parent, name, attributes, text = "") {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) {
    node.setAttribute(key, value);
  }
  node.textContent = text;
  return parent.appendChild(node);
}

function minimum(points, axis) {
  return points.reduce((low, point) => Math.min(low, point[axis]), Infinity);
}

function maximum(points, axis) {
  return points.reduce((high, point) => Math.max(high, point[axis]), -Infinity);
}

// Round numbers a step of 1, 2 or 5 times a power of ten apart, from `low` or below it to `high` or about it: at least two, and at
// most wanted + 2. Numbers that agree in nine digits count as equal: steps between them could be too small to change a float.
function ticks(low, high, wanted) {
  const size = Math.max(Math.abs(low), Math.abs(high));
  const range = size < SMALLEST ? 1 : high - low < 1e-9 * size ? size : high - low;
  const rough = range / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
  const first = Math.floor(low / step);
  const last = Math.max(first + 1, Math.ceil(high / step - 0.001));
  return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}
