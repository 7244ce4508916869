"""What the control plane writes down it reads back, and what it did not write it refuses."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import even_ranges
from metadata.capacity_changes import CapacityChanges
from metadata.change import EvenPartitions
from metadata.handlers.page_tokens import make_token, read_token
from metadata.operations import Operation, State
from metadata.plans import (
    CreatePlan,
    DeletePlan,
    DrainPlan,
    Kind,
    MergePlan,
    MergeStage,
    MovePlan,
    SplitPlan,
    UpdatePlan,
    plan_from_json,
    plan_to_json,
)
from metadata.records import OnDemand, Throughput

_ID = st.integers(1, 2**62)
_HASH = st.integers(0, 2**64 - 1)
_NODE = st.text("abc-1", min_size=1)
_UNITS = st.integers(0, 40_000)
_TIMES = st.lists(st.floats(0, 1e10), max_size=27).map(tuple)
PLANS = {
    Kind.CREATE_TABLE: st.builds(
        CreatePlan, _ID, st.integers(1, 10**6), st.lists(_NODE).map(tuple), st.text(), st.text()
    ),
    Kind.DELETE_TABLE: st.builds(DeletePlan),
    Kind.UPDATE_TABLE: st.builds(
        UpdatePlan,
        st.sampled_from([1, 2]),
        st.sampled_from([0, 1, 2, 3]),
        st.none() | st.builds(Throughput, _UNITS, _UNITS),
        st.none() | st.builds(OnDemand, _UNITS, _UNITS, _UNITS, _UNITS),
        st.none() | st.builds(CapacityChanges, _TIMES, _TIMES),
    ),
    Kind.SPLIT: st.builds(SplitPlan, st.none() | _HASH, _ID, _ID),
    Kind.MERGE: st.builds(MergePlan, _ID, st.sampled_from(MergeStage), _NODE),
    Kind.MOVE: st.builds(MovePlan, _NODE, st.text()),
    Kind.DRAIN: st.builds(DrainPlan, st.integers(0, 10**6)),
}


@given(st.data(), st.sampled_from(Kind))
def test_a_plan_survives_json(data: st.DataObject, kind: Kind) -> None:
    """Every kind's, with every hash and name."""
    plan = data.draw(PLANS[kind])
    assert plan_from_json(kind, json.loads(json.dumps(plan_to_json(plan)))) == plan


@given(st.text("tables"), st.binary(max_size=64))
def test_a_page_token_gives_its_position_back(listing: str, position: bytes) -> None:
    assert read_token(listing, make_token(listing, position)) == position


@given(st.text(max_size=100))
def test_text_that_is_no_token_is_refused(text: str) -> None:
    """Whatever it is; only the empty token is a first page."""
    if not text:
        assert read_token("tables", text) is None
        return
    with pytest.raises(KeyplaneError) as caught:
        read_token("tables", text)
    assert caught.value.reason is Reason.INVALID_ARGUMENT


@given(st.binary(max_size=64), st.data())
def test_a_token_with_a_changed_character_is_refused(position: bytes, data: st.DataObject) -> None:
    token = make_token("tables", position)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("AQgw_-09").filter(lambda c: c != token[at]))
    changed = token[:at] + other + token[at + 1 :]
    try:
        # Bits past the last byte mean nothing in base64, so a change there may leave it as it was.
        assert read_token("tables", changed) == position
    except KeyplaneError as error:
        assert error.reason is Reason.INVALID_ARGUMENT


@given(st.integers(1, 300), st.lists(_NODE, min_size=1, max_size=5, unique=True))
def test_partitions_of_a_new_table_are_the_even_ranges(size: int, nodes: list[str]) -> None:
    """In order, with rising ids, and each node gets an equal share."""
    made = EvenPartitions(7, 100, size, tuple(nodes))
    assert [(each.start, each.end) for each in made] == even_ranges(size)
    assert [each.partition_id for each in made] == list(range(100, 100 + size))
    shares = [made.of_node(node_id) for node_id in nodes]
    every = sorted((each for share in shares for each in share), key=lambda each: each.start)
    assert every == list(made) == made[:]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("state", list(State))
def test_only_the_allowed_transitions_exist(state: State) -> None:
    """Forward, never back, and never out of an end; anything else is ILLEGAL_TRANSITION."""
    operation = Operation(
        *("op", 1, Kind.MOVE, state, "", "", "orders", 1, (1,), "b", MovePlan("a"), 0.0, 0.0)
    )
    attempts = {
        State.RUNNING: lambda: operation.become_running(1.0),
        State.COMMITTED: lambda: operation.become_committed(1.0),
        State.SUCCEEDED: lambda: operation.become_succeeded(1.0),
        State.FAILED: lambda: operation.become_failed(1.0, "INTERNAL", "why"),
    }
    possible = set()
    for target, attempt in attempts.items():
        try:
            assert attempt().state is target
            possible.add(target)
        except KeyplaneError as error:
            assert error.reason is Reason.ILLEGAL_TRANSITION
    assert (
        possible
        == {
            State.PENDING: {State.RUNNING, State.FAILED},
            State.RUNNING: {State.RUNNING, State.COMMITTED, State.FAILED},
            State.COMMITTED: {State.SUCCEEDED},
            State.SUCCEEDED: set(),
            State.FAILED: set(),
        }[state]
    )
