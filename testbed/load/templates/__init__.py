"""Jinja2 templates of the reports."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment(package: str = __name__, html: bool = False) -> Environment:
    """Return an environment for the templates in a package; ``html`` escapes what is inserted."""
    return Environment(
        loader=PackageLoader(package, ""),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
