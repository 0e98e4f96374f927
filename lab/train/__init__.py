"""Training of exits."""
