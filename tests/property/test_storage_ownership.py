"""Whatever happens to it, an ownership table tells one truth about every hash."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import KEYSPACE_END, Partition
from storage.memory import MemoryEngine
from storage.ownership import Holding, Move, NodeRef, OwnershipTable, State
from storage.records import delete_holding, load_holdings, put_holding
from wire.memory import VirtualClock
from wire.ports import Batch

HERE = NodeRef("here", "here:1")
THERE = NodeRef("there", "there:1")
TABLE_ID = 1


PICKS = st.integers(0, 1_000)


class OwnershipMachine(RuleBasedStateMachine):
    """One node's table beside a model: for every id the state it must be in. Another node exists
    only as the other end of moves, and serves whatever has moved there unchanged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.engine = MemoryEngine(self.clock)
        self.table = OwnershipTable(HERE)
        self.states: dict[int, State] = {}
        # What the other node serves, by id.
        self.away: dict[int, Partition] = {}
        self.last_id = 1
        self.runs = 0
        whole = Partition(1, TABLE_ID, 0, KEYSPACE_END, 1, HERE.node_id)
        self.become(Holding.opened(whole, "create"))

    def new_id(self) -> int:
        self.last_id += 1
        return self.last_id

    def become(self, *holdings: Holding, removed: tuple[int, ...] = ()) -> None:
        """Makes a change as the node does: on disk, then in memory."""
        self.table.check(holdings, removed)
        batch = Batch()
        for partition_id in removed:
            delete_holding(batch, partition_id)
            self.states.pop(partition_id, None)
        for holding in holdings:
            put_holding(batch, holding)
            self.states[holding.partition.partition_id] = holding.state
        self.engine.commit(batch, True, lambda _: None)
        self.clock.run_for(1)
        self.table.install(holdings, removed)

    def in_state(self, *states: State) -> list[Holding]:
        found = [holding for holding in self.table if holding.state in states]
        return sorted(found, key=lambda holding: holding.partition.partition_id)

    def pick(self, number: int, *states: State) -> Holding:
        candidates = self.in_state(*states)
        return candidates[number % len(candidates)]

    # --- What may happen -----------------------------------------------------------------------

    @precondition(lambda self: self.in_state(State.SERVING))
    @rule(number=PICKS, share=st.floats(0.01, 0.99))
    def split(self, number: int, share: float) -> None:
        holding = self.pick(number, State.SERVING)
        parent = holding.partition
        cut = parent.start + int((parent.end - parent.start) * share)
        if not parent.start < cut < parent.end:
            return
        children = tuple(
            Partition(self.new_id(), TABLE_ID, start, end, parent.epoch + 1, HERE.node_id)
            for start, end in ((parent.start, cut), (cut, parent.end))
        )
        self.become(
            holding.become_retired("split", children),
            *(Holding.opened(child, "split") for child in children),
        )

    @precondition(lambda self: len(self.in_state(State.SERVING)) > 1)
    @rule(number=PICKS)
    def merge(self, number: int) -> None:
        serving = sorted(self.in_state(State.SERVING), key=lambda each: each.partition.start)
        left = serving[number % (len(serving) - 1)]
        right = serving[number % (len(serving) - 1) + 1]
        one, other = left.partition, right.partition
        if one.end != other.start:
            return
        epoch = max(one.epoch, other.epoch) + 1
        merged = Partition(self.new_id(), TABLE_ID, one.start, other.end, epoch, HERE.node_id)
        self.become(
            left.become_retired("merge", (merged,)),
            right.become_retired("merge", (merged,)),
            Holding.opened(merged, "merge"),
        )

    @precondition(lambda self: self.in_state(State.SERVING))
    @rule(number=PICKS)
    def begin_to_move_away(self, number: int) -> None:
        self.runs += 1
        holding = self.pick(number, State.SERVING)
        self.become(holding.become_moving(Move("move", self.runs, THERE)))

    @precondition(lambda self: self.in_state(State.SERVING))
    @rule(number=PICKS)
    def hand_over(self, number: int) -> None:
        holding = self.pick(number, State.SERVING)
        if holding.move is not None and holding.move.operation_id == "move":
            self.become(holding.become_handover())

    @precondition(lambda self: self.in_state(State.HANDOVER))
    @rule(number=PICKS)
    def be_told_that_the_target_is_active(self, number: int) -> None:
        holding = self.pick(number, State.HANDOVER)
        moved = replace(
            holding.partition,
            epoch=holding.partition.epoch + 1,
            leader=THERE.node_id,
            replicas=(THERE.node_id,),
        )
        self.away[moved.partition_id] = moved
        self.become(holding.become_retired("move", (moved,), (THERE,), holding.move))

    @precondition(lambda self: self.away)
    @rule(number=PICKS)
    def receive(self, number: int) -> None:
        """Of something that went away."""
        partition = sorted(self.away.values(), key=lambda each: each.partition_id)[
            number % len(self.away)
        ]
        coming = replace(
            partition,
            epoch=partition.epoch + 1,
            leader=HERE.node_id,
            replicas=(HERE.node_id,),
        )
        before = self.table.get(coming.partition_id)
        if self.table.live_within(TABLE_ID, coming.start, coming.end):
            return
        assert before is not None
        self.runs += 1
        move = Move("back", self.runs, THERE)
        self.become(Holding.incoming(coming, move, before.become_released()))

    @precondition(lambda self: self.in_state(State.INCOMING))
    @rule(number=PICKS)
    def confirm(self, number: int) -> None:
        self.become(self.pick(number, State.INCOMING).become_confirmed(float("-inf")))

    @precondition(lambda self: self.in_state(State.CONFIRMED))
    @rule(number=PICKS)
    def activate(self, number: int) -> None:
        holding = self.pick(number, State.CONFIRMED)
        del self.away[holding.partition.partition_id]
        self.become(holding.become_serving())

    @precondition(lambda self: self.in_state(State.INCOMING, State.CONFIRMED))
    @rule(number=PICKS)
    def abandon(self, number: int) -> None:
        before = self.pick(number, State.INCOMING, State.CONFIRMED).become_abandoned()
        assert before is not None
        self.become(before)

    @precondition(lambda self: self.in_state(State.RETIRED))
    @rule(number=PICKS)
    def release(self, number: int) -> None:
        self.become(self.pick(number, State.RETIRED).become_released())

    @rule(bounds=st.tuples(st.integers(0, KEYSPACE_END), st.integers(0, KEYSPACE_END)))
    def intrude(self, bounds: tuple[int, int]) -> None:
        """I1: a second live partition over any part of a live one is refused and not made."""
        start, end = min(bounds), max(bounds)
        if start == end:
            return
        overlapping = [
            holding
            for holding in self.table
            if holding.live and holding.partition.start < end and start < holding.partition.end
        ]
        before = list(self.table)
        intruder = Partition(self.last_id + 1000, TABLE_ID, start, end, 99, HERE.node_id)
        try:
            self.table.install([Holding.opened(intruder, "intrude")])
        except KeyplaneError as error:
            assert error.reason is Reason.ILLEGAL_TRANSITION
            assert overlapping
        else:
            assert not overlapping
            self.table.install([], [intruder.partition_id])
        assert list(self.table) == before

    @rule()
    def restart(self) -> None:
        """What is loaded is what was there."""
        loaded = OwnershipTable(HERE)
        loaded.install(load_holdings(self.engine))

        def by_id(holding: Holding) -> int:
            return holding.partition.partition_id

        assert sorted(loaded, key=by_id) == sorted(self.table, key=by_id)
        self.table = loaded

    # --- What must always hold -----------------------------------------------------------------

    @invariant()
    def states_are_those_of_the_model(self) -> None:
        found = {holding.partition.partition_id: holding.state for holding in self.table}
        assert found == self.states

    @invariant()
    def live_holdings_and_gaps_tile_the_keyspace(self) -> None:
        pieces = [
            (holding.partition.start, holding.partition.end)
            for holding in self.table.live_within(TABLE_ID, 0, KEYSPACE_END)
        ]
        pieces = sorted(pieces + self.table.gaps(TABLE_ID, 0, KEYSPACE_END))
        assert pieces[0][0] == 0
        assert pieces[-1][1] == KEYSPACE_END
        assert all(one[1] == other[0] for one, other in pairwise(pieces))

    @invariant()
    def hints_name_exactly_who_serves(self) -> None:
        """Following them leads past everything that retired here, and to known addresses. This
        node knows all there is to know, since what went away is unchanged.
        """
        serving = [each.partition for each in self.in_state(State.SERVING, State.HANDOVER)]
        truth = serving + list(self.away.values())
        for holding in self.table:
            partition = holding.partition
            hint = self.table.hint(holding)
            found = {Partition.from_proto(each) for each in hint.partitions}
            assert found == {each for each in truth if each.overlaps(partition)}
            assert {each.leader for each in found} <= {node.node_id for node in hint.nodes}


OwnershipMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
TestOwnership = OwnershipMachine.TestCase
