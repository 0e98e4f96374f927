// Why a request went to its tier: the figures of `dimee explain` as bars, with definitions.

import { bar } from "./bars.js";
import { el } from "./dom.js";
import { lambda, ms, number, percent, points, title, usd } from "./format.js";

const share = { low: 0, high: 1 };
const FIGURES = [
  {
    key: "distance",
    name: "Distance",
    format: (value) => number(value, 4),
    definition:
      "Distance of the text's mean word embedding to the centroid of the tier's texts, without unit.",
    decides: "The lowest is chosen; costs decide nothing.",
  },
  {
    key: "expected_value",
    name: "Expected value",
    format: points,
    definition: "P(right) against the cloud less the cost, in percentage points.",
    decides: "The highest is chosen, of the tiers that have one.",
  },
  {
    key: "right",
    name: "P(right)",
    format: percent,
    scale: share,
    definition: "Probability of a right answer, predicted before any layer ran.",
  },
  {
    key: "confident",
    name: "P(≥ α)",
    format: percent,
    scale: share,
    definition: "Predicted probability that the answer's confidence reaches the threshold α.",
  },
  {
    key: "cost_lambda",
    name: "Expected cost",
    format: lambda,
    definition: "Expected cost in λ, escalations included.",
  },
  {
    key: "delay_ms",
    name: "Delay",
    format: ms,
    definition: "Delay of the tier's answer, as the mobile had measured it.",
  },
  {
    key: "waiting_lambda",
    name: "Price of waiting",
    format: lambda,
    definition: "Expected price of waiting for the answer, in λ.",
  },
  {
    key: "max_lambda",
    name: "Highest cost",
    format: lambda,
    definition: "Cost of an answer at the tier's last layer, in λ.",
  },
  {
    key: "recorded_lambda",
    name: "Recorded cost",
    format: lambda,
    definition: "Recorded cost of the tier's answer, in λ.",
  },
  {
    key: "recorded_usd",
    name: "Recorded cost in USD",
    format: usd,
    definition: "Recorded cost of the tier's answer by the price book, in US dollars.",
  },
];

/** Return the elements of an explanation. */
export function explanationView(explanation) {
  const chosen = explanation.attempts[0]?.tier;
  const figures = FIGURES.filter(({ key }) =>
    explanation.tiers.some((tier) => Number.isFinite(tier[key])),
  ).sort((one, other) => decides(explanation, other) - decides(explanation, one));
  return [
    el("h3", {}, `Why the ${chosen ?? "first tier"} was chosen`),
    el("p", {}, `${capital(explanation.why)}.`),
    weights(explanation),
    figures.length === 0
      ? el("p", { class: "muted" }, "No figure decides: this policy compares none.")
      : el(
          "div",
          { class: "figures" },
          figures.map((figure) => figureView(figure, explanation, chosen)),
        ),
    ...explanation.notes.map((note) => el("p", { class: "muted small" }, `Note: ${note}.`)),
  ];
}

function weights(explanation) {
  const parts = [];
  if (explanation.cost_weight) {
    parts.push(
      `One λ counts as ${number(100 * explanation.cost_weight, 4)} points of the probability of a ` +
        "right answer (Λ).",
    );
  }
  if (explanation.latency_price_lambda) {
    parts.push(
      `Waiting a second costs ${number(1000 * explanation.latency_price_lambda, 1)} λ.`,
    );
  }
  return parts.length === 0 ? null : el("p", { class: "muted small" }, parts.join(" "));
}

function figureView(figure, explanation, chosen) {
  const values = explanation.tiers.map((tier) => tier[figure.key]).filter(Number.isFinite);
  const scale = figure.scale ?? { low: Math.min(0, ...values), high: Math.max(0, ...values) };
  const deciding = decides(explanation, figure);
  return el(
    "div",
    { class: `figure${deciding ? " decides" : ""}` },
    el("h4", { class: "step-title" }, figure.name, deciding ? " – decides" : ""),
    el(
      "div",
      { class: "bars" },
      explanation.tiers.flatMap((tier) => {
        const isChosen = tier.tier === chosen;
        return [
          el(
            "span",
            { class: isChosen ? "chosen" : "" },
            title(tier.tier),
            isChosen ? el("span", { class: "visually-hidden" }, " (chosen)") : null,
            isChosen ? el("span", { "aria-hidden": "true" }, " ◄") : null,
          ),
          bar(tier[figure.key], { ...scale, fill: tier.tier }),
          el("span", { class: `value${isChosen ? " chosen" : ""}` }, figure.format(tier[figure.key])),
        ];
      }),
    ),
    el("p", { class: "muted small" }, figure.definition, deciding ? ` ${figure.decides}` : ""),
  );
}

function decides(explanation, figure) {
  return Number(explanation.decided_by === figure.key);
}

function capital(sentence) {
  return sentence ? sentence[0].toUpperCase() + sentence.slice(1) : "";
}
