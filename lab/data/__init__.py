"""Tasks and labelled examples."""
