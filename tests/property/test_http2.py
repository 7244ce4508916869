"""HTTP/2 for any input: frames survive the trip, the split of the stream does not matter, and no
bytes crash an end."""

from __future__ import annotations

import itertools

import http2_targets
from hpack import Encoder
from http2_targets import feed_server
from hypothesis import example, given, settings
from hypothesis import strategies as st
from raw_http2 import message, request_block

from wire.http2 import frames as h2
from wire.http2.blocks import BlockReader, TwoGenerations, block, literals
from wire.http2.metadata import (
    RequestHeads,
    Timeouts,
    from_base64,
    metadata_block,
    percent_encoded,
    request_head,
    response_head,
    to_base64,
    trailers,
)

FRAMES = st.builds(
    h2.Frame,
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, h2.STREAM_ID_MAX),
    st.binary(max_size=300),
)
NAMES = st.from_regex(rb"[a-z][a-z0-9_.-]{0,20}", fullmatch=True)
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=300)), max_size=12)


@given(st.lists(FRAMES, max_size=10), st.integers(0, 20))
def test_frames_survive_the_trip_and_a_cut_one_is_left_out(
    sent: list[h2.Frame], missing: int
) -> None:
    data = b"".join(h2.frame(*each) for each in sent)
    assert list(h2.frames(data)) == sent
    cut = data[: max(0, len(data) - missing)]
    got = list(h2.frames(cut))
    assert got == sent[: len(got)]


@given(FIELDS)
def test_our_blocks_read_the_same_by_us_and_by_the_library(
    fields: list[tuple[bytes, bytes]],
) -> None:
    data = block(fields)
    assert BlockReader().fields(data) == fields
    quick = literals(data, 0)
    if quick is not None:
        assert [field for field, _ in quick] == fields
        assert not quick or quick[-1][1] == len(data)


@given(st.binary(max_size=200))
def test_whatever_the_quick_reader_reads_the_library_reads_too(data: bytes) -> None:
    """The quick reader only ever gives up; it never disagrees."""
    quick = literals(data, 0)
    if quick is not None:
        reader = BlockReader()
        assert reader.fields(b"\x20" + data) == [field for field, _ in quick]


@given(FIELDS, st.booleans())
def test_blocks_of_other_encoders_are_read(fields: list[tuple[bytes, bytes]], empty: bool) -> None:
    encoder, reader = Encoder(), BlockReader()
    if empty:
        encoder.header_table_size = 0
    for _ in range(2):
        assert reader.fields(encoder.encode(fields)) == fields
    assert reader.stateless == empty


METADATA = st.lists(
    st.tuples(
        st.from_regex(r"(x|trace|a)[a-z0-9_]{0,5}", fullmatch=True),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200),
    ),
    max_size=4,
)


@given(st.lists(st.tuples(METADATA, st.sampled_from([0.05, 1.5, 20.0, 400.0])), max_size=8))
def test_what_is_remembered_of_blocks_never_changes_what_they_say(
    calls: list[tuple[list[tuple[str, str]], float]],
) -> None:
    heads, timeouts, reader = RequestHeads(), Timeouts(), BlockReader()
    reader.fields(b"\x20" + request_block())
    for metadata, timeout_s in calls * 3:
        data = request_block() + timeouts.field(timeout_s) + metadata_block(metadata)
        got = heads.read(reader, data)
        plain = request_head(BlockReader().fields(data))
        assert (got.method, got.timeout_s, got.metadata) == (
            plain.method,
            plain.timeout_s,
            plain.metadata,
        )
        assert got.user_fields() == plain.user_fields()
        assert timeout_s <= got.timeout_s * (1 + 1e-9) <= timeout_s * 1.011 + 2e-4


@given(st.integers(0, 16), st.text(max_size=100), st.binary(max_size=100))
def test_a_status_survives_the_trip(code: int, text: str, details: bytes) -> None:
    text = text.encode("utf-8", "replace").decode()
    head = response_head(BlockReader().fields(trailers(code, text, details)))
    assert (head.code, head.message, head.details) == (code, text, details)
    assert percent_encoded(text).isascii()


@given(st.binary(max_size=100))
def test_base64_survives_with_and_without_padding(data: bytes) -> None:
    text = to_base64(data)
    assert from_base64(text) == data == from_base64(text + b"=" * (-len(text) % 4))


@given(st.lists(st.integers(0, 50), max_size=300))
def test_a_cache_of_two_generations_is_bounded_and_never_wrong(keys: list[int]) -> None:
    cache: TwoGenerations[int] = TwoGenerations(16)
    for key in keys:
        name = b"%d" % key
        assert cache.get(name) in (None, key)
        cache.put(name, key)
        assert cache.get(name) == key
        assert len(cache) <= 16


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(at)]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.binary(max_size=400), min_size=1, max_size=5),
    st.lists(st.integers(0, 10_000), max_size=30),
    st.integers(1, 200),
)
def test_any_split_of_the_stream_gives_the_same_calls(
    payloads: list[bytes], cuts: list[int], frame_bytes: int
) -> None:
    data = h2.PREFACE + h2.settings_frame(())
    for number, payload in enumerate(payloads):
        stream = 2 * number + 1
        lead = b"\x20" if not number else b""
        data += h2.frame(h2.HEADERS, h2.END_HEADERS, stream, lead + request_block())
        body = message(payload)
        for at in range(0, len(body), frame_bytes):
            last = at + frame_bytes >= len(body)
            data += h2.frame(h2.DATA, int(last), stream, body[at : at + frame_bytes])
    seen, wire, _ = feed_server(split(data, cuts))
    assert seen == [("/T/Echo", payload) for payload in payloads]
    answered = b"".join(
        each.payload for each in h2.frames(bytes(wire.written)) if each.kind == h2.DATA
    )
    assert answered == b"".join(message(payload) for payload in payloads)


SANE = st.sampled_from(
    [
        h2.frame(h2.HEADERS, h2.END_HEADERS, 1, request_block()),
        h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 3, request_block()),
        h2.frame(h2.HEADERS, 0, 5, request_block()[:10]),
        h2.frame(h2.DATA, h2.END_STREAM, 1, message(b"x")),
        h2.frame(h2.DATA, 0, 1, message(b"x")[:3]),
        h2.frame(h2.RST_STREAM, 0, 1, bytes(4)),
        h2.window_update_frame(0, 1000),
        h2.window_update_frame(1, 2**31 - 1),
        h2.settings_frame([(h2.INITIAL_WINDOW_SIZE, 0)]),
        h2.goaway_frame(0, h2.ErrorCode.NO_ERROR),
    ]
)
NOISE = st.lists(st.one_of(SANE, FRAMES.map(lambda each: h2.frame(*each)), st.binary(max_size=50)))


@settings(deadline=None, max_examples=150)
@given(NOISE, st.booleans(), st.lists(st.integers(0, 5000), max_size=10))
# An answer that waits for its turn, and a fault in the same piece: the answer goes first.
@example(
    [
        h2.frame(h2.HEADERS, h2.END_HEADERS, 1, request_block("/T/Echo")),
        h2.frame(h2.DATA, h2.END_STREAM, 1, message(b"x")),
        h2.frame(h2.DATA, 0, 0, b""),
    ],
    True,
    [],
)
def test_no_bytes_crash_a_server_and_a_closed_connection_said_why(
    noise: list[bytes], greet: bool, cuts: list[int]
) -> None:
    greeting = h2.PREFACE + h2.settings_frame(()) if greet else b""
    _, wire, connection = feed_server(split(greeting + b"".join(noise), cuts))
    http2_targets.check_end(wire, connection)


@settings(deadline=None, max_examples=100)
@given(NOISE, st.integers(0, 255))
def test_no_bytes_crash_a_client_and_every_call_ends_once(noise: list[bytes], cut: int) -> None:
    http2_targets.client(bytes((cut,)) + b"".join(noise))


@given(st.binary(max_size=300))
def test_random_blocks_end_in_a_fault_or_a_head(data: bytes) -> None:
    http2_targets.blocks(data)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(http2_targets.TARGETS)), st.binary(max_size=300))
def test_the_fuzzer_finds_nothing_in_a_few_inputs(target: str, data: bytes) -> None:
    http2_targets.TARGETS[target](data)
