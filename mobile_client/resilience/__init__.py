"""Circuit breakers, limits, and what is known of each tier's health."""
