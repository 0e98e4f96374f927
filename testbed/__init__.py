"""Running, loading and breaking the whole system on one machine. No torch."""
