// The drawing of the three tiers: their layers, their links, and the text on its way.

import { replace, svg } from "./dom.js";
import { lambda, ms, percent, title } from "./format.js";
import { cells, layout } from "./journey-layout.js";
import { isOutage, outageName } from "./outages.js";

const TIERS = ["mobile", "edge", "cloud"];
const TRAVEL_MS = 700;
const LAYER_MS = 220;
const reduced = matchMedia("(prefers-reduced-motion: reduce)");

export class Journey {
  /** `container` is the element that the drawing fills. */
  constructor(container) {
    this.container = container;
    this.tiers = [];
    this.links = [];
    this.attempts = [];
    this.shown = 0; // attempts that are drawn as ended
    this.run = 0; // number of the animation; a newer one ends those before it
    this.playing = false;
    new ResizeObserver(() => this.draw()).observe(container);
  }

  /** Set what is known of tiers and links, from the gateway's state. */
  setState(tiers, links) {
    this.tiers = tiers;
    this.links = links;
    if (!this.playing) this.draw(); // else each step of the animation draws the new state
  }

  /** Set the attempts of a request; none is drawn until `play` or `show`. */
  setAttempts(attempts) {
    this.run += 1;
    this.playing = false;
    this.attempts = attempts;
    this.shown = 0;
    this.draw();
  }

  /** Draw the first `count` attempts as ended, without movement. */
  show(count) {
    this.run += 1;
    this.playing = false;
    this.shown = count;
    this.draw();
  }

  /** Draw one attempt after the other; `ended` is called with the number of those that ended. */
  async play(ended) {
    const run = (this.run += 1);
    if (reduced.matches) {
      this.show(this.attempts.length);
      ended(this.attempts.length);
      return;
    }
    this.playing = true;
    for (let index = 0; index < this.attempts.length; index += 1) {
      this.shown = index;
      this.draw();
      ended(index);
      await this.animate(this.attempts[index], run);
      if (run !== this.run) return;
    }
    this.playing = false;
    this.shown = this.attempts.length;
    this.draw();
    ended(this.shown);
  }

  draw() {
    const width = Math.floor(this.container.clientWidth);
    if (width < 100 || this.tiers.length === 0) return;
    const places = layout(width);
    const done = this.attempts.slice(0, this.shown);
    const drawing = svg(
      "svg",
      {
        viewBox: `0 0 ${width} ${places.height}`,
        height: places.height,
        role: "img",
        "aria-label": this.description(done),
      },
      ["edge", "cloud"].map((tier) => this.link(tier, places, done)),
      TIERS.map((tier) => this.node(tier, places.boxes[tier], done)),
    );
    replace(this.container, drawing);
    this.drawing = drawing;
  }

  link(tier, places, done) {
    const link = this.links.find(({ hop }) => hop === `mobile-${tier}`);
    const cut = link !== undefined && isOutage(link);
    const used = done.findLast((attempt) => attempt.tier === tier);
    const at = places.labels[tier];
    const name = link === undefined ? "" : cut ? outageName(link) : (link.spec ?? "unknown");
    const network = used && Number.isFinite(used.network_ms) ? ms(used.network_ms) : "";
    const label = [name, network].filter(Boolean).join(" · ") || "HTTP";
    const length = 7 * label.length + 12;
    return svg(
      "g",
      {},
      svg("path", {
        class: `path${used === undefined ? "" : " used"}${cut ? " cut" : ""}`,
        d: places.paths[tier],
        "data-tier": tier,
      }),
      svg("rect", {
        class: "label-back",
        x: at.x - length / 2,
        y: at.y - 10,
        width: length,
        height: 20,
      }),
      svg(
        "text",
        {
          class: `note link-label${cut ? " cut" : ""}`,
          x: at.x,
          y: at.y + 4,
          "text-anchor": "middle",
        },
        label,
      ),
    );
  }

  node(tier, box, done) {
    const facts = this.tiers.find((one) => one.tier === tier);
    const attempt = done.findLast((one) => one.tier === tier);
    const layers = facts?.last_layer ?? attempt?.exit_layer ?? 1;
    const down = isDown(facts);
    const answered = attempt !== undefined && attempt === this.attempts.at(-1) && hasAnswer(attempt);
    const range = layers === 1 ? "layer 1" : `layers 1 to ${layers}`;
    const node = svg(
      "g",
      {
        class: `node ${tier}${down ? " down" : ""}${answered ? " answered" : ""}`,
        "data-tier": tier,
      },
      svg("rect", { class: "box", ...size(box), rx: 8 }),
      svg("text", { class: "title", x: box.x + 14, y: box.y + 26 }, title(tier)),
      svg("text", { class: "note", x: box.x + 14, y: box.y + 44 }, range),
      attempt === undefined || !hasAnswer(attempt)
        ? null
        : svg(
            "text",
            { class: "note", x: box.x + box.width - 14, y: box.y + 44, "text-anchor": "end" },
            `${ms(attempt.compute_ms)} · ${lambda(attempt.cost_lambda)}`,
          ),
      svg(
        "text",
        { class: "note ready", x: box.x + box.width - 14, y: box.y + 26, "text-anchor": "end" },
        readiness(facts),
      ),
      cells(box, layers).map((cell, index) =>
        svg("rect", {
          class: `cell${attempt && ran(attempt, index + 1) ? " done" : ""}`,
          "data-layer": index + 1,
          ...size(cell),
          rx: 2,
        }),
      ),
    );
    if (attempt !== undefined) {
      node.append(...outcome(attempt, box, cells(box, layers)));
    }
    return node;
  }

  async animate(attempt, run) {
    const going = () => run === this.run;
    const path = this.drawing.querySelector(`.path[data-tier="${attempt.tier}"]`);
    if (path !== null) {
      path.classList.add("used");
      await this.move(path, false, going);
    }
    const node = this.drawing.querySelector(`.node[data-tier="${attempt.tier}"]`);
    if (node === null || !going()) return;
    node.classList.add("active");
    for (const cell of node.querySelectorAll(".cell")) {
      if (!ran(attempt, Number(cell.dataset.layer))) continue;
      await wait(LAYER_MS);
      if (!going()) return;
      cell.classList.add("done");
    }
    await wait(LAYER_MS);
    if (path !== null && going() && hasAnswer(attempt)) await this.move(path, true, going);
  }

  /** Move a dot along a link; a redrawing moves it to the new drawing's end. */
  move(path, back, going) {
    const dot = svg("circle", { class: "dot", r: 7 });
    this.drawing.append(dot);
    const length = path.getTotalLength();
    const start = performance.now();
    return new Promise((resolve) => {
      const frame = (now) => {
        const share = Math.min(1, (now - start) / TRAVEL_MS);
        const point = path.getPointAtLength(length * (back ? 1 - share : share));
        dot.setAttribute("cx", point.x);
        dot.setAttribute("cy", point.y);
        if (share < 1 && going()) requestAnimationFrame(frame);
        else {
          dot.remove();
          resolve();
        }
      };
      requestAnimationFrame(frame);
    });
  }

  description(done) {
    if (done.length === 0) return "Mobile, edge and cloud with their layers; no text has been sent.";
    const parts = done.map((attempt) =>
      hasAnswer(attempt)
        ? `${attempt.tier} answered ${attempt.label ?? ""} at exit ${attempt.exit_layer}`
        : `${attempt.tier} gave no answer`,
    );
    return `The text's way: ${parts.join(", then ")}.`;
  }
}

/** Return true if the attempt has an answer. */
export function hasAnswer(attempt) {
  return attempt.state === "answered";
}

/** Return true if requests do not reach the tier now. */
export function isDown(facts) {
  return facts !== undefined && (facts.breaker === "open" || !["ready", "unknown", "not used"].includes(facts.ready));
}

/** Return the state of a tier in words. */
export function readiness(facts) {
  return facts === undefined ? "" : facts.breaker === "open" ? "breaker open" : facts.ready;
}

function ran(attempt, layer) {
  return hasAnswer(attempt) && layer <= attempt.exit_layer && layer > (attempt.resumed_after ?? 0);
}

function outcome(attempt, box, layerCells) {
  const y = box.y + 90;
  if (!hasAnswer(attempt)) {
    const why = attempt.error_code ?? attempt.state;
    return [svg("text", { class: "note failed", x: box.x + 14, y }, String(why).replaceAll("_", " "))];
  }
  const exits = attempt.exits ?? [];
  const shown = layerCells[0].width >= 44 ? exits : exits.slice(-1);
  return shown.map(({ layer, confidence }) => {
    const cell = layerCells[layer - 1];
    if (cell === undefined) return "";
    const x = Math.min(cell.x + cell.width / 2, box.x + box.width - 36);
    return svg("text", { class: "note", x, y, "text-anchor": "middle" }, percent(confidence));
  });
}

function size({ x, y, width, height }) {
  return { x, y, width, height };
}

function wait(duration) {
  return new Promise((resolve) => setTimeout(resolve, duration));
}
