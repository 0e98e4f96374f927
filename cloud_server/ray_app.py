"""The cloud on Ray Serve: `build` is the ``import_path`` of a Serve config file."""

from typing import Any

from cloud_server.app import create_app
from cloud_server.settings import CloudSettings
from shared.ray_serve.deployment import tier_application
from shared.ray_serve.options import RayOptions


# Ray reads the annotation to validate the arguments, so it must not be a string.
def build(options: RayOptions) -> Any:
    """Return the cloud's Serve application; ``options`` are the config file's ``args``."""
    return tier_application("cloud", create_app, CloudSettings, options)
