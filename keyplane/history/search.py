"""The search for an order of one item's operations that explains every answer.

After Wing and Gong, *Testing and Verifying Concurrent Objects* (1993), with the memory of visited
configurations and the just-in-time order of Lowe, *Testing for Linearizability* (2017): operations
are put in order one by one; next may come any that began before the first one that is left has
ended, and nothing is tried twice from the same operations done and the same state.

What keeps it near linear on ordinary histories, and why each loses no order that matters:

* An operation that changes nothing and is allowed now is put next, without trying anything else.
  It may begin by now, and whatever follows in any order that works follows just as well after it.
* A value is put once, so a write may not replace one that a read has still to find; and versions
  rise, so a write waits for those of lower versions and for the reads that found them.
* A write nobody knows the outcome of is done only where another operation needs it at once. Take
  an order that works with the fewest such writes. If nothing up to the next write needs this one,
  the order works without it. If something does, whatever stands between the two does not, and could
  have been put before.
* What failed after the same operations and in the same state fails again if more writes of unknown
  outcome are used up, or versions have come further: both only forbid.
* Of such writes that differ in nothing an answer depends on, the earliest is taken: one that began
  earlier can stand wherever one that began later can.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

# Values are numbers in a search: these two, and one for each value that a read found.
ABSENT = 0
# Any value that no read found: only that there is an item, and perhaps its version, matters.
UNREAD = 1


class Action(enum.Enum):
    READ = "read"
    # A write whose condition did not hold; it changes nothing.
    REFUSED = "refused"
    PUT = "put"
    DELETE = "delete"
    # The loss of what was not synced.
    LOSS = "loss"


class State(NamedTuple):
    """version: of the item; 0 where there is none or nobody ever saw it. floor: highest version
    so far.
    """

    value: int
    version: int
    floor: int


@dataclass(slots=True)
class Step:
    """One operation, ready for the search.

    value: put or found. version: of a write, 0 where unknown. exists, version_equals, existed: as
    in `Operation`.
    after, after_open: places of required and bits of open steps that come before it in any order,
    other than by their times.
    alike: of open writes, the same for those that no answer can tell apart.
    """

    action: Action
    invoked_at: float
    ended_at: float
    value: int = ABSENT
    version: int = 0
    exists: bool | None = None
    version_equals: int | None = None
    existed: bool | None = None
    after: tuple[int, ...] = ()
    after_open: int = 0
    alike: tuple[object, ...] = ()

    @property
    def changes(self) -> bool:
        return self.action in (Action.PUT, Action.DELETE, Action.LOSS)

    @property
    def conditional(self) -> bool:
        return self.exists is not None or self.version_equals is not None

    def allowed(self, state: State) -> bool:
        """Whether the answer can be given in this state."""
        action = self.action
        if action is Action.READ:
            return state.value == self.value
        if action is Action.LOSS:
            return True
        if action is Action.REFUSED:
            return self._may_fail(state)
        if not self._may_hold(state):
            return False
        if self.existed is not None and self.existed is not (state.value != ABSENT):
            return False
        return not self.version or self.version > max(state.floor, self.version_equals or 0)

    def applied(self, state: State) -> State:
        """The state after a put or delete."""
        floor = max(state.floor, self.version, self.version_equals or 0)
        if self.action is Action.PUT:
            return State(self.value, self.version, floor)
        return State(ABSENT, 0, floor)

    def _may_hold(self, state: State) -> bool:
        present = state.value != ABSENT
        if self.exists is not None and self.exists is not present:
            return False
        wanted = self.version_equals
        if wanted is None:
            return True
        # A version nobody saw is above all before it; more is not known of it.
        return present and (wanted == state.version if state.version else wanted > state.floor)

    def _may_fail(self, state: State) -> bool:
        present = state.value != ABSENT
        if self.exists is not None and self.exists is not present:
            return True
        wanted = self.version_equals
        return wanted is not None and (not present or wanted != state.version)


class Configuration(NamedTuple):
    """How far one order has come.

    Done are the required steps below `base` and those whose bit, counted from `base`, is set in
    `ahead`; and the open steps whose bit is set in `used`.
    """

    base: int
    ahead: int
    used: int
    state: State


@dataclass(slots=True)
class Problem:
    """required: steps that took effect, by the time they began. open: writes that may have.

    readers: places of the reads that found a value. initial: states it may begin in.
    """

    required: Sequence[Step]
    open: Sequence[Step]
    readers: dict[int, tuple[int, ...]]
    initial: Sequence[State]


@dataclass(frozen=True, slots=True)
class Result:
    """explained: None when the search was given up. steps: configurations it looked at."""

    explained: bool | None
    steps: int


def search(problem: Problem, steps_max: int) -> Result:
    """Whether some order explains every required step."""
    run = _Search(problem)
    stack = [Configuration(0, 0, 0, state) for state in reversed(problem.initial)]
    seen: dict[tuple[int, int, int, int], list[tuple[int, int]]] = {}
    steps = 0
    while stack:
        here = run.absorb(stack.pop())
        if here.base == len(problem.required):
            return Result(True, steps)
        state = here.state
        tried = seen.setdefault((here.base, here.ahead, state.value, state.version), [])
        if any(used | here.used == here.used and floor <= state.floor for used, floor in tried):
            continue
        if steps >= steps_max:
            return Result(None, steps)
        steps += 1
        tried.append((here.used, state.floor))
        following = list(run.following(here))
        following.reverse()
        stack.extend(following)
    return Result(False, steps)


_Alike = list[tuple[int, Step]]


class _Search:
    def __init__(self, problem: Problem) -> None:
        self._required = problem.required
        self._open = problem.open
        self._readers = problem.readers
        losses = [n for n, step in enumerate(problem.required) if step.action is Action.LOSS]
        self._last_loss = losses[-1] if losses else -1
        self._initial = problem.initial
        # Open writes with their bits, by what tells them apart and by the value they leave.
        self._alike: dict[object, _Alike] = {}
        self._leaving: dict[int, list[_Alike]] = {}
        for n, step in enumerate(problem.open):
            if step.alike not in self._alike:
                group: _Alike = []
                self._alike[step.alike] = group
                self._leaving.setdefault(step.value, []).append(group)
            self._alike[step.alike].append((1 << n, step))

    def absorb(self, here: Configuration) -> Configuration:
        """Does what changes nothing and is allowed now, as far as it goes."""
        while True:
            before = here
            for place in self._candidates(here)[0]:
                step = self._required[place]
                if not step.changes and step.allowed(here.state):
                    here = self._done(here, place, here.state)
            if here is before:
                return here

    def following(self, here: Configuration) -> Iterator[Configuration]:
        """The configurations after one write more, the likeliest first."""
        required, state = self._required, here.state
        candidates, deadline = self._candidates(here)
        candidates.sort(key=lambda place: required[place].ended_at)
        keeps = self._must_keep(here)
        blocked = []
        for place in candidates:
            step = required[place]
            if not step.allowed(state):
                blocked.append(step)
            elif step.action is Action.LOSS:
                yield from self._after_loss(here, place)
            elif not keeps:
                yield self._done(here, place, step.applied(state))
        if not keeps:
            yield from self._with_open(here, blocked, deadline)

    def _with_open(
        self, here: Configuration, blocked: list[Step], deadline: float
    ) -> Iterator[Configuration]:
        """After one open write, where that allows what this state does not.

        blocked: required candidates that this state does not allow.
        """
        if not blocked:
            return
        state = here.state
        ready = self._ready(self._relevant(blocked), here, deadline)
        if any(
            not step.allowed(state) and _allows_any(step.applied(state), blocked)
            for _, step in ready
        ):
            # What is needed needs something before it, as its own condition does not hold.
            ready = self._ready(self._alike.values(), here, deadline)
            blocked = blocked + [step for _, step in ready if not step.allowed(state)]
        for bit, step in ready:
            if step.allowed(state):
                then = step.applied(state)
                if _allows_any(then, blocked):
                    yield here._replace(used=here.used | bit, state=then)

    def _relevant(self, blocked: Sequence[Step]) -> Iterable[_Alike]:
        """Open writes that can allow any of these; reads, the most of them, want one value each."""
        if all(step.action is Action.READ for step in blocked):
            values = {step.value for step in blocked}
            return [alike for value in values for alike in self._leaving.get(value, ())]
        return self._alike.values()

    def _ready(
        self, of: Iterable[_Alike], here: Configuration, deadline: float
    ) -> list[tuple[int, Step]]:
        """Of each group of open writes that nothing can tell apart the first that is left."""
        found = []
        for alike in of:
            for bit, step in alike:
                if step.invoked_at > deadline:
                    break
                if not here.used & bit and self._in_order(step, here):
                    found.append((bit, step))
                    break
        found.sort(key=lambda entry: entry[0])
        return found

    def _after_loss(self, here: Configuration, place: int) -> Iterator[Configuration]:
        """Nothing is lost, or the item is as some write before left it.

        Writes of unknown outcome count as done before, and as used up, if the item falls back to
        them. Which states an earlier loss has already taken is not remembered: rather too many
        histories are explained than one too few.
        """
        yield self._done(here, place, here.state)
        at = self._required[place].invoked_at
        found = dict.fromkeys((state, 0) for state in self._initial)
        for n, step in enumerate(self._required[: here.base + here.ahead.bit_length()]):
            if step.action in (Action.PUT, Action.DELETE) and self._is_done(here, n):
                found[_left_by(step), 0] = None
        for n, step in enumerate(self._open):
            if step.invoked_at <= at and self._in_order(step, here):
                left = _left_by(step)
                # What nobody read needs no accounting.
                found[left, 0 if left.value <= UNREAD else 1 << n] = None
        for state, bit in reversed(found):
            if state != here.state:
                yield self._done(here, place, state)._replace(used=here.used | bit)

    def _candidates(self, here: Configuration) -> tuple[list[int], float]:
        """Places of the required steps that may come next, by their times and by `after`, and the
        time by which the first of those that are left ends.
        """
        required, base, ahead = self._required, here.base, here.ahead
        found = []
        deadline = math.inf
        place, bits, count = base, ahead, len(required)
        while place < count:
            step = required[place]
            if step.invoked_at > deadline:
                break
            if not bits & 1:
                deadline = min(deadline, step.ended_at)
                if (not step.after and not step.after_open) or self._in_order(step, here):
                    found.append(place)
            bits >>= 1
            place += 1
        return found, deadline

    def _in_order(self, step: Step, here: Configuration) -> bool:
        if step.after_open & ~here.used:
            return False
        return all(self._is_done(here, place) for place in step.after)

    def _must_keep(self, here: Configuration) -> bool:
        """Whether a read has still to find what is there now, which never comes back."""
        if here.base <= self._last_loss and not self._is_done(here, self._last_loss):
            return False
        readers = self._readers.get(here.state.value, ())
        return not all(self._is_done(here, place) for place in readers)

    @staticmethod
    def _is_done(here: Configuration, place: int) -> bool:
        ahead = place - here.base
        return ahead < 0 or bool(here.ahead >> ahead & 1)

    @staticmethod
    def _done(here: Configuration, place: int, state: State) -> Configuration:
        ahead = here.ahead | 1 << (place - here.base)
        done = (~ahead & (ahead + 1)).bit_length() - 1
        return Configuration(here.base + done, ahead >> done, here.used, state)


def _left_by(step: Step) -> State:
    """The least that is certain once the item has fallen back to what a write left."""
    if step.action is Action.PUT:
        return State(step.value, step.version, step.version)
    return State(ABSENT, 0, 0)


def _allows_any(state: State, steps: Iterable[Step]) -> bool:
    return any(step.allowed(state) for step in steps)
