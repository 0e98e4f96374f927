"""Takes a routed text through its tiers: attempts, retries, hedges, fail-over."""
