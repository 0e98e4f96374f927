"""The edge server: layers 1..n with early exit, over HTTP."""
