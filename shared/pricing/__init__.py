"""Prices of an attempt, in λ, money and energy."""
