"""``docs/results/resume.md`` from its JSON."""

from __future__ import annotations

from typing import Any

from lab.reports.text import code, number, span, table
from shared.inference.codec import CODECS

PRIVACY = """## No privacy

A hidden state is not a disguise: what was read can be read back out of it. From a single vector a
sentence, an attacker got back 50 to 70 % of the words (Song and Raghunathan, *Information Leakage
in Embedding Models*, CCS 2020), and later 92 % of texts of 32 tokens exactly (Morris et al., *Text
Embeddings Reveal (Almost) As Much As Text*, EMNLP 2023). Here a whole vector for each token
crosses, after a few layers only, which tells more. Treat a state as the text itself: the same
encryption on the way, the same retention, the same consent. Resuming spares compute, nothing
else."""


def page(facts: dict[str, Any]) -> str:
    """The page as markdown."""
    manifest = f"`{facts['encoder']}`, {facts['layers']} layers of {facts['hidden_size']}"
    lines = [
        "# Going on from a hidden state",
        "",
        "What it costs when the next tier goes on after layer i instead of starting from the "
        "text, on GLUE's SST-2 validation file "
        f"({facts['examples']:,} sentences) with the shipped bundle ({manifest}).",
        "Every number comes from `extra/resume.json`; this command writes both:",
        "",
        *code(["python -m lab.studies.resume --data ../shared/glue"]),
        "",
        *_verdict(facts),
        "",
        "## Accuracy by codec",
        "",
        "Percent right at the last exit after going on from layer i; fp32 is the same process, "
        "without a wire. *Changed*: answers that differ from fp32. *Moved*: the most that a "
        "probability of any later exit differs, over all sentences; *at l*: of the last exit. The "
        "layers round their own activations to 8 bits, where a small change may tip a rounding "
        "and grow with every layer that follows.",
        "",
        *_accuracy(facts),
        "",
        "## Bytes",
        "",
        *_bytes(facts),
        "",
        "## Break-even",
        "",
        *_timing(facts),
        "",
        f"A state is sent if `8·bytes/bandwidth + encode + decode < i · t_layer`. Here i = "
        f"{facts['mobile_layers']}, the mobile's m, and the uplinks are assumptions: everyday "
        "rates of their kind. *t_layer needed* is how long a layer must take at the next tier "
        "for the state to win there; with a slower tier or a larger encoder, compare with that "
        "column.",
        "",
        *_links(facts),
        "",
        "The uplink from which a state pays on this machine, in Mbit/s:",
        "",
        *_uplinks(facts),
        "",
        PRIVACY,
    ]
    return "\n".join(lines) + "\n"


def _verdict(facts: dict[str, Any]) -> list[str]:
    median = facts["median_tokens"]
    rows = [
        row for row in facts["break_even"] if row["codec"] == "int8" and row["tokens"] == median
    ]
    wins = [row["link"] for row in rows if row["resume"]]
    int8 = facts["accuracy"][facts["mobile_layers"] - 1]["int8"]
    times = int8["bytes_per_text"] / facts["text_bytes"]
    moves = [
        line[codec]["accuracy"] - line["fp32"]["accuracy"]
        for line in facts["accuracy"]
        for codec in CODECS
    ]
    where = f"on {' and '.join(wins)} only" if wins else "on none of the links below"
    return [
        f"At the median length ({median} tokens) an int8 state after layer "
        f"{facts['mobile_layers']} is faster than the text {where}: it is {number(times, 0)} "
        f"times the sentence's bytes and spares {number(rows[0]['spared_ms'])} ms. Accuracy at "
        f"the last exit changes by {span(moves)} points over all layers and codecs.",
        "So `resume: auto` sends the text unless it is told an uplink, and the place of this is "
        "a fast link to a slow tier, long texts, or a larger encoder.",
    ]


def _accuracy(facts: dict[str, Any]) -> list[str]:
    header = ["after layer", "fp32"]
    for codec in CODECS:
        header += [codec, "changed", "moved", "at l"]
    rows = []
    for line in facts["accuracy"]:
        row = [str(line["layer"]), number(line["fp32"]["accuracy"])]
        for codec in CODECS:
            cell = line[codec]
            row += [number(cell["accuracy"]), str(cell["changed"]), f"{cell['moved']:.4f}"]
            row.append(f"{cell['moved_last']:.4f}")
        rows.append(row)
    return table(header, rows)


def _bytes(facts: dict[str, Any]) -> list[str]:
    rows = [["the text itself", number(facts["text_bytes"] / facts["tokens"], 1),
             f"{facts['text_bytes']:,}"]]  # fmt: skip
    for codec in CODECS:
        cell = facts["accuracy"][facts["mobile_layers"] - 1][codec]
        rows.append([codec, number(cell["bytes_per_token"], 1), f"{cell['bytes_per_text']:,}"])
    raw = 4 * facts["hidden_size"]
    rows.append(["fp32, not sent", number(raw, 1), f"{round(raw * facts['tokens']):,}"])
    return [
        *table(["what crosses", "bytes a token", "bytes a sentence, mean"], rows),
        "",
        f"A sentence has {number(facts['tokens'], 1)} tokens in the mean. The header of a state, "
        "about 400 bytes, is in the figures; HTTP's own lines are not.",
    ]


def _timing(facts: dict[str, Any]) -> list[str]:
    header = ["tokens", "one layer"]
    for codec in CODECS:
        header += [f"encode {codec}", f"decode {codec}"]
    rows = []
    for line in facts["timing"]:
        row = [str(line["tokens"]), number(line["layer_ms"], 3)]
        for codec in CODECS:
            row += [number(line[codec]["encode_ms"], 3), number(line[codec]["decode_ms"], 3)]
        rows.append(row)
    machine = facts["machine"]
    return [
        f"Milliseconds on {machine['cores']} shared cores with {machine['threads']} thread, the "
        f"fastest of {machine['runs']} runs (the machine was busy: load {machine['load']}).",
        "",
        *table(header, rows),
    ]


def _links(facts: dict[str, Any]) -> list[str]:
    header = ["link", "uplink, Mbit/s", "tokens", "codec", "sending", "encode + decode",
              "spared", "t_layer needed", "send"]  # fmt: skip
    shown = (facts["median_tokens"], facts["timing"][-1]["tokens"])
    rows = [
        [
            row["link"],
            f"{row['uplink_mbps']:g}",
            str(row["tokens"]),
            row["codec"],
            number(row["sending_ms"]),
            number(row["codec_ms"]),
            number(row["spared_ms"]),
            number(row["layer_ms_needed"]),
            "state" if row["resume"] else "text",
        ]
        for row in facts["break_even"]
        if row["tokens"] in shown
    ]
    return table(header, rows)


def _uplinks(facts: dict[str, Any]) -> list[str]:
    layers = range(1, facts["layers"])
    header = ["tokens", "codec", *(f"i = {layer}" for layer in layers)]
    rows = []
    for tokens in dict.fromkeys(row["tokens"] for row in facts["uplink_needed"]):
        for codec in CODECS:
            found = [row[codec] for row in facts["uplink_needed"] if row["tokens"] == tokens]
            cells = ["none" if value is None else number(value, 1) for value in found]
            rows.append([str(tokens), codec, *cells])
    return table(header, rows, left=2)
