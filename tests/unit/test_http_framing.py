"""Heads and bodies of HTTP requests: which are accepted, and where they end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import BadRequest, HeadTooLarge, InvalidInput
from shared.serving.http_framing import (
    CHUNKS,
    HEAD_BYTES,
    HEADERS,
    ChunkedBody,
    check_partial_head,
    read_head,
)


def head(*lines: str, first: str = "POST /v1/infer HTTP/1.1") -> bytes:
    return "\r\n".join([first, "host: tier", *lines, "", ""]).encode("latin-1")


@pytest.mark.parametrize(
    ("lines", "body_bytes"),
    [
        ([], 0),
        (["content-length: 12"], 12),
        (["Content-Length:12\t "], 12),
        (["CONTENT-LENGTH: 0012"], 12),
        (["Transfer-Encoding: Chunked"], None),
        (["x-content-length: 5", "content-length: 1", "x: a : b"], 1),
    ],
)
def test_length_of_the_body(lines: list[str], body_bytes: int | None) -> None:
    sent = head(*lines)
    for _ in range(2):  # the second time from memory
        found = read_head(sent)
        assert found.body_bytes == body_bytes
        assert found.data == sent


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (head("content-length: 1", "content-length: 1"), "more than once"),
        (head("content-length: 1", "content-length: 2"), "more than once"),
        (head("content-length: 1", "x: 1", "Content-length:1"), "more than once"),
        (head("content-length: 1, 1"), "one number"),
        (head("content-length: +1"), "one number"),
        (head("content-length: 0x10"), "one number"),
        (head("content-length: "), "one number"),
        (head("content-length: \xb2"), "one number"),
        (head("content-length: " + "9" * 19), "one number"),
        (head("content-length: 1", "transfer-encoding: chunked"), "send one"),
        (head("transfer-encoding: chunked", "content-length: 1"), "send one"),
        (head("transfer-encoding: chunked", "transfer-encoding: chunked"), "once"),
        (head("transfer-encoding: gzip, chunked"), "only chunked"),
        (head("transfer-encoding: xchunked"), "only chunked"),
        (head("transfer-encoding: \x0bchunked"), "only chunked"),
        (head("transfer-encoding: chunked", first="POST / HTTP/1.0"), "needs HTTP/1.1"),
        (head("x-a: 1", " content-length: 5"), "space"),
        (head("x-a: 1", "\tfolded"), "space"),
        (head("content-length : 5"), "space"),
        (head("x-a: 1\ncontent-length: 5"), "CR LF"),
        (head("x-a: 1\rcontent-length: 5"), "CR LF"),
        (head(first="CONNECT tier:80 HTTP/1.1"), "no proxy"),
    ],
)
def test_ambiguous_heads_are_refused(data: bytes, error: str) -> None:
    for _ in range(2):
        with pytest.raises(BadRequest, match=error) as raised:
            read_head(data)
        assert raised.value.status == 400


@pytest.mark.parametrize("offer", ["h2c", "websocket", "TLS/1.2, HTTP/1.1"])
def test_offers_of_other_protocols_are_removed(offer: str) -> None:
    sent = head(
        f"Upgrade: {offer}",
        "Connection: Upgrade, HTTP2-Settings",
        "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
        "content-length: 7",
    )
    read_head(sent)
    found = read_head(bytes(bytearray(sent)))  # from memory
    assert found.body_bytes == 7
    assert found.data == head("Connection: Upgrade, HTTP2-Settings", "content-length: 7")


def test_size_and_number_of_headers_are_limited() -> None:
    most = [f"x-{n}: 1" for n in range(HEADERS - 1)]
    assert read_head(head(*most)).body_bytes == 0
    with pytest.raises(HeadTooLarge) as raised:
        read_head(head(*most, "x-more: 1"))
    assert raised.value.status == 431
    largest = HEAD_BYTES - len(head("x-a: "))
    read_head(head("x-a: " + "a" * largest))
    with pytest.raises(HeadTooLarge):
        read_head(head("x-a: " + "a" * (largest + 1)))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"G" * (HEAD_BYTES + 1), HeadTooLarge),
        (b"GET / HTTP/1.1\n\n", BadRequest),
        (b"GET / HTTP/1.1\r\nx: 1\n", BadRequest),
        (b"GET / HTTP/1.1\rx", BadRequest),
        (b"GET / HTTP/1.1\r", None),
        (b"GET / HTTP/1.1\r\nx: 1\r\n\r", None),
    ],
)
def test_partial_heads(data: bytes, error: type[InvalidInput] | None) -> None:
    checks = [lambda: check_partial_head(data), lambda: check_in_single_bytes(data)]
    for check in checks:
        if error is None:
            check()
        else:
            with pytest.raises(error):
                check()


def check_in_single_bytes(data: bytes) -> None:
    for size in range(1, len(data) + 1):
        check_partial_head(data[:size], checked=size - 1)


def test_partial_head_is_not_searched_again() -> None:
    check_partial_head(b"GET / HTTP/1.1\n" + b"a" * 100, checked=100)


def feed(data: bytes, step: int) -> tuple[bool, int]:
    """Feed pieces of ``step`` bytes; return whether the body is complete, and its bytes."""
    body, taken = ChunkedBody(), 0
    for start in range(0, len(data), step):
        piece = data[start : start + step]
        used = body.feed(piece)
        taken += used
        if used < len(piece):
            break
    return body.complete, taken


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=200), max_size=6),
    step=st.integers(1, 100),
    rest=st.binary(max_size=20),
)
def test_end_of_chunked_bodies_is_found_in_any_pieces(
    pieces: list[bytes], step: int, rest: bytes
) -> None:
    body = b"".join(b"%x;name=value\r\n%b\r\n" % (len(one), one) for one in pieces)
    body += b"0\r\n\r\n"
    assert feed(body + rest, step) == (True, len(body))
    assert feed(body[:-1], step)[0] is False


@pytest.mark.parametrize(
    "body",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"x\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x5\r\nhello\r\n",
        b"5 5\r\nhello\r\n",
        b"123456789\r\n",
        b"5" + b";a" * 40 + b"\r\n",
        b"0\r\ncontent-length: 5\r\n\r\n",
        b"1\r\na\r\n" * (CHUNKS + 1),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 10**6])
def test_ambiguous_or_tiny_chunks_are_refused(body: bytes, step: int) -> None:
    with pytest.raises(BadRequest):
        feed(body, step)
