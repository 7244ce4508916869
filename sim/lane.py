"""A lane of load: one request after another, drawn from the seed.

The n-th request of a lane depends on the lane's name and n alone. So a request can be left out, to
find the fewest that still fail, without changing the others.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from keyplane.client.core import query_request, scan_request
from keyplane.client.errors import BatchIncomplete
from keyplane.client.requests import Delete, Put, condition
from keyplane.history.operation import Kind, Outcome
from keyplane.history.recorder import outcome_of
from keyplane.model.errors import KeyplaneError
from keyplane.model.items import from_item
from sim.client import SimClient
from sim.history import under_way
from sim.workload import BATCH_KEYS, Key, name_of

if TYPE_CHECKING:
    from sim.load import Load

# Virtual seconds between two moments at which requests for the hot item are made.
_RUSH_S = 0.3


# Times as long between two requests where it is quiet.
_QUIET = 10.0


class Lane:
    """Does one request after another."""

    def __init__(self, load: Load, client: SimClient, name: str) -> None:
        self.name = name
        self.busy = False
        self._load = load
        self._world = load.world
        self._client = client
        self._number = 0
        self._made = 0
        self._rng = load.world.rng_of(f"lane {name}")
        self._kinds = list(load.spec.mix)
        self._weights = list(accumulate(load.spec.mix.values()))

    def next(self) -> None:
        """Draws the next request, and makes it after a pause."""
        rng = self._rng
        # Always as many draws, so that leaving a request out does not change those after it.
        pause, kind, what, dice = rng.random(), rng.random(), rng.random(), rng.getrandbits(32)
        self._number += 1
        number = self._number
        wait_s = 2 * self._load.spec.think_s * pause
        surge_s = self._load.spec.surge_s
        if surge_s and self._world.now % (2 * surge_s) > surge_s:
            wait_s *= _QUIET
        if what < self._load.spec.hot:
            now = self._world.now
            moment = max(math.ceil(now / _RUSH_S), round((now + wait_s) / _RUSH_S))
            wait_s = moment * _RUSH_S - now

        def make() -> None:
            if not self._load.going:
                return
            if f"{self.name}#{number}" in self._load.left_out:
                self.next()
                return
            self._make(
                self._kinds[bisect(self._weights, kind * self._weights[-1])],
                self._load.key_at(what, self._client.tenant),
                dice,
            )

        self._world.scheduler.after(wait_s, make)

    def _make(self, kind: str, key: Key, dice: int) -> None:
        self.busy = True
        self._load.requests += 1
        self._load.made.append(f"{self.name}#{self._number}")
        KINDS[kind](self, key, dice)

    def _done(self, began_at: float, error: KeyplaneError | None) -> None:
        now = self._world.now
        self.busy = False
        if error is None:
            self._load.latencies.append((began_at, now - began_at))
        else:
            self._load.failures.append((now, began_at, error))
        if self._load.going:
            self.next()

    def _value(self) -> str:
        """Something that nobody else writes."""
        self._made += 1
        return f"{self.name}#{self._number}.{self._made}"

    # --- one item -------------------------------------------------------------------------------

    def _get(self, key: Key, consistent: bool) -> None:
        kind = Kind.READ if consistent else Kind.STALE_READ
        at = self._world.now
        place = self._load.history.begin(under_way(self.name, key.name, kind, at))
        table, client = key.table.called, self._client

        def ended(answer: Any) -> None:
            if isinstance(answer, KeyplaneError):
                self._fail(place, at, answer)
                return
            value, version = (None, None) if answer is None else (answer.item["v"], answer.version)
            if version is not None:
                self._load.versions[key.name] = version
            self._succeed(place, at, value=value, version=version)

        timeout_s = self._load.spec.timeout_s
        client.run(client.core.get(client.now, table, key.attributes, consistent, timeout_s), ended)

    def _put(self, key: Key, exists: bool | None = None, version_equals: int | None = None) -> None:
        at, value = self._world.now, self._value()
        place = self._load.history.begin(
            under_way(
                self.name,
                key.name,
                Kind.PUT,
                at,
                value=value,
                exists=exists,
                version_equals=version_equals,
            )
        )
        client = self._client

        def ended(answer: Any) -> None:
            if isinstance(answer, KeyplaneError):
                self._fail(place, at, answer)
                return
            self._load.versions[key.name] = answer
            self._succeed(place, at, version=answer)

        call = client.core.put(
            client.now,
            key.table.called,
            {**key.attributes, "v": value},
            condition(exists, version_equals),
            self._load.spec.timeout_s,
        )
        client.run(call, ended)

    def _delete(self, key: Key, version_equals: int | None = None) -> None:
        at = self._world.now
        asked = under_way(self.name, key.name, Kind.DELETE, at, version_equals=version_equals)
        place = self._load.history.begin(asked)
        client = self._client

        def ended(answer: Any) -> None:
            if isinstance(answer, KeyplaneError):
                self._fail(place, at, answer)
            else:
                self._succeed(place, at, existed=answer)

        call = client.core.delete(
            client.now,
            key.table.called,
            key.attributes,
            condition(None, version_equals),
            self._load.spec.timeout_s,
        )
        client.run(call, ended)

    def put(self, key: Key, _: int) -> None:
        self._put(key)

    def get(self, key: Key, _: int) -> None:
        self._get(key, consistent=True)

    def get_stale(self, key: Key, _: int) -> None:
        self._get(key, consistent=False)

    def delete(self, key: Key, _: int) -> None:
        self._delete(key)

    def put_if_absent(self, key: Key, _: int) -> None:
        self._put(key, exists=False)

    def put_if_version(self, key: Key, _: int) -> None:
        version = self._load.versions.get(key.name)
        self._put(key, exists=True if version is None else None, version_equals=version)

    def delete_if_version(self, key: Key, _: int) -> None:
        self._delete(key, self._load.versions.get(key.name, 1))

    # --- several items --------------------------------------------------------------------------

    def batch_write(self, key: Key, dice: int) -> None:
        at, client, history = self._world.now, self._client, self._load.history
        table = key.table.called
        rng = random.Random(dice)
        keys = self._some(rng, key)
        places: dict[str, int] = {}
        writes: list[Put | Delete] = []
        for number, each in enumerate(keys):
            lane = f"{self.name}/{number}"
            if rng.random() < 0.2:
                writes.append(Delete(each.attributes))
                asked = under_way(lane, each.name, Kind.DELETE, at)
            else:
                value = self._value()
                writes.append(Put({**each.attributes, "v": value}))
                asked = under_way(lane, each.name, Kind.PUT, at, value=value)
            places[each.name] = history.begin(asked)

        def ended(answer: Any) -> None:
            error = answer if isinstance(answer, KeyplaneError) else None
            left = _left_over(error, keys)
            now = self._world.now
            for name, place in places.items():
                outcome = left.get(name, Outcome.OK)
                reason = error.reason.name if error and outcome is not Outcome.OK else ""
                history.end(place, now, outcome, reason=reason)
            self._done(at, error)

        timeout_s = self._load.spec.timeout_s
        client.run(client.core.batch_write(client.now, {table: writes}, timeout_s), ended)

    def batch_get(self, key: Key, dice: int) -> None:
        keys = self._some(random.Random(dice), key)
        client = self._client
        call = client.core.batch_get(
            client.now,
            {key.table.called: [each.attributes for each in keys]},
            True,
            self._load.spec.timeout_s,
        )
        self._read_all(keys, lambda ended: client.run(call, lambda answer: ended(answer, True)))

    def query(self, key: Key, dice: int) -> None:
        """All items with one partition key, a page at a time."""
        keys = [
            each
            for each in self._load.of_table[key.table.name]
            if each.attributes["id"] == key.attributes["id"]
        ]
        partition_key = key.attributes["id"]
        backward = bool(dice & 1)
        request = query_request(key.table.called, partition_key, None, backward, 0, None, True)
        self._read_pages(keys, self._client.core.query(request, self._load.spec.timeout_s))

    def scan(self, key: Key, _: int) -> None:
        keys = self._load.of_table[key.table.name]
        request = scan_request(key.table.called, 0, 1, 0, None, True)
        self._read_pages(keys, self._client.core.scan(request, self._load.spec.timeout_s))

    def _read_pages(self, keys: Sequence[Key], cursor: Any) -> None:
        """What a page does not have of its range is not there, so an item that no page has was at
        some moment of the whole not there.
        """
        client, table = self._client, keys[0].table.called
        found: list[Any] = []

        def start(ended: Callable[[Any, bool], None]) -> None:
            def on_page(answer: Any) -> None:
                if isinstance(answer, KeyplaneError):
                    ended(answer, True)
                    return
                found.extend(answer.items)
                if cursor.exhausted:
                    ended({table: found}, True)
                else:
                    client.run(cursor.next_page(client.now), on_page)

            client.run(cursor.next_page(client.now), on_page)

        self._read_all(keys, start)

    def _read_all(
        self,
        keys: Sequence[Key],
        start: Callable[[Callable[[Any, bool], None]], None],
    ) -> None:
        """Reads of several items at once. `start` takes what to call with items by table."""
        at, history = self._world.now, self._load.history
        places = {
            each.name: history.begin(under_way(f"{self.name}/{number}", each.name, Kind.READ, at))
            for number, each in enumerate(keys)
        }

        def ended(answer: Any, _: bool) -> None:
            now = self._world.now
            if isinstance(answer, KeyplaneError):
                for place in places.values():
                    history.fail(place, now, answer)
                self._done(at, answer)
                return
            values: dict[str, str] = {}
            for item in answer[keys[0].table.called]:
                name = name_of(keys[0].table, item)
                if name in values:
                    self._world.violate(
                        "I2", f"{name} was read twice by one request of {self.name}", name
                    )
                values[name] = item["v"]
            for name, place in places.items():
                history.end(place, now, Outcome.OK, value=values.get(name))
            self._done(at, None)

        start(ended)

    def _some(self, rng: random.Random, key: Key) -> list[Key]:
        others = self._load.of_table[key.table.name]
        more = [others[rng.randrange(len(others))] for _ in range(BATCH_KEYS - 1)]
        return list({each.name: each for each in (key, *more)}.values())

    # --- ends -----------------------------------------------------------------------------------

    def _succeed(self, place: int, began_at: float, **answer: object) -> None:
        self._load.history.end(place, self._world.now, Outcome.OK, **answer)
        self._done(began_at, None)

    def _fail(self, place: int, began_at: float, error: KeyplaneError) -> None:
        self._load.history.fail(place, self._world.now, error)
        settled = outcome_of(error) is Outcome.CONDITION_FAILED
        self._done(began_at, None if settled else error)


def _left_over(error: KeyplaneError | None, keys: Sequence[Key]) -> dict[str, Outcome]:
    """Which writes of a batch were not acknowledged, and what is known of them."""
    if error is None:
        return {}
    if not isinstance(error, BatchIncomplete):
        return {key.name: outcome_of(error) for key in keys}
    table = keys[0].table
    left: dict[str, Outcome] = {}
    for write in error.unprocessed_writes[table.called].writes:
        item = from_item(write.put if write.HasField("put") else write.delete)
        outcome = Outcome.UNKNOWN if write.indefinite else Outcome.FAILED
        left[name_of(table, item)] = outcome
    return left


# Kinds of request, by their names in a mix.
KINDS: Mapping[str, Callable[[Lane, Key, int], None]] = {
    "put": Lane.put,
    "get": Lane.get,
    "get_stale": Lane.get_stale,
    "delete": Lane.delete,
    "put_if_absent": Lane.put_if_absent,
    "put_if_version": Lane.put_if_version,
    "delete_if_version": Lane.delete_if_version,
    "batch_write": Lane.batch_write,
    "batch_get": Lane.batch_get,
    "query": Lane.query,
    "scan": Lane.scan,
}
