"""``dimee up``: start ledger, cloud, edge and the mobile's gateway as processes on loopback."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import click

from mobile_client.cli.policy_help import POLICY_HELP
from mobile_client.client import load_settings
from mobile_client.gateway.examples import curl_command
from shared.bundle.description import describe
from shared.bundle.loading import load_bundle
from shared.credentials import Credentials
from shared.errors import DimeeError, InvalidInput
from shared.extras import SERVER_PACKAGES, TESTBED, require
from shared.ledger.database_option import warn_of_password
from shared.policies import POLICY_NAMES, PolicyFacts, make_policy
from shared.pricing.live_prices import read_price_file
from shared.signals import set_on_signals
from shared.testbed_file import TESTBED_FILE
from shared.wire import BundleDescription
from testbed.links.hops import PREFIX, Hop, make_hops, testbed_facts, verify_links, with_links
from testbed.processes.processes import Role, Testbed
from testbed.processes.replicas import (
    MAX_REPLICAS,
    replica_ports,
    replica_roles,
    replica_urls,
)
from testbed.processes.supervisor import supervise, write_testbed_file

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
    replicas: Mapping[str, int] | None = None,
) -> Testbed:
    """Return a testbed of the four roles, servers before those that call them.

    ``replicas`` is the number of processes of the edge and the cloud, one by default; ``ports`` may
    also have those of the further ones (``cloud-2``). Each link of ``hops`` is a relay process,
    whose address its caller gets. ``settings`` are ``DIMEE_*`` variables for every process.
    """
    counts = {"edge": 1, "cloud": 1} | dict(replicas or {})
    tier_ports = {tier: replica_ports(tier, count, ports) for tier, count in counts.items()}
    urls = {"DIMEE_LEDGER_URL": f"http://127.0.0.1:{ports['ledger']}"}
    urls |= {f"DIMEE_{tier.upper()}_URL": replica_urls(own) for tier, own in tier_ports.items()}
    roles = []
    for name, module in MODULES.items():
        if name in tier_ports:
            roles += replica_roles(name, module, tier_ports[name], state_dir, urls)
        else:
            roles.append(Role(name, module, ports[name], urls))
    return Testbed(with_links(roles, hops), state_dir, settings, credentials)


def testbed_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that ``dimee up`` and ``dimee demo`` share."""
    for name, port in PORTS.items():
        command = click.option(
            f"--{name}-port",
            default=port,
            show_default=True,
            type=click.IntRange(1, 65_535),
            help=f"Port of the {name}.",
        )(command)
    for option in (
        click.option(
            "--policy", metavar="POLICY", help=f"Routing policy of the mobile: {POLICY_HELP}"
        ),
        click.option("--mobile-layers", type=int, help="Number of layers on the mobile (m)."),
        click.option("--edge-layers", type=int, help="Number of layers on the edge (n)."),
        click.option("--bundle", type=click.Path(), help="Folder of the model bundle."),
        click.option(
            "--database-url",
            callback=warn_of_password,
            help="Database of the ledger; SQLite by default.",
        ),
        click.option(
            "--price-book",
            type=click.Path(path_type=Path),
            help="Price book of the mobile, as written by dimee prices measure.",
        ),
        click.option(
            "--state-dir",
            type=click.Path(path_type=Path),
            help="Folder of the ledger and the logs.",
        ),
    ):
        command = option(command)
    return command


def describe_bundle(options: dict[str, Any]) -> BundleDescription:
    """Return the description of the bundle that the options or the environment name.

    Raises `BundleError` if it cannot be used.
    """
    return describe(load_bundle(load_settings(bundle=options["bundle"]).bundle))


def testbed_from_options(options: dict[str, Any]) -> Testbed:
    """Return a testbed from the options of `testbed_options`, before any process is started.

    Raises `DimeeError` for wrong options.
    """
    require(SERVER_PACKAGES, "the testbed", *TESTBED)
    ports = {name: options[f"{name}_port"] for name in PORTS}
    replicas = {tier: int(options.get(f"{tier}_replicas") or 1) for tier in ("edge", "cloud")}
    every = [ports["ledger"], ports["mobile"]]
    for tier, count in replicas.items():
        own = replica_ports(tier, count, ports)
        every += own.values()
        name, port = max(own.items(), key=lambda item: item[1])
        if port > 65_535:
            raise DimeeError(
                f"ports: {name} would have the port {port}, and the last one is 65535; choose a "
                f"lower --{tier}-port or fewer --{tier}-replicas"
            )
    if len(set(every)) < len(every):
        raise DimeeError("ports: two processes have the same port; give each role its own")
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
            "DIMEE_TLS_CERT: the testbed uses plain HTTP on loopback; unset it, or start the "
            "processes one by one (python -m edge_server …)"
        )
    if settings.policy is not None and settings.policy not in POLICY_NAMES:
        bundle = load_bundle(settings.bundle)
        make_policy(settings.policy, PolicyFacts.of(bundle, settings.mobile_layers))
    environment = {"DIMEE_BUNDLE": str(Path(settings.bundle).absolute())}
    if settings.policy is not None:
        environment["DIMEE_POLICY"] = settings.policy
    if settings.price_book is not None:
        environment["DIMEE_PRICE_BOOK"] = str(settings.price_book.absolute())
    for name in ("mobile_layers", "edge_layers", "database_url"):
        if options[name] is not None:
            environment[f"DIMEE_{name.upper()}"] = str(options[name])
    folder = Path(settings.state_dir).absolute()
    return make_testbed(
        ports,
        folder,
        environment,
        options.get("hops", ()),
        Credentials.of(settings),
        replicas,
    )


@click.command()
@testbed_options
@click.option(
    "--link",
    "links",
    multiple=True,
    metavar="HOP=LINK",
    help="Emulated link: mobile-edge=4g, mobile-cloud=wifi,loss=0.01, mobile-edge=@FILE for a "
    "schedule, or mobile-edge=4g,up=FILE,down=FILE for packet traces in Mahimahi's format.",
)
@click.option(
    "--edge-replicas",
    default=1,
    show_default=True,
    type=click.IntRange(1, MAX_REPLICAS),
    help="Number of edge processes; the second listens 100 ports above the first.",
)
@click.option(
    "--cloud-replicas",
    default=1,
    show_default=True,
    type=click.IntRange(1, MAX_REPLICAS),
    help="Number of cloud processes.",
)
@click.option(
    "--link-seed", default=0, show_default=True, help="Seed of the links' jitter and loss."
)
@click.option(
    "--allow-unverified", is_flag=True, help="Accept links that deviate by more than 10 %."
)
@click.option(
    "--restart-after",
    "restart_after_s",
    type=click.FloatRange(0, 3600),
    metavar="SECONDS",
    help="Restart a process that ended by itself after so many seconds; else stop everything.",
)
def up(
    links: tuple[str, ...],
    link_seed: int,
    allow_unverified: bool,
    restart_after_s: float | None,
    **options: Any,
) -> None:
    """Start ledger, cloud, edge and mobile on loopback; stop them with Ctrl-C.

    Each link is measured at the start; one that deviates from its specification by more than 10 %
    stops everything. dimee link changes links of a running testbed.
    """
    replicas = {tier: int(options[f"{tier}_replicas"]) for tier in ("edge", "cloud")}
    hops = make_hops(links, link_seed, replicas)
    bundle = describe_bundle(options)
    with testbed_from_options(options | {"hops": hops}) as testbed, ExitStack() as stack:
        click.echo("starting ledger, cloud, edge and mobile …")
        testbed.start_all()
        measurements = verify_links(hops, allow_unverified, click.echo)

        def publish() -> None:
            write_testbed_file(testbed.state_dir, testbed_facts(testbed, hops, measurements))

        stop = stack.enter_context(set_on_signals())  # until the testbed is stopped
        stack.callback((testbed.state_dir / TESTBED_FILE).unlink, missing_ok=True)
        publish()
        width = max(map(len, testbed.roles))
        for name, role in testbed.roles.items():
            paths = {
                "ledger": "/docs, /v1/summary",
                "mobile": "/docs, POST /v1/classify, page /, app /app/",
            }
            paths |= {f"{PREFIX}{hop.name}": f"{hop.spec}, GET /link" for hop in hops}
            click.echo(f"  {name:<{width}} {role.url}  {paths.get(name, '/docs, POST /v1/infer')}")
        url, with_token = testbed.roles["mobile"].url, bool(testbed.credentials.headers())
        click.echo(
            f"ready; open {url}/ in a browser, or try:\n"
            f"  {curl_command(url, bundle, with_token)}\n"
            f"  dimee ledger summary --ledger-url {testbed.roles['ledger'].url}\n"
            "Ctrl-C stops them all.",
        )
        supervise(testbed, stop, restart_after_s, say, publish)
        say("stopping …")
    say("stopped.")


def say(line: str) -> None:
    """Print a line, unless the terminal has been closed."""
    with suppress(OSError):
        click.echo(line)
