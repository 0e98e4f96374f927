"""``dimee serve-ray``: serve a tier with Ray Serve, on this machine or on a Ray cluster."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from shared.bundle.loading import load_bundle
from shared.connections import GRACEFUL_STOP_S, SERVER_IDLE_S
from shared.domain import Tier
from shared.errors import DimeeError, InvalidInput
from shared.extras import require
from shared.ray_serve.options import MAX_REPLICAS, STOP_S, RayOptions
from shared.serving.auth import refuse_unprotected_service
from shared.serving.tls import tls_options
from shared.settings import TierSettings, is_loopback, read_settings
from shared.short_line import short_line
from shared.signals import set_on_signals

TIERS = (Tier.EDGE.value, Tier.CLOUD.value)
_MAX_REASON_CHARS = 300


@click.command("serve-ray")
@click.option("--tier", type=click.Choice(TIERS), required=True, help="Tier to serve.")
@click.option(
    "--replicas",
    default=1,
    show_default=True,
    type=click.IntRange(1, MAX_REPLICAS),
    help="Number of replicas; with --max-replicas the least number.",
)
@click.option(
    "--max-replicas",
    type=click.IntRange(1, MAX_REPLICAS),
    help="Largest number of replicas, between which Ray Serve scales by the tier's queue.",
)
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 256),
    help="Processes that run layers in each replica, each on one CPU.",
)
@click.option(
    "--gpus",
    default=0,
    show_default=True,
    type=click.IntRange(0, 256),
    help="GPUs that each replica reserves; its processes run on them.",
)
@click.option(
    "--address",
    metavar="ADDRESS",
    help="A running Ray cluster, or auto for the one of this machine.  [default: start Ray here]",
)
def serve_ray(
    tier: str,
    replicas: int,
    max_replicas: int | None,
    workers: int,
    gpus: int,
    address: str | None,
) -> None:
    """Serve the edge or the cloud with Ray Serve until Ctrl-C.

    DIMEE_HOST and DIMEE_PORT say where the proxy listens. Replicas read their other settings from
    the environment of their node.
    """
    require(("ray", "fastapi"), "dimee serve-ray", "service", "ray")
    if max_replicas is not None and max_replicas < replicas:
        raise InvalidInput(
            f"--max-replicas {max_replicas} is less than --replicas {replicas}; raise it",
            field="max-replicas",
        )
    settings = _read_settings(tier)
    options = RayOptions(
        workers=workers,
        gpus=gpus,
        min_replicas=replicas,
        max_replicas=max_replicas,
        host=settings.host,
    )
    http = http_options(settings, os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1")
    load_bundle(settings.bundle)
    _serve(tier, options, http, address)


def http_options(settings: TierSettings, ha_proxy: bool) -> dict[str, Any]:
    """Return the options of Serve's proxies for a tier's settings.

    Raises `InvalidInput` if other machines could reach the tier without tokens, and for TLS options
    that the proxies do not have; ``ha_proxy`` says that HAProxy takes their place.
    """
    refuse_unprotected_service(settings)
    options: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "keep_alive_timeout_s": SERVER_IDLE_S,
        # the longest deadline: no request waits for a replica for ever
        "request_timeout_s": GRACEFUL_STOP_S,
    }
    if not tls_options(settings):
        return options
    if settings.tls_client_ca is not None:
        raise InvalidInput(
            "settings: Ray Serve's proxy does not require client certificates; unset "
            "DIMEE_TLS_CLIENT_CA, or end TLS in a proxy in front of it"
        )
    if ha_proxy:
        raise InvalidInput(
            "settings: with RAY_SERVE_ENABLE_HA_PROXY=1 Ray Serve speaks plain HTTP only; unset "
            "DIMEE_TLS_CERT, and end TLS in a proxy in front of it"
        )
    if settings.tls_key is None:
        raise InvalidInput(
            "settings: Ray Serve's proxy needs the key in a file of its own; set DIMEE_TLS_KEY"
        )
    return options | {"ssl_certfile": str(settings.tls_cert), "ssl_keyfile": str(settings.tls_key)}


def _read_settings(tier: str) -> TierSettings:
    # by name, because this package may not depend on a tier
    module = importlib.import_module(f"{tier}_server.settings")
    kind: type[TierSettings] = getattr(module, f"{tier.capitalize()}Settings")
    return read_settings(kind)


def _serve(tier: str, options: RayOptions, http: dict[str, Any], address: str | None) -> None:
    # before the first import of ray, which reads it
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray import serve

    build = importlib.import_module(f"{tier}_server.ray_app").build
    with _explained("Ray cannot be reached" if address else "Ray does not start"):
        ray.init(address=address, log_to_driver=True)
    try:
        _refuse_running_serve(serve)
        with _explained("Ray Serve does not start"):
            serve.start(http_options=http)
        try:
            # a signal ends this, which lasts as long as the cluster has too few CPUs
            with _explained(f"the {tier} does not start; see the log above"):
                serve.run(build(options), name=tier, route_prefix="/")
            scheme = "https" if "ssl_certfile" in http else "http"
            host = http["host"] if is_loopback(http["host"]) else "this machine's address"
            url = f"{scheme}://{host}:{http['port']}"
            with set_on_signals() as stopped:
                click.echo(f"The {tier} answers at {url}; Ctrl-C stops it.")
                stopped.wait()
            click.echo("Stopping: requests in flight are answered first.")
        finally:
            delete_application(lambda: serve.delete(tier))
            if address is not None and not serve.status().applications:
                serve.shutdown()
    finally:
        if address is None:
            serve.shutdown()
        ray.shutdown()


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Raise an error of Ray in the block, which may be of any class, as a `DimeeError`."""
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise DimeeError(f"{what}: {short_line(text, _MAX_REASON_CHARS)}") from error


def _refuse_running_serve(serve: Any) -> None:
    """Raise `InvalidInput` if Serve runs: it would ignore the options of the proxies.

    The tier would then be at another address than the one that is printed, perhaps one that other
    machines reach, while its replicas require no tokens.
    """
    status = serve.status()
    if status.proxies or status.applications:
        raise InvalidInput(
            "address: Ray Serve runs on this cluster already, with an address of its own; deploy "
            "the tier with serve deploy, or stop Serve first with serve shutdown",
            field="address",
        )


def delete_application(
    delete: Callable[[], None], within_s: float = STOP_S, now: Callable[[], float] = time.monotonic
) -> None:
    """Call ``delete`` until the application has ended; Ray waits for 60 s in each call.

    A request in flight may take longer than that. Raises `DimeeError` after ``within_s``.
    """
    until = now() + within_s
    while True:
        try:
            delete()
            return
        except TimeoutError:
            if now() >= until:
                raise DimeeError(
                    f"the replicas have not stopped after {within_s:.0f} s; see serve status"
                ) from None
