"""Training, export, evaluation, certificates and studies of models; no tier imports it."""
