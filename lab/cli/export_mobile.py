"""``dimee export --mobile``: the part of a bundle that a browser or an app needs. No torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from lab.cli.common import PATH
from shared.errors import InvalidInput

Command = TypeVar("Command", bound=Callable[..., Any])
OF_MOBILE = frozenset(
    {
        "bundle_of_mobile",
        "with_app",
        "gateway",
        "edge_url",
        "cloud_url",
        "ledger_url",
        "needs_token",
    }
)
"""Options that have a meaning with ``--mobile`` only."""
SAMPLES = 20
"""Most sample texts that the app offers."""
OF_BOTH = frozenset({"mobile", "mobile_layers", "edge_layers"})


def mobile_options(command: Command) -> Command:
    """Add ``--mobile`` and the options that belong to it."""
    for option in reversed(
        (
            click.option(
                "--mobile",
                type=PATH,
                metavar="FOLDER",
                help="Write the mobile bundle to FOLDER: the part of a bundle that a browser needs "
                "(docs/mobile-bundle.md). RUN and BUNDLE are left out, and the extra lab is not "
                "needed.",
            ),
            click.option(
                "--bundle",
                "bundle_of_mobile",
                type=PATH,
                help="With --mobile: the bundle to take it from. Default: DIMEE_BUNDLE, else the "
                "shipped bundle.",
            ),
            click.option(
                "--with-app",
                is_flag=True,
                help="With --mobile: write the whole app for browsers, with its config.json and "
                "the mobile bundle in FOLDER/bundle, for any server of static files.",
            ),
            click.option(
                "--gateway",
                metavar="URL",
                help="With --with-app: the gateway that passes the app's calls on to edge, cloud "
                "and ledger.",
            ),
            click.option(
                "--edge-url", metavar="URL", help="With --with-app: the edge, for direct calls."
            ),
            click.option(
                "--cloud-url", metavar="URL", help="With --with-app: the cloud, for direct calls."
            ),
            click.option(
                "--ledger-url",
                metavar="URL",
                help="With --with-app: the ledger, for direct calls. Without it and without "
                "--gateway nothing is recorded.",
            ),
            click.option(
                "--needs-token",
                is_flag=True,
                help="With --with-app: the app asks for a token, because the services have tokens.",
            ),
        )
    ):
        command = option(command)
    return command


def refuse_other_options(context: click.Context) -> None:
    """Raise `InvalidInput` for an option that is given and has no meaning in this use of export."""
    with_mobile = context.params["mobile"] is not None
    for name in context.params:
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not given or name in OF_BOTH or (name in OF_MOBILE) == with_mobile:
            continue
        option = "--bundle" if name == "bundle_of_mobile" else f"--{name.replace('_', '-')}"
        if name in ("run", "bundle"):
            raise InvalidInput(
                f"{name.upper()}: leave it out with --mobile, which takes a finished bundle "
                "(--bundle)"
            )
        raise InvalidInput(
            f"{option}: is of no use {'with' if with_mobile else 'without'} --mobile; leave it out"
        )


def export_mobile(
    target: Path,
    source: Path | None,
    mobile_layers: int | None,
    edge_layers: int | None,
    with_app: bool,
    addresses: dict[str, str | None],
    needs_token: bool,
) -> None:
    """Write the mobile bundle, or the app with it, to ``target`` and print what it holds.

    ``addresses`` are those of `mobile_client.web.export.static_config`.
    """
    from mobile_client.gateway.examples import example_texts
    from mobile_client.settings import MobileSettings
    from mobile_client.web.export import (
        APP_KNOWN_BY,
        not_in_browsers,
        static_config,
        write_app,
        write_mobile_bundle,
    )
    from shared.bundle.description import describe
    from shared.bundle.folders import check_target
    from shared.bundle.loading import load_bundle, tier_layers
    from shared.bundle.manifest import MANIFEST
    from shared.bundle.mobile_bundle import make_mobile_bundle
    from shared.settings import read_settings

    given = {"bundle": source, "mobile_layers": mobile_layers, "edge_layers": edge_layers}
    settings = read_settings(
        MobileSettings, **{name: value for name, value in given.items() if value is not None}
    )
    bundle = load_bundle(settings.bundle)
    layers = tier_layers(bundle, settings.mobile_layers, settings.edge_layers)
    config = None
    if with_app:
        samples = example_texts(describe(bundle), SAMPLES)
        config = static_config(
            settings, bundle, **addresses, needs_token=needs_token, samples=samples
        )
    elif needs_token or any(addresses.values()):
        raise InvalidInput("--with-app: add it, or leave the addresses and --needs-token out")
    check_target(target, APP_KNOWN_BY if with_app else MANIFEST)
    mobile = make_mobile_bundle(bundle, layers.mobile.last, layers.edge.last)
    if config is None:
        write_mobile_bundle(mobile, target)
    else:
        write_app(mobile, config, target)
    click.echo(
        f"mobile bundle of {bundle.bundle_id} ({bundle.manifest.task}), layers 1 to "
        f"{layers.mobile.last} of {layers.cloud.last}: {mobile.transfer_bytes / 1e6:.1f} MB to "
        "transfer"
    )
    for name, content in mobile.files.items():
        click.echo(f"  {name:<26}{len(content):>12,} bytes")
    click.echo(f"{'app' if with_app else 'mobile bundle'} in {target}")
    if note := not_in_browsers(mobile):
        click.echo(f"note: {note}", err=True)
