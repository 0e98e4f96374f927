"""``dimee up``: ledger, cloud, edge and the mobile's gateway as four processes on loopback."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from mobile_client.client import load_settings
from shared.credentials import Credentials
from shared.errors import DimeeError, InvalidInput
from shared.policies import POLICY_NAMES
from shared.pricing.live_prices import read_price_file
from testbed.links.hops import Hop, check_links, describe, make_hops, with_links
from testbed.processes.processes import Role, Testbed
from testbed.processes.supervisor import TESTBED_FILE, stand, write_testbed_file

MODULES = {
    "ledger": "shared.ledger.server",
    "cloud": "cloud_server",
    "edge": "edge_server",
    "mobile": "mobile_client",
}
PORTS = {"ledger": 8700, "mobile": 8701, "edge": 8702, "cloud": 8703}


def make_testbed(
    ports: dict[str, int],
    state_dir: Path,
    settings: dict[str, str],
    hops: Sequence[Hop] = (),
    credentials: Credentials | None = None,
) -> Testbed:
    """Four roles that know each other's addresses; started in the order of who needs whom.

    A hop's link is a process too, and its caller knows the link's address.
    """
    urls = {
        f"DIMEE_{name.upper()}_URL": f"http://127.0.0.1:{ports[name]}"
        for name in ("ledger", "edge", "cloud")
    }
    roles = [Role(name, module, ports[name], urls) for name, module in MODULES.items()]
    return Testbed(with_links(roles, hops), state_dir, settings, credentials)


def testbed_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that ``dimee up`` and ``dimee demo`` share."""
    for name, port in PORTS.items():
        command = click.option(
            f"--{name}-port", default=port, show_default=True, type=click.IntRange(1, 65_535)
        )(command)
    for option in (
        click.option("--policy", type=click.Choice(POLICY_NAMES), help="Who decides the tier."),
        click.option("--mobile-layers", type=int, help="m, the mobile's layers."),
        click.option("--edge-layers", type=int, help="n, the edge's layers."),
        click.option("--bundle", type=click.Path(), help="Folder of the model's bundle."),
        click.option("--database-url", help="The ledger's store, SQLite by default."),
        click.option(
            "--price-book",
            type=click.Path(path_type=Path),
            help="The mobile's prices, as dimee prices measure writes them.",
        ),
        click.option("--state-dir", type=click.Path(path_type=Path), help="Ledger, logs."),
    ):
        command = option(command)
    return command


def testbed_from_options(options: dict[str, Any]) -> Testbed:
    """A testbed from the options of `testbed_options`; wrong ones are refused before any start."""
    ports = {name: options[f"{name}_port"] for name in PORTS}
    if len(set(ports.values())) < len(ports):
        raise DimeeError("ports: two roles have the same one; give each its own")
    settings = load_settings(
        **{
            name: options[name]
            for name in ("policy", "mobile_layers", "edge_layers", "bundle", "state_dir")
        },
        price_book=options.get("price_book"),
    )
    if settings.price_book is not None:
        read_price_file(settings.price_book)
    if settings.tls_cert is not None:
        raise InvalidInput(
            "DIMEE_TLS_CERT: the testbed speaks plain HTTP on loopback; unset it, or start the "
            "processes one by one (python -m edge_server …)"
        )
    environment = {
        "DIMEE_POLICY": settings.policy,
        "DIMEE_BUNDLE": str(Path(settings.bundle).absolute()),
    }
    if settings.price_book is not None:
        environment["DIMEE_PRICE_BOOK"] = str(settings.price_book.absolute())
    for name in ("mobile_layers", "edge_layers", "database_url"):
        if options[name] is not None:
            environment[f"DIMEE_{name.upper()}"] = str(options[name])
    folder = Path(settings.state_dir).absolute()
    return make_testbed(
        ports, folder, environment, options.get("hops", ()), Credentials.of(settings)
    )


@click.command()
@testbed_options
@click.option(
    "--link",
    "links",
    multiple=True,
    metavar="HOP=LINK",
    help="An emulated link, as mobile-edge=4g, mobile-cloud=wifi,loss=0.01 or mobile-edge=@FILE.",
)
@click.option("--link-seed", default=0, show_default=True, help="Of the links' dice.")
@click.option("--allow-unverified", is_flag=True, help="Go on with links that are off their label.")
@click.option(
    "--restart-after",
    "restart_after_s",
    type=click.FloatRange(0, 3600),
    metavar="SECONDS",
    help="Start a process that ended by itself again after so long; else everything stops.",
)
def up(
    links: tuple[str, ...],
    link_seed: int,
    allow_unverified: bool,
    restart_after_s: float | None,
    **options: Any,
) -> None:
    """Start ledger, cloud, edge and mobile on loopback; stop them with Ctrl-C.

    Each link is measured before it is believed: one that is off its label by more than 10 % stops
    everything. See dimee link for changing links while they run.
    """
    hops = make_hops(links, link_seed)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with testbed_from_options(options | {"hops": hops}) as testbed, ExitStack() as leave:
        click.echo("starting ledger, cloud, edge and mobile …")
        testbed.start_all()
        found = check_links(hops, allow_unverified, click.echo)

        def tell_others() -> None:
            write_testbed_file(testbed.state_dir, describe(testbed, hops, found))

        leave.callback((testbed.state_dir / TESTBED_FILE).unlink, missing_ok=True)
        tell_others()
        for name, role in testbed.roles.items():
            what = {"ledger": "/docs, /v1/summary", "mobile": "/docs, POST /v1/classify"}
            what |= {f"link-{hop.name}": f"{hop.words}, GET /link" for hop in hops}
            click.echo(f"  {name:<7} {role.url}  {what.get(name, '/docs, POST /v1/infer')}")
        click.echo(
            "ready; try:\n"
            f"  curl -s {testbed.roles['mobile'].url}/v1/classify"
            " -H 'content-type: application/json' -d '{\"texts\": [\"a gripping, funny film\"]}'\n"
            f"  dimee ledger summary --ledger-url {testbed.roles['ledger'].url}\n"
            "Ctrl-C stops them all.",
        )
        stand(testbed, stop, restart_after_s, click.echo, tell_others)
        click.echo("stopping …")
    click.echo("stopped.")
