"""The study: where models are trained, calibrated, exported and judged; no tier imports it."""
