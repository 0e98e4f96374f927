"""What an attempt costs: λ, money and energy."""
