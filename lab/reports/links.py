"""``docs/results/links.md`` from its JSON: policies over emulated links."""

from __future__ import annotations

from typing import Any

from lab.reports.text import change, code, number, table
from shared.link_profiles import LINKS


def _off(facts: dict[str, Any]) -> list[str]:
    """A paragraph about links that were not as their profile says, where there are any."""
    off = [
        f"{LINKS[link['link']].title} ({one['hop']})"
        for link in facts["links"]
        for one in link["measured"]
        if not one["verified"]
    ]
    return [f"Off their profile by more than 10 %: {', '.join(off)}.", ""] if off else []


def page(facts: dict[str, Any], source: str = "extra/links.json") -> str:
    """The results as Markdown."""
    rate = facts["latency_price_lambda"]
    machine = facts["machine"]
    lines = [
        "# Policies over emulated links",
        "",
        f"{facts['limit']:,} texts of {facts['data']} ({facts['task']}, validation, shuffled with "
        f"seed {facts['seed']}), sent one after the other through a real testbed whose links from "
        "the mobile to edge and cloud have the profile of the row. Latency is what the caller "
        f"waits. The policy `cascade-routing` weighs waiting at {rate:g} λ a millisecond "
        "([why](../decisions/0010-price-of-waiting.md)); the cost in λ holds no waiting.",
        f"Every number comes from `{source}`; this command writes it:",
        "",
        *code([facts["command"]]),
        "",
        *table(
            ["link", "policy", "mobile / edge / cloud (%)", "accuracy (%)", "cost (λ)",
             "against all-cloud", "p50 (ms)", "p95 (ms)"],
            [
                [
                    LINKS[link["link"]].title,
                    f"`{row['policy']}`",
                    " / ".join(number(share, 0) for share in row["shares"].values()),
                    number(row["accuracy"], 2),
                    number(row["cost_lambda"], 2),
                    "–" if row["cost_change"] is None else change(row["cost_change"], 1) + " %",
                    number(row["p50_ms"], 1),
                    number(row["p95_ms"], 1),
                ]
                for link in facts["links"]
                for row in link["rows"]
            ],
            left=2,
        ),
        "",
        *_off(facts),
        f"Bundle `{facts['bundle_id']}`; made at {facts['made_at']}, commit {facts['commit']}, on "
        f"{machine['cores']} cores, {machine['system']}, load {machine['load_before']:.2f} before. "
        "The tiers share these cores: milliseconds compare within this table only.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
