"""Open Inference Protocol over gRPC, a second port of the gateway.

The server runs in the gateway's event loop (`grpc.aio`, which works with uvloop). It answers each
call by a call of the gateway's own application in the same process, with the protocol over HTTP:
authentication, limits, options, errors and the ledger are the same by construction.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError
from starlette.types import ASGIApp

from mobile_client.gateway.protocols.generated import open_inference_grpc_pb2 as pb2
from mobile_client.gateway.protocols.grpc_messages import (
    infer_body,
    infer_response,
    model_metadata,
)
from mobile_client.gateway.protocols.in_process import InProcessRequest, InProcessResponse, call
from mobile_client.gateway.protocols.open_inference import LIVE, PREFIX, READY
from mobile_client.gateway.protocols.request_options import OPTION_HEADERS
from mobile_client.gateway.protocols.tensors import HEADER_LENGTH
from mobile_client.settings import MobileSettings
from shared.connections import SERVER_IDLE_S
from shared.errors import DimeeError, InvalidInput
from shared.serving.body_limit import MAX_INCOMPLETE_BYTES
from shared.serving.http_framing import HEAD_BYTES
from shared.wire import MAX_BODY_BYTES

SERVICE = "inference.GRPCInferenceService"
MAX_MESSAGE_BYTES = MAX_BODY_BYTES
MAX_CALLS = MAX_INCOMPLETE_BYTES // MAX_MESSAGE_BYTES
"""Most calls at once; grpc has the message of each in memory before it can be refused."""
UNCOMPRESSED = 1 << grpc.Compression.NoCompression
"""Set of the accepted compressions of messages: none."""
_FORWARDED = frozenset({"authorization", "traceparent", "tracestate", *OPTION_HEADERS.values()})
"""Metadata of a call that become headers."""
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""HTTP status → gRPC status; any other error is INTERNAL."""

Context = Any
"""`grpc.aio.ServicerContext`; the library has no types."""


class GrpcServer:
    """Server of `SERVICE` for the application of a gateway."""

    def __init__(self, app: ASGIApp, settings: MobileSettings) -> None:
        assert settings.grpc_port is not None
        self._app = app
        self._settings = settings
        self._address = _address(settings.host, settings.grpc_port)
        self._forwarded = _FORWARDED | {settings.client_header.lower()}
        self._scheme = "http" if settings.tls_cert is None else "https"
        self._server: Any = None

    async def start(self) -> None:
        """Listen; raise `InvalidInput` if the address is in use or cannot be listened on."""
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_metadata_size", HEAD_BYTES),
                ("grpc.max_concurrent_streams", MAX_CALLS),
                ("grpc.max_connection_idle_ms", SERVER_IDLE_S * 1_000),
                # grpc limits a message's size after it has decompressed the whole of it
                ("grpc.compression_enabled_algorithms_bitset", UNCOMPRESSED),
                ("grpc.so_reuseport", 0),  # or a second server would take half of the calls
            ],
            maximum_concurrent_rpcs=min(self._settings.max_queue, MAX_CALLS),
        )
        self._server.add_generic_rpc_handlers((self._handlers(),))
        try:
            if self._settings.tls_cert is None:
                self._server.add_insecure_port(self._address)
            else:
                self._server.add_secure_port(self._address, server_credentials(self._settings))
        except RuntimeError:
            raise _cannot_listen(self._address) from None
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, and wait up to ``grace_s`` for those in progress."""
        await self._server.stop(grace_s)

    def _handlers(self) -> Any:
        methods: dict[str, tuple[Callable[[Any, Context], Awaitable[Any]], Any]] = {
            "ServerLive": (self._server_live, pb2.ServerLiveRequest),
            "ServerReady": (self._server_ready, pb2.ServerReadyRequest),
            "ModelReady": (self._model_ready, pb2.ModelReadyRequest),
            "ServerMetadata": (self._server_metadata, pb2.ServerMetadataRequest),
            "ModelMetadata": (self._model_metadata, pb2.ModelMetadataRequest),
            "ModelInfer": (self._model_infer, pb2.ModelInferRequest),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                _parsing(method, request),
                response_serializer=lambda response: response.SerializeToString(),
            )
            for name, (method, request) in methods.items()
        }
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    async def _server_live(self, _: Any, context: Context) -> pb2.ServerLiveResponse:
        await self._get(context, LIVE)
        return pb2.ServerLiveResponse(live=True)

    async def _server_ready(self, _: Any, context: Context) -> pb2.ServerReadyResponse:
        return pb2.ServerReadyResponse(ready=await self._is_ready(context, READY))

    async def _model_ready(
        self, request: pb2.ModelReadyRequest, context: Context
    ) -> pb2.ModelReadyResponse:
        path = f"{_model_path(request.name, request.version)}/ready"
        return pb2.ModelReadyResponse(ready=await self._is_ready(context, path))

    async def _is_ready(self, context: Context, path: str) -> bool:
        """Return False where the protocol over HTTP says so by 404 or 503."""
        response = await call(self._app, self._request(context, "GET", path))
        if response.status in (404, 503):
            return False
        await _abort_if_failed(context, response)
        return True

    async def _server_metadata(self, _: Any, context: Context) -> pb2.ServerMetadataResponse:
        return pb2.ServerMetadataResponse(**await self._get(context, PREFIX))

    async def _model_metadata(
        self, request: pb2.ModelMetadataRequest, context: Context
    ) -> pb2.ModelMetadataResponse:
        content = await self._get(context, _model_path(request.name, request.version))
        if "versions" not in content:  # the path of a name that ends with /ready is another call's
            await context.abort(grpc.StatusCode.NOT_FOUND, "model: is not served")
        return model_metadata(content)

    async def _model_infer(
        self, request: pb2.ModelInferRequest, context: Context
    ) -> pb2.ModelInferResponse:
        try:
            body, json_bytes = infer_body(request)
        except DimeeError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        path = f"{_model_path(request.model_name, request.model_version)}/infer"
        headers = [(HEADER_LENGTH, str(json_bytes))]
        deadline = OPTION_HEADERS["deadline_ms"]
        left_s = context.time_remaining()
        if left_s is not None and all(
            name != deadline for name, _ in context.invocation_metadata()
        ):
            left_ms = min(max(1.0, left_s * 1e3), self._settings.deadline_ms)
            headers.append((deadline, str(left_ms)))
        response = await call(self._app, self._request(context, "POST", path, headers, body))
        await _abort_if_failed(context, response)
        facts = [item for item in response.headers.items() if item[0].startswith("x-dimee-")]
        context.set_trailing_metadata(facts)
        length = int(response.headers[HEADER_LENGTH])
        content = json.loads(response.body[:length])
        return infer_response(content, bytes(response.body[length:]))

    async def _get(self, context: Context, path: str) -> Any:
        """Return the JSON that the gateway answers at ``path``."""
        response = await call(self._app, self._request(context, "GET", path))
        await _abort_if_failed(context, response)
        return json.loads(response.body)

    def _request(
        self,
        context: Context,
        method: str,
        path: str,
        headers: list[tuple[str, str]] | None = None,
        body: bytes = b"",
    ) -> InProcessRequest:
        sent = [
            (name, value)
            for name, value in context.invocation_metadata()
            if name in self._forwarded and isinstance(value, str)
        ]
        return InProcessRequest(
            method, path, sent + (headers or []), _client(context.peer()), body, self._scheme
        )


def _parsing(
    method: Callable[[Any, Context], Awaitable[Any]], kind: Any
) -> Callable[[bytes, Context], Awaitable[Any]]:
    """Return a handler that calls ``method`` with the message of type ``kind`` in its bytes.

    grpc logs a traceback for a message that its own deserializer cannot read.
    """

    async def handle(message: bytes, context: Context) -> Any:
        try:
            request = kind.FromString(message)
        except DecodeError:
            name = kind.DESCRIPTOR.name
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"message: is no valid {name}")
        return await method(request, context)

    return handle


def check_grpc_settings(settings: MobileSettings) -> None:
    """Raise `InvalidInput` if the gRPC server could not listen, before anything is open."""
    assert settings.grpc_port is not None
    if settings.grpc_port == settings.port:
        raise InvalidInput(
            f"settings: DIMEE_GRPC_PORT: {settings.grpc_port} is DIMEE_PORT too; give each its own",
            field="grpc_port",
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        socket.create_server((settings.host, settings.grpc_port), family=family).close()
    except OSError:
        raise _cannot_listen(_address(settings.host, settings.grpc_port)) from None


def server_credentials(settings: MobileSettings) -> Any:
    """Return the TLS credentials of the gateway for gRPC."""
    assert settings.tls_cert is not None
    certificate = settings.tls_cert.read_bytes()
    key = certificate if settings.tls_key is None else settings.tls_key.read_bytes()
    authorities = _content(settings.tls_client_ca)
    return grpc.ssl_server_credentials(
        [(key, certificate)],
        root_certificates=authorities,
        require_client_auth=authorities is not None,
    )


def _content(file: Path | None) -> bytes | None:
    return None if file is None else file.read_bytes()


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _cannot_listen(address: str) -> InvalidInput:
    return InvalidInput(
        f"settings: DIMEE_GRPC_PORT: cannot listen on {address}; it is in use, or not an address "
        "of this machine",
        field="grpc_port",
    )


def _model_path(name: str, version: str) -> str:
    return f"{PREFIX}/models/{name}" + (f"/versions/{version}" if version else "")


def _client(peer: str) -> tuple[str, int]:
    """Return address and port of a caller; ``peer`` is ``ipv4:127.0.0.1:5`` or ``ipv6:[::1]:5``."""
    address, _, port = unquote(peer).partition(":")[2].rpartition(":")
    return address.strip("[]") or "unknown", int(port) if port.isdigit() else 0


async def _abort_if_failed(context: Context, response: InProcessResponse) -> None:
    """End the call with the status and the message of an error."""
    if response.status < 400:
        return
    code = _CODES.get(response.status, grpc.StatusCode.INTERNAL)
    try:
        message = str(json.loads(response.body)["error"])
    except (ValueError, LookupError, TypeError):
        message = f"the gateway answered status {response.status}"
    trailing: tuple[tuple[str, str], ...] = ()
    if "retry-after" in response.headers:
        trailing = (("retry-after", response.headers["retry-after"]),)
    await context.abort(code, message, trailing)
