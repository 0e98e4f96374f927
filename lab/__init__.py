"""The study: where models are trained, calibrated, exported and judged. Never imported by a tier."""
