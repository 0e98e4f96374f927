"""From a training run to a bundle."""
