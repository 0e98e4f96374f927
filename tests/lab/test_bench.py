"""The benchmark: its client counts honestly, and everybody serves the same weights."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from shared.bundle.loading import Bundle, load_bundle
from shared.domain import LayerRange
from shared.inference.classifier import Classifier
from testbed.bench.bare import early_exit
from testbed.bench.cli import bench
from testbed.bench.client import Connection, arrivals, closed_loop, open_loop
from testbed.bench.page import page
from testbed.bench.peers import PEERS, environment
from testbed.bench.weights import read_encoder, write_fp32_bundle

TEXTS = ["a gripping, funny film", "dull and far too long", "it is not without charm"]


class Answers:
    """An HTTP server on loopback that answers from a script, one request after the other."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.turn = asyncio.Lock()
        self.hold = asyncio.Event()
        self.hold.set()
        self.arrived = asyncio.Semaphore(0)

    async def __aenter__(self) -> Answers:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self.server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def count(self, requests: int) -> None:
        for _ in range(requests):
            await self.arrived.acquire()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                self.arrived.release()
                async with self.turn:
                    await self.hold.wait()
                writer.write(self.answers[0] if len(self.answers) == 1 else self.answers.pop(0))
        except asyncio.IncompleteReadError:
            writer.close()


def plain(status: int = 200) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\n{}" % status


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"


def body(text: str) -> dict[str, str]:
    return {"text": text}


def test_both_kinds_of_answer_are_read_and_a_refusal_is_no_answer() -> None:
    async def ask() -> list[bool]:
        async with Answers(plain(), CHUNKED, plain(429), plain()) as server:
            connection = Connection(server.port, "/x")
            return [await connection.ask(body("a")) for _ in range(4)]

    assert asyncio.run(ask()) == [True, True, False, True]


def test_closed_loop_counts_refusals_apart() -> None:
    async def run() -> tuple[int, int]:
        async with Answers(plain(), plain(), plain(503)) as server:
            tally = await closed_loop(server.port, "/x", body, TEXTS, 2, 0.05)
            return len(tally.latencies), tally.errors

    answered, errors = asyncio.run(run())
    assert answered == 2
    assert errors >= 1


def test_open_loop_charges_a_stall_to_all_who_waited() -> None:
    async def run() -> tuple[int, float]:
        async with Answers(plain()) as server:
            server.hold.clear()
            times = [0.0, 0.01, 0.02, 0.03]

            sending = asyncio.create_task(open_loop(server.port, "/x", body, TEXTS, times))
            await server.count(len(times))  # all are sent though none was answered
            server.hold.set()
            tally = await sending
            return len(tally.latencies), max(tally.latencies) - min(tally.latencies)

    answered, spread = asyncio.run(run())
    assert answered == 4
    assert 0.01 < spread < 0.2  # the first waited longest: the latency counts from the intention


def test_arrivals_are_seeded_and_have_their_rate() -> None:
    times = arrivals(100, 50, seed=3)
    assert times == arrivals(100, 50, seed=3)
    assert times == sorted(times)
    assert len(times) == pytest.approx(5_000, rel=0.05)


def test_the_same_weights_in_fp32_answer_the_same(bundle: Bundle, tmp_path: Path) -> None:
    write_fp32_bundle(bundle, tmp_path / "fp32")
    layers = LayerRange(1, bundle.manifest.layers)
    shipped, fp32 = (Classifier(one, layers) for one in (bundle, load_bundle(tmp_path / "fp32")))
    rows = [shipped.encoder.encode(text) for text in TEXTS]
    for ours, theirs in zip(shipped.classify(rows, None), fp32.classify(rows, None), strict=True):
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=0.05)
        assert ours.label_index == theirs.label_index


def test_the_peers_encoder_is_the_bundles(bundle: Bundle) -> None:
    import torch

    encoder = read_encoder(bundle)
    classifier = Classifier(bundle, LayerRange(1, bundle.manifest.layers))
    row = classifier.encoder.encode(TEXTS[0])
    hidden_BTH, mask_BT = classifier.embeddings.first_hidden([row])
    for layer in range(1, bundle.manifest.layers + 1):
        hidden_BTH, _ = classifier.layers.run_layer(layer, hidden_BTH, mask_BT)
    with torch.inference_mode():
        theirs = encoder(input_ids=torch.tensor(row.ids_T)[None]).last_hidden_state[0].numpy()
    ours = hidden_BTH[0]
    cosine_T = (ours * theirs).sum(1) / (
        np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    )
    assert cosine_T.min() > 0.99


def test_early_exit_is_measured_against_all_layers(bundle: Bundle) -> None:
    found = early_exit(bundle.path, TEXTS, alpha=0.5, last=3, runs=2, batch=2)
    assert found["ratio_min"] <= found["ratio"] <= found["ratio_max"]


def test_nobody_asks_a_hub_and_ours_gets_its_settings(tmp_path: Path) -> None:
    for peer in PEERS:
        found = environment(peer, peer.variants[0], tmp_path, 1234, tmp_path)
        assert found["HF_HUB_OFFLINE"] == "1"
        assert ("DIMEE_PORT" in found) == (peer.venv is None)
        assert json.dumps(peer.body("a"))


def test_a_server_that_is_not_known_is_refused_with_the_choice(tmp_path: Path) -> None:
    data = tmp_path / "validation.jsonl"
    data.write_text('{"sentence": "fine", "label": 1}\n')
    result = CliRunner().invoke(bench, ["--data", str(tmp_path), "--only", "torchserve"])
    assert result.exit_code != 0
    assert "LitServe" in str(result.exception)


def test_the_page_has_every_part_that_was_measured() -> None:
    level = {"rps": 10.0, "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0, "errors": 0}
    level |= {"cpu_s_per_1000": 1.0, "peak_mb": 5.0}
    run = {"1": level, "8": level, "64": level}
    server = {
        "runs": [run],
        "median": run,
        "precision": "fp32",
        "variant": "a",
        "tried_rps_at_64": {"a": 10.0},
        "versions": {"x": "1"},
    }
    made = {
        "made_at": "now",
        "command": "dimee bench",
        "commit": "c",
        "bundle_id": "b",
        "runs": 1,
        "seconds": 1.0,
        "machine": {"cpu": "c", "cores": 2, "load_before": 0.0, "python": "3"},
    }
    report = {"servers": made | {"found": {"dimee": server, "other": server}}}
    report["bare"] = made | {"found": {"shipped": {"1": 1.0, "8": 2.0, "32": 3.0}}}
    text = page(report, "bench")
    assert "1.0 × other" in text
    assert "| shipped | 1 | 2 | 3 |" in text
    assert "Open loop" not in text
