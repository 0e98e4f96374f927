"""The gateway's gRPC server as a process: TLS, cancelled calls, deadlines, stopping, settings."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import trustme
from tritonclient.utils import InferenceServerException

from tests.support.paths import BUNDLE, free_ports
from tests.support.silent_tier import SilentTier
from tests.support.started import Started, started

WAIT_S = 60.0


@contextmanager
def gateway(folder: Path, **settings: str) -> Iterator[tuple[Started, int]]:
    """Run a gateway without other tiers; yield the process and its gRPC port."""
    port, grpc_port, closed = free_ports(3)
    given = {
        "DIMEE_BUNDLE": str(BUNDLE),
        "DIMEE_STATE_DIR": str(folder / "state"),
        "DIMEE_LEDGER_URL": "off",
        "DIMEE_EDGE_URL": f"http://127.0.0.1:{closed}",
        "DIMEE_CLOUD_URL": f"http://127.0.0.1:{closed}",
        "DIMEE_PORT": str(port),
        "DIMEE_GRPC_PORT": str(grpc_port),
    }
    with started(folder / "scratch", "-m", "mobile_client", **given | settings) as process:
        yield process, grpc_port


def text_input() -> Any:
    """Return an input tensor with one text."""
    one = triton.InferInput("text", [1], "BYTES")
    one.set_data_from_numpy(np.array(["a gripping, funny film"], dtype=np.object_))
    return one


def wait_until_listening(port: int) -> None:
    """Wait until the server accepts connections, without the waits of a gRPC channel."""
    until = time.monotonic() + WAIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < until
            time.sleep(0.05)


def to_cloud(port: int, callback: Any, deadline_ms: int, **options: Any) -> Any:
    """Begin a call that the cloud is to answer."""
    client = triton.InferenceServerClient(f"127.0.0.1:{port}")
    parameters = {"policy": "cloud", "deadline_ms": deadline_ms}
    return client.async_infer(
        "sst2", [text_input()], callback=callback, parameters=parameters, **options
    )


def in_queue() -> tuple[SimpleQueue[Any], Any]:
    """Return a queue of results and errors, and the callback that fills it."""
    results: SimpleQueue[Any] = SimpleQueue()
    return results, lambda result, error: results.put(error or result)


def test_calls_in_progress_end_when_the_gateway_stops(tmp_path: Path) -> None:
    results, callback = in_queue()
    with SilentTier() as cloud, gateway(tmp_path, DIMEE_CLOUD_URL=cloud.url) as (process, port):
        wait_until_listening(port)
        to_cloud(port, callback, deadline_ms=3_000)
        cloud.wait_for(1)
        process.process.send_signal(signal.SIGTERM)
        answer = results.get(timeout=WAIT_S)
        assert answer.as_numpy("tier").tolist() == [b"mobile"], "it took over from the cloud"
        process.rest()
        with pytest.raises(InferenceServerException):
            triton.InferenceServerClient(f"127.0.0.1:{port}").is_server_live(client_timeout=2)


def test_cancelled_call_frees_its_place(tmp_path: Path) -> None:
    settings = {"DIMEE_MAX_QUEUE": "1"}
    results, callback = in_queue()
    with (
        SilentTier() as cloud,
        gateway(tmp_path, DIMEE_CLOUD_URL=cloud.url, **settings) as (_, port),
        triton.InferenceServerClient(f"127.0.0.1:{port}") as client,
    ):
        wait_until_listening(port)
        call = to_cloud(port, callback, deadline_ms=60_000)
        cloud.wait_for(1)
        with pytest.raises(InferenceServerException) as refused:
            client.infer("sst2", [text_input()])
        assert refused.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        call.cancel()
        assert results.get(timeout=WAIT_S).status() == "StatusCode.CANCELLED"
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            with suppress(InferenceServerException):
                client.infer("sst2", [text_input()], parameters={"policy": "mobile"})
                return
            time.sleep(0.05)
        raise AssertionError("the cancelled call still takes the only place")


def test_deadline_of_the_call_is_the_deadline_of_the_request(tmp_path: Path) -> None:
    """The gateway's own deadline is a minute, and the cloud gets a part of the call's only."""
    settings = {"DIMEE_DEADLINE_MS": "60000"}
    with (
        SilentTier() as cloud,
        gateway(tmp_path, DIMEE_CLOUD_URL=cloud.url, **settings) as (_, port),
        triton.InferenceServerClient(f"127.0.0.1:{port}") as client,
    ):
        wait_until_listening(port)
        headers = {"x-dimee-policy": "cloud"}
        result = client.infer("sst2", [text_input()], headers=headers, client_timeout=10)
        assert result.as_numpy("tier").tolist() == [b"mobile"]


def test_tls_is_that_of_the_gateway(tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = authority.issue_cert("127.0.0.1")
    server.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    settings = {
        "DIMEE_TLS_CERT": str(tmp_path / "server.pem"),
        "DIMEE_TLS_CLIENT_CA": str(tmp_path / "ca.pem"),
    }
    for name, issuer in (("client", authority), ("other", other)):
        certificate = issuer.issue_cert("127.0.0.1")
        certificate.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    with gateway(tmp_path, **settings) as (_, port):
        wait_until_listening(port)

        def client(name: str) -> triton.InferenceServerClient:
            files = {
                "root_certificates": str(tmp_path / "ca.pem"),
                "private_key": str(tmp_path / f"{name}.key"),
                "certificate_chain": str(tmp_path / f"{name}.pem"),
            }
            return triton.InferenceServerClient(f"127.0.0.1:{port}", ssl=True, **files)

        with client("client") as known, client("other") as unknown:
            assert known.is_server_ready()
            result = known.infer("sst2", [text_input()], parameters={"policy": "mobile"})
            assert result.as_numpy("tier").tolist() == [b"mobile"]
            with pytest.raises(InferenceServerException):
                unknown.is_server_ready(client_timeout=2)
        with pytest.raises(InferenceServerException):
            triton.InferenceServerClient(f"127.0.0.1:{port}").is_server_live(client_timeout=2)


@pytest.mark.parametrize("taken", ["DIMEE_PORT", "another"])
def test_port_that_is_taken_is_one_sentence(tmp_path: Path, taken: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings = {"DIMEE_GRPC_PORT": str(port)}
        if taken == "DIMEE_PORT":
            settings["DIMEE_PORT"] = str(port)
        with gateway(tmp_path, **settings) as (process, _):
            status, printed = process.rest()
    assert status == 2
    assert "DIMEE_GRPC_PORT" in printed
    assert "Traceback" not in printed
    assert printed.count("\n") == 1
