"""Studies beyond the paper's tables; each writes a JSON and a page."""

from shared.extras import exit_without

exit_without(("torch", "transformers", "sklearn", "jinja2", "matplotlib"), "lab.studies", "lab")
