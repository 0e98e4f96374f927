"""The edge on Ray Serve: `build` is the ``import_path`` of a Serve config file."""

from typing import Any

from edge_server.app import create_app
from edge_server.settings import EdgeSettings
from shared.ray_serve.deployment import tier_application
from shared.ray_serve.options import RayOptions


# Ray reads the annotation to validate the arguments, so it must not be a string.
def build(options: RayOptions) -> Any:
    """Return the edge's Serve application; ``options`` are the config file's ``args``."""
    return tier_application("edge", create_app, EdgeSettings, options)
