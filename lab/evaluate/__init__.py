"""Methods, metrics and policies over cached exit outputs."""
