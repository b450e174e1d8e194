// The curves of a run, drawn by uPlot (vendored, MIT). uPlot is given numbers from 0 to 1 alone: axes and legends are computed here, so
// that no value, however large, small or wrong, can make it count for ever.

import { bitsText, number } from "./format.js";

const HEIGHT = 200;
const SMALLEST = 1e-200; // what is nearer to 0 is drawn as 0
const WHOLE_STEPS = [1, 2, 5].flatMap((step) => Array.from({ length: 10 }, (_, power) => step * 10 ** power)).sort((a, b) => a - b);
const LINE = "rgba(128, 128, 128, 0.55)";

export class Chart {
  // figure: an empty <figure>. byBits: the horizontal axis is a number of bits, in powers of ten, else rounds.
  constructor(figure, { byBits = false } = {}) {
    this.figure = figure;
    this.byBits = byBits;
    this.plot = null;
    this.made = "";
    figure.role = "img";
    this.note = figure.appendChild(document.createElement("figcaption"));
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(figure);
  }

  size() {
    return { width: Math.max(200, this.figure.clientWidth), height: HEIGHT };
  }

  // title: for who cannot see it, with the number of values and the last of each series. x: ascending numbers. series: [{label, color, values, fill, dash, stepped}], a value for each x or null.
  // format, tickFormat: number -> text, for values and for the axis. lines: x of thin vertical lines. empty: what stands there when nothing is drawn.
  show({ title, label, x, series, format, tickFormat = format, lines = [], empty }) {
    const drawn = series.map(({ values }) => values.map(number));
    const all = drawn.flat().filter((value) => value !== null);
    const told = series.map(({ label: name, shown = null }, index) => {
      const values = (shown ?? drawn[index]).filter((value) => value !== null);
      return `${name} (${values.length}) ${values.length ? format(values[values.length - 1]) : "–"}`;
    });
    this.figure.ariaLabel = `${title}: ${told.join(", ")}`;
    this.note.textContent = all.length ? "" : empty;
    if (!all.length) {
      this.remove();
      return;
    }
    const [low, high] = [reduce(all, Math.min), reduce(all, Math.max)];
    this.ticks = ticks(series.some(({ fill }) => fill) ? Math.min(0, low) : low, high, 5);
    const [bottom, top] = [this.ticks[0], this.ticks[this.ticks.length - 1]];
    const place = (value) => (value === null ? null : Math.min(1, Math.max(0, (value - bottom) / (top - bottom))));
    Object.assign(this, { series, format, tickFormat, lines, place });
    const data = [this.byBits ? x.map(Math.log10) : x, ...drawn.map((values) => values.map(place))];
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const made = JSON.stringify([label, color("--quiet"), series.map((one) => [one.label, one.fill, one.dash, one.stepped, color(one.color)])]);
    if (this.plot === null || made !== this.made) {
      this.remove();
      this.made = made;
      this.plot = new uPlot(this.options(label, color), data, this.figure);
    } else {
      this.plot.setData(data);
    }
  }

  remove() {
    this.plot?.destroy();
    this.plot = null;
  }

  options(label, color) {
    const grid = { stroke: color("--line"), width: 1 };
    const axis = { stroke: color("--quiet"), grid, ticks: grid, font: "12px system-ui, sans-serif" };
    const across = this.byBits
      ? { splits: (plot) => ticks(plot.scales.x.min, plot.scales.x.max, 4).filter((value) => value >= plot.scales.x.min && value <= plot.scales.x.max),
        values: (_, splits) => splits.map((power) => bitsText(10 ** power)), space: 80 }
      : { incrs: WHOLE_STEPS, values: (_, splits) => splits.map(String), space: 60 };
    return {
      ...this.size(),
      legend: { live: true },
      cursor: { points: { size: 7 }, drag: { x: false, y: false }, ...(this.byBits ? {} : { sync: { key: "rounds" } }) },
      scales: { x: { time: false, range: (_, low, high) => this.across(low, high) }, y: { range: () => [0, 1] } },
      axes: [
        { ...axis, ...across, size: 28 },
        { ...axis, size: 64, incrs: [0.01, 0.1, 0.25], splits: () => this.ticks.map(this.place), values: () => this.ticks.map(this.tickFormat) },
      ],
      series: [
        { label, value: (_, value) => (value === null ? "–" : this.byBits ? bitsText(10 ** value) : String(value)) },
        ...this.series.map((one, index) => ({
          label: one.label, stroke: color(one.color), width: 1.5, dash: one.dash, fill: one.fill ? color(one.color) : undefined, spanGaps: true,
          points: { show: (plot, _, from, to) => to - from < 2 },
          paths: one.stepped ? uPlot.paths.stepped({ align: -1 }) : undefined,
          value: (_, value, __, at) => this.legend(index, at),
        })),
      ],
      hooks: { draw: [(plot) => this.drawLines(plot)] },
    };
  }

  across(low, high) {
    if (!this.byBits) {
      return [Math.min(low ?? 1, 1), Math.max(high ?? 2, (low ?? 1) + 1)];
    }
    return high - low > 1e-9 ? [low, high] : [low - 0.5, low + 0.5];
  }

  legend(index, at) {
    const { values, shown = values } = this.series[index];
    return at === null || at === undefined || number(shown[at]) === null ? "–" : this.format(shown[at]);
  }

  drawLines(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = LINE;
    ctx.setLineDash([3, 3]);
    ctx.beginPath();
    for (const x of new Set(this.lines)) {
      if (x >= plot.scales.x.min && x <= plot.scales.x.max) {
        const at = Math.round(plot.valToPos(x, "x", true)) + 0.5;
        ctx.moveTo(at, bbox.top);
        ctx.lineTo(at, bbox.top + bbox.height);
      }
    }
    ctx.stroke();
    ctx.restore();
  }
}

function reduce(values, choose) {
  return values.reduce((best, value) => choose(best, value));
}

// Round numbers a step of 1, 2 or 5 times a power of ten apart, from `low` or below it to `high` or about it: at least two, and at
// most wanted + 2. Numbers that agree in nine digits count as equal: steps between them could be too small to change a float.
export function ticks(low, high, wanted) {
  const size = Math.max(Math.abs(low), Math.abs(high));
  const range = size < SMALLEST ? 1 : high - low < 1e-9 * size ? size : high - low;
  const rough = range / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
  const first = Math.floor(low / step);
  const last = Math.max(first + 1, Math.ceil(high / step - 0.001));
  return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}
