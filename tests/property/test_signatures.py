"""Replays and signatures: what is admitted once is never admitted again, whatever comes when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cache.callers import CLOCK_SKEW_S, SIGNERS_PER_KEY_MAX, Callers, operator
from cache.replays import WINDOW_CALLS, Window
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.signature import HEADER, VALUE_CHARS, Signer, read_signature
from wire.memory import VirtualClock
from wire.ports import Request

# Near each other, far apart, and about the edge of the window.
STEPS = st.one_of(
    st.integers(-40, 40),
    st.integers(-3 * WINDOW_CALLS, 3 * WINDOW_CALLS),
    st.sampled_from([WINDOW_CALLS + each for each in range(-33, 34)]),
    st.sampled_from([-WINDOW_CALLS + each for each in range(-33, 34)]),
)


@given(st.lists(STEPS, max_size=200), st.integers(0, 2**63))
def test_a_number_is_admitted_once_and_never_when_it_was_overtaken_by_too_many(
    steps: list[int], start: int
) -> None:
    """Against a memory of everything."""
    window, seen, top = Window(), set[int](), 0
    sequence = start
    for step in steps:
        sequence = min(max(0, sequence + step), 2**64 - 1)
        admitted = window.admit(sequence, 0)
        if sequence in seen:
            assert not admitted
        elif sequence > top - WINDOW_CALLS + 32:
            # A word of the window at its end may be gone already.
            assert admitted
        elif sequence <= top - WINDOW_CALLS - 32:
            assert not admitted
        if admitted:
            seen.add(sequence)
            top = max(top, sequence)


@given(st.text(max_size=200) | st.binary(max_size=120).map(lambda raw: raw.decode("latin-1")))
def test_no_header_breaks_the_reader(text: str) -> None:
    try:
        signature = read_signature(text.encode())
    except KeyplaneError as error:
        assert error.reason is Reason.BAD_SIGNATURE
    else:
        assert text.encode().startswith(signature.key_id)


@given(st.integers(0, VALUE_CHARS - 1), st.integers(0, 127))
def test_no_changed_character_is_taken(place: int, code: int) -> None:
    clock = VirtualClock()
    callers = Callers(clock, operator(b"s" * 32, "KPOPERATOR0000000000"))
    value = Signer("KPOPERATOR0000000000", b"s" * 32, clock.wall).value("/a/B", b"payload")
    changed = value[:place] + chr(code) + value[place + 1 :]
    request = Request("/a/B", b"payload", 1.0, metadata={HEADER: changed})
    try:
        callers.authenticate(request)
    except KeyplaneError:
        assert changed != value
    else:
        assert changed == value


@given(st.lists(st.tuples(st.integers(0, 20), st.floats(0, 40)), max_size=60))
def test_no_call_is_taken_twice_however_signers_come_and_go(calls: list[tuple[int, float]]) -> None:
    """With time passing, signers forgotten, and each call sent again later."""
    clock = VirtualClock()
    callers = Callers(clock, operator(b"s" * 32, "KPOPERATOR0000000000"))
    signers = [Signer("KPOPERATOR0000000000", b"s" * 32, clock.wall) for _ in range(21)]
    sent: list[str] = []
    for index, wait_s in calls:
        value = signers[index].value("/a/B", b"")
        callers.authenticate(Request("/a/B", b"", 1.0, metadata={HEADER: value}))
        sent.append(value)
        clock.run_for(wait_s)
        callers._sweep(int(clock.wall() * 1000))
        for old in sent:
            try:
                callers.authenticate(Request("/a/B", b"", 1.0, metadata={HEADER: old}))
            except KeyplaneError as error:
                assert error.reason in (Reason.REPLAYED, Reason.SIGNATURE_EXPIRED)
            else:
                raise AssertionError("it was taken twice")


def test_the_memory_of_signers_is_bounded() -> None:
    """One key cannot fill it: it is refused, and room comes with time."""
    clock = VirtualClock()
    callers = Callers(clock, operator(b"s" * 32, "KPOPERATOR0000000000"))

    def call() -> None:
        value = Signer("KPOPERATOR0000000000", b"s" * 32, clock.wall).value("/a/B", b"")
        callers.authenticate(Request("/a/B", b"", 1.0, metadata={HEADER: value}))

    for _ in range(SIGNERS_PER_KEY_MAX):
        call()
    try:
        call()
    except KeyplaneError as error:
        assert error.reason is Reason.OVERLOADED
    else:
        raise AssertionError("it was taken")
    clock.run_for(CLOCK_SKEW_S + 1.0)
    for _ in range(SIGNERS_PER_KEY_MAX):
        call()
