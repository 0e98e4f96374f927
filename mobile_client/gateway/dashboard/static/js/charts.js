// The live charts, drawn by uPlot (vendor/uplot) from the figures of the stream.

import { on } from "./bus.js";
import { term } from "./definitions.js";
import { byId, el, replace } from "./dom.js";
import { lambda, ms, number, percent } from "./format.js";
import { perRequest } from "./live.js";
import { colour } from "./theme.js";

const KEPT_S = 300;
const LEAST_S = 60;
const HEIGHT = 190;
const PERCENTILES = ["p50", "p95", "p99"];

let percentile = "p95";
const times = [];
const history = [];

const CHARTS = [
  {
    id: "rate",
    heading: "Requests a second",
    unit: (value) => `${number(value, 1)}/s`,
    series: [["requests", "accent", (stats) => stats.requests_per_s]],
  },
  {
    id: "shares",
    heading: "Share of answers by tier",
    unit: percent,
    stacked: true,
    range: [0, 1],
    axis: (value) => `${Math.round(100 * value)} %`,
    series: ["mobile", "edge", "cloud"].map((tier) => [tier, tier, (stats) => (stats.answered > 0 ? stats.shares[tier] : null)]),
  },
  {
    id: "latency",
    heading: "Latency by hop, ms",
    unit: ms,
    series: [
      ...["queue", "compute", "network"].map((hop) => [
        hop,
        hop,
        (stats) => stats.hops_ms?.[hop]?.[percentile],
      ]),
      ["total", "text", (stats) => stats.total_ms?.[percentile]],
    ],
  },
  {
    id: "cost",
    heading: "Cost of a request, λ",
    unit: lambda,
    series: [
      ["paid", "accent", (stats) => perRequest(stats, stats.cost_lambda)],
      ["all-cloud", "border-strong", (stats) => perRequest(stats, stats.all_cloud_lambda)],
    ],
  },
];

/** Build the charts; each new set of figures is added at the right. */
export function start() {
  replace(byId("charts"), CHARTS.map(build));
  on("stats", (stats) => {
    times.push(stats.at);
    history.push(stats);
    while (times.length > 0 && times[0] < stats.at - KEPT_S) {
      times.shift();
      history.shift();
    }
    CHARTS.forEach(show);
  });
  on("theme", () => CHARTS.forEach(rebuild));
}

function build(chart) {
  chart.box = el("div", { class: "chart", role: "img" });
  chart.legend = el("ul", { class: "legend" });
  new ResizeObserver(() => rebuild(chart)).observe(chart.box);
  return el(
    "figure",
    { class: "card", id: `chart-${chart.id}` },
    el(
      "figcaption",
      {},
      el(
        "div",
        { class: "chart-head" },
        el("h3", {}, chart.heading),
        chart.id === "latency" ? percentileChoice(chart) : null,
        chart.id === "cost" ? term("all-cloud", "What is all-cloud?") : null,
      ),
      chart.legend,
    ),
    chart.box,
  );
}

function percentileChoice(chart) {
  return el(
    "fieldset",
    { class: "choices" },
    el("legend", { class: "visually-hidden" }, "Percentile"),
    PERCENTILES.map((name) => {
      const input = el("input", { type: "radio", name: "percentile", value: name });
      input.checked = name === percentile;
      input.addEventListener("change", () => {
        percentile = name;
        show(chart);
      });
      return el("label", {}, input, name);
    }),
  );
}

function rebuild(chart) {
  chart.plot?.destroy();
  chart.plot = null;
  show(chart);
}

function show(chart) {
  if (history.length === 0) {
    replace(chart.legend, el("li", { class: "muted" }, "No figures yet"));
    chart.box.setAttribute("aria-label", `${chart.heading}: no figures yet`);
    return;
  }
  const rows = chart.series.map(([, , read]) => history.map((stats) => read(stats) ?? null));
  const data = [times, ...(chart.stacked ? stacked(rows) : rows)];
  if (chart.plot) chart.plot.setData(data);
  else if (chart.box.clientWidth > 0) chart.plot = new uPlot(plotOptions(chart), data, chart.box);
  showLegend(chart, history.length - 1);
}

function showLegend(chart, index) {
  const stats = history[index];
  const parts = chart.series.map(([name, fill, read]) => [name, fill, chart.unit(read(stats))]);
  replace(
    chart.legend,
    parts.map(([name, fill, text]) =>
      el("li", {}, swatch(fill), `${name} `, el("b", {}, text)),
    ),
  );
  chart.box.setAttribute(
    "aria-label",
    `${chart.heading}: ${parts.map(([name, , text]) => `${name} ${text}`).join(", ")}`,
  );
}

function swatch(fill) {
  const mark = el("span", { class: "swatch" });
  mark.style.background = `var(--${fill})`;
  return mark;
}

/** Return the sums of each series and those before it; an instant without figures stays empty. */
function stacked(rows) {
  return rows.map((row, index) =>
    row.map((value, at) => {
      if (value === null) return null;
      let sum = 0;
      for (let below = 0; below <= index; below += 1) sum += rows[below][at] ?? 0;
      return sum;
    }),
  );
}

function plotOptions(chart) {
  const grid = { stroke: colour("border"), width: 1 };
  const axis = { stroke: colour("text-muted"), grid, ticks: { ...grid, size: 4 }, font: "12px system-ui, sans-serif" };
  return {
    width: chart.box.clientWidth,
    height: HEIGHT,
    padding: [8, 20, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false } },
    scales: {
      x: { range: (_plot, low, high) => [Math.min(low, high - LEAST_S), high] },
      y: { range: (_plot, _low, high) => chart.range ?? [0, high > 0 ? 1.1 * high : 1] },
    },
    axes: [
      { ...axis, size: 32, space: 90, values: (_plot, ticks) => ticks.map(clock) },
      { ...axis, size: 52, values: (_plot, ticks) => ticks.map(chart.axis ?? compact) },
    ],
    series: [
      {},
      ...chart.series.map(([label, name]) => ({
        label,
        stroke: colour(name),
        width: 1.75,
        points: { show: () => history.length < 3 },
        ...(chart.stacked ? { fill: colour(name) } : {}),
      })),
    ],
    // each band lies between a series and the one below it
    bands: chart.stacked
      ? chart.series.slice(1).map((_, index) => ({ series: [index + 2, index + 1] }))
      : [],
    hooks: {
      setCursor: [
        ({ cursor }) => showLegend(chart, Number.isInteger(cursor.idx) ? cursor.idx : history.length - 1),
      ],
    },
  };
}

function compact(value) {
  return new Intl.NumberFormat("en", { maximumFractionDigits: 2, notation: "compact" }).format(value);
}

function clock(at) {
  return new Date(1000 * at).toLocaleTimeString("en-GB", { timeStyle: "medium" });
}
