"""A large call tokenizes its texts off the event loop, and takes turns with other calls."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from mobile_client.options import RequestOptions
from mobile_client.service import INLINE_CHARS, SLICE_CHARS, MobileService
from shared.errors import InvalidInput
from shared.inference.tokenizer import EncodedText, TextEncoder
from tests.support.mobile import World, answered

LOCAL = RequestOptions(policy="mobile", mode="only-on-device", deadline_ms=60_000)
LONG = "word " * 800


class Encoded:
    """Records each text that is tokenized, with its thread; ``hold`` stops long ones."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, bool]] = []
        self.hold = threading.Event()
        self.hold.set()
        encode = TextEncoder.encode

        def recorded(encoder: TextEncoder, text: str, pair: str | None = None) -> EncodedText:
            on_loop = threading.current_thread() is threading.main_thread()
            if not on_loop:
                assert self.hold.wait(60)
            self.calls.append((text, on_loop))
            return encode(encoder, text, pair)

        patch.setattr(TextEncoder, "encode", recorded)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Encoded:
    return Encoded(monkeypatch)


def test_small_call_is_answered_while_a_large_one_is_tokenized(
    tmp_path: Path, encoded: Encoded
) -> None:
    async def work(mobile: MobileService) -> None:
        encoded.hold.clear()
        large = asyncio.ensure_future(mobile.classify([LONG] * 20, options=LOCAL))
        await asyncio.sleep(0)
        answered((await mobile.classify(["a fine film"], options=LOCAL))[0])
        assert not large.done()
        encoded.hold.set()
        assert len([answered(one) for one in await large]) == 20

    World(tmp_path).run(work)
    assert encoded.calls == [("a fine film", True)] + [(LONG, False)] * 20


def test_texts_of_few_characters_stay_on_the_event_loop(tmp_path: Path, encoded: Encoded) -> None:
    few = ["x" * 99] * (INLINE_CHARS // 99)

    async def work(mobile: MobileService) -> None:
        await mobile.classify(few, options=LOCAL)
        await mobile.classify([*few, "y" * 99], options=LOCAL)

    World(tmp_path).run(work)
    assert [on_loop for _, on_loop in encoded.calls] == [True] * len(few) + [False] * (len(few) + 1)


def test_large_calls_take_turns(tmp_path: Path, encoded: Encoded) -> None:
    texts = [[name + LONG[1:] for _ in range(12)] for name in "ab"]

    async def work(mobile: MobileService) -> None:
        await asyncio.gather(*(mobile.classify(call, options=LOCAL) for call in texts))

    World(tmp_path).run(work)
    order = [text[0] for text, _ in encoded.calls]
    each = SLICE_CHARS // len(LONG)
    assert "".join(order) == ("a" * each + "b" * each) * (12 // each)


def test_cancelled_call_stops_tokenizing(tmp_path: Path, encoded: Encoded) -> None:
    async def work(mobile: MobileService) -> None:
        encoded.hold.clear()
        large = asyncio.ensure_future(mobile.classify([LONG] * 100, options=LOCAL))
        await asyncio.sleep(0)
        large.cancel()
        with pytest.raises(asyncio.CancelledError):
            await large
        encoded.hold.set()

    World(tmp_path).run(work)
    assert len(encoded.calls) <= SLICE_CHARS // len(LONG)


def test_error_names_the_text_of_a_large_call(tmp_path: Path) -> None:
    texts = [LONG, LONG, "\u200b"]
    with pytest.raises(InvalidInput) as raised:
        World(tmp_path).run(lambda mobile: mobile.classify(texts, options=LOCAL))
    assert raised.value.field == "texts.2"
