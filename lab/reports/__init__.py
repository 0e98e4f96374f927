"""The pages and plots of ``docs/results/``, from the JSONs of ``dimee evaluate``."""
