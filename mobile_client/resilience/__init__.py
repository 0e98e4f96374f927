"""Circuit breakers, limits, budgets, and measured delays of the tiers."""
