"""Servers to compare: dimee and other inference servers, each with the settings to try."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.domain import InputText

Body = Callable[[InputText], dict[str, Any]]
SERVERS = Path(__file__).parent / "servers"
TORCH = "torch==2.13.0"


@dataclass(frozen=True)
class Variant:
    """Settings of a server: a name, environment variables and command-line arguments."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Peer:
    """A server of the same encoder.

    ``command`` gets the interpreter of its virtual environment, a port, a variant and the model's
    folder. ``installs`` are the arguments of the calls of pip that make that environment; a server
    without ``venv`` runs in this one. ``model`` is a name of `testbed.bench.setup.make_models`.
    """

    name: str
    precision: str
    command: Callable[[Path, int, Variant, Path], list[str]]
    path: str
    body: Body
    model: str
    variants: tuple[Variant, ...]
    venv: str | None = None
    installs: tuple[tuple[str, ...], ...] = ()
    packages: tuple[str, ...] = ()

    @property
    def takes_pairs(self) -> bool:
        """True if a request may have a second text."""
        return self.body is not _openai_body


def _text_body(text: InputText) -> dict[str, Any]:
    return {"text": text.text} if text.pair is None else {"text": text.text, "pair": text.pair}


def _openai_body(text: InputText) -> dict[str, Any]:
    return {"model": "any", "input": [text.text]}


def _attempt_body(text: InputText) -> dict[str, Any]:
    return {
        "request_id": uuid.uuid4().hex,
        "attempt_id": uuid.uuid4().hex,
        **_text_body(text),
        "deadline_ms": 60_000,
    }


def _dimee(python: Path, port: int, variant: Variant, model: Path) -> list[str]:
    return [str(python), "-m", "cloud_server"]


def _plain(python: Path, port: int, variant: Variant, model: Path) -> list[str]:
    uvicorn = [str(python), "-m", "uvicorn", "plain:app", "--app-dir", str(SERVERS)]
    return [*uvicorn, "--port", str(port), "--log-level", "error", *variant.arguments]


def _script(name: str) -> Callable[[Path, int, Variant, Path], list[str]]:
    def command(python: Path, port: int, variant: Variant, model: Path) -> list[str]:
        return [str(python), str(SERVERS / name), str(port)]

    return command


def _infinity(engine: str) -> Callable[[Path, int, Variant, Path], list[str]]:
    def command(python: Path, port: int, variant: Variant, model: Path) -> list[str]:
        serve = [str(python.with_name("infinity_emb")), "v2", "--model-id", str(model)]
        serve += ["--engine", engine, "--device", "cpu", "--host", "127.0.0.1"]
        return [*serve, "--port", str(port), "--no-model-warmup", *variant.arguments]

    return command


def _threads(threads: int, workers: int, *arguments: str) -> Variant:
    count = str(threads)
    environment = {"BENCH_THREADS": count, "BENCH_WORKERS": str(workers), "OMP_NUM_THREADS": count}
    return Variant(f"{workers} workers, {threads} threads", environment, arguments)


def _batch(size: int, *arguments: str) -> Variant:
    name = " ".join(["batch", str(size), *(argument.removeprefix("--") for argument in arguments)])
    return Variant(name, {}, ("--batch-size", str(size), *arguments))


# The other servers do not limit their queue. On slow machines 64 callers exceed our default.
OURS = (
    Variant("as shipped"),
    Variant("DIMEE_MAX_QUEUE_MS=10000", {"DIMEE_MAX_QUEUE_MS": "10000"}),
)
PEERS = (
    Peer("dimee", "shipped", _dimee, "/v1/infer", _attempt_body, "shipped", OURS),
    Peer("dimee fp32", "fp32", _dimee, "/v1/infer", _attempt_body, "fp32", OURS),
    Peer(
        "FastAPI + transformers",
        "fp32",
        _plain,
        "/classify",
        _text_body,
        "transformers",
        (_threads(2, 1), _threads(1, 1), _threads(1, 2, "--workers", "2")),
        "plain",
        ((TORCH,), (TORCH, "transformers", "fastapi", "uvicorn[standard]")),
        ("fastapi", "uvicorn", "torch", "transformers"),
    ),
    Peer(
        "LitServe",
        "fp32",
        _script("lit.py"),
        "/predict",
        _text_body,
        "transformers",
        (_threads(2, 1), _threads(1, 2)),
        "litserve",
        ((TORCH,), (TORCH, "transformers", "litserve")),
        ("litserve", "torch", "transformers"),
    ),
    Peer(
        "Ray Serve",
        "fp32",
        _script("ray_serve.py"),
        "/classify",
        _text_body,
        "transformers",
        (_threads(2, 1), _threads(1, 2)),
        "ray",
        ((TORCH,), (TORCH, "transformers", "ray[serve]")),
        ("ray", "torch", "transformers"),
    ),
    Peer(
        "infinity (torch)",
        "fp32",
        _infinity("torch"),
        "/classify",
        _openai_body,
        "transformers",
        (_batch(32, "--no-bettertransformer"), _batch(8, "--no-bettertransformer")),
        "infinity",
        ((TORCH,), (TORCH, "infinity-emb[torch,server]")),
        ("infinity-emb", "torch", "transformers"),
    ),
    Peer(
        "infinity (optimum)",
        "fp32",
        _infinity("optimum"),
        "/classify",
        _openai_body,
        "onnx",
        (_batch(32), _batch(8)),
        "optimum",
        (
            (TORCH,),
            # Newer versions of optimum do not find the file of a local model.
            (TORCH, "infinity-emb[optimum,server,torch]", "optimum==1.24.0"),
            # The numpy of these packages is too old for pyarrow 24.
            ("transformers==4.48.3", "pyarrow<24"),
        ),
        ("infinity-emb", "optimum", "onnxruntime", "transformers"),
    ),
    Peer(
        "infinity (optimum, int8)",
        "dynamic int8, a scale a batch",
        _infinity("optimum"),
        "/classify",
        _openai_body,
        "onnx-int8",
        (_batch(32), _batch(8)),
        "optimum",
        packages=("infinity-emb", "optimum", "onnxruntime", "transformers"),
    ),
)
"""dimee comes first. With the last server, an answer depends on the other texts of its batch."""


def interpreter(peer: Peer, venvs: Path) -> Path:
    """Return the Python interpreter that runs a peer."""
    return Path(sys.executable) if peer.venv is None else venvs / peer.venv / "bin" / "python"


def environment(
    peer: Peer, variant: Variant, model: Path, port: int, state: Path
) -> dict[str, str]:
    """Return the environment variables of a server's process."""
    common = os.environ | {"BENCH_MODEL": str(model), "TOKENIZERS_PARALLELISM": "false"}
    # No server may contact a model hub or report its use.
    common |= {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    if peer.venv is not None:
        return common | {"INFINITY_ANONYMOUS_USAGE_STATS": "0", **variant.environment}
    ours = {"DIMEE_BUNDLE": str(model), "DIMEE_PORT": str(port), "DIMEE_STATE_DIR": str(state)}
    # Nothing listens on port 9: entries stay in the outbox, as when the ledger is down.
    return common | ours | {"DIMEE_LEDGER_URL": "http://127.0.0.1:9", **variant.environment}


def versions(peer: Peer, venvs: Path) -> dict[str, str]:
    """Return the versions of a peer's packages."""
    packages = peer.packages or ("onnxruntime", "fastapi", "uvicorn", "tokenizers")
    code = (
        "import importlib.metadata as m, json, sys;"
        "print(json.dumps({p: m.version(p) for p in sys.argv[1:]}))"
    )
    printed = subprocess.check_output([str(interpreter(peer, venvs)), "-c", code, *packages])
    return dict(json.loads(printed))
