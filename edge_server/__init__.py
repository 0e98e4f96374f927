"""The edge: layers 1..n with early exit, over HTTP."""
