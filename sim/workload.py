"""Load: lanes of clients, each doing one request after another, drawn from the seed.

The n-th request of a lane depends on the lane's name and n alone. So a request can be left out, to
find the fewest that still fail, without changing the others.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from keyplane.client.core import query_request, scan_request
from keyplane.client.errors import BatchIncomplete
from keyplane.client.requests import Attributes, Delete, Put, condition
from keyplane.history.operation import Kind, Outcome
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.items import from_item
from sim.client import SimClient
from sim.history import History, outcome_of, under_way
from sim.topology import TableSpec
from sim.world import World

# Items share their partition key with so many others, where a table has a sort key.
_ITEMS_PER_PARTITION_KEY = 4

BATCH_KEYS = 3

# Virtual seconds between two moments at which requests for the hot item are made.
_RUSH_S = 0.3


@dataclass(frozen=True, slots=True)
class WorkloadSpec:
    """lanes: per client. think_s: mean pause between a lane's requests, in virtual seconds.

    mix: relative frequency of each kind of request. timeout_s: of each. hot: the share of requests
    that are for one and the same item, and made by all lanes at the same moments.
    """

    lanes: int = 3
    think_s: float = 0.37
    timeout_s: float = 5.0
    hot: float = 0.0
    mix: Mapping[str, float] = field(
        default_factory=lambda: {
            "put": 30.0,
            "get": 30.0,
            "get_stale": 5.0,
            "delete": 6.0,
            "put_if_absent": 5.0,
            "put_if_version": 12.0,
            "delete_if_version": 3.0,
            "batch_write": 4.0,
            "batch_get": 3.0,
            "query": 1.5,
            "scan": 0.5,
        }
    )


@dataclass(frozen=True, slots=True)
class Key:
    """An item's place: its table, its key attributes, and its name in the history."""

    table: TableSpec
    attributes: Attributes
    name: str


def keys_of(spec: TableSpec) -> list[Key]:
    """The items that clients use of a table."""
    if not spec.sorted:
        return [
            Key(spec, {"id": f"k{number}"}, f"{spec.name}/k{number}") for number in range(spec.keys)
        ]
    places = [divmod(number, _ITEMS_PER_PARTITION_KEY) for number in range(spec.keys)]
    return [
        Key(spec, {"id": f"k{partition}", "at": sort}, f"{spec.name}/k{partition}/{sort}")
        for partition, sort in places
    ]


@dataclass(frozen=True, slots=True)
class Window:
    """What clients saw in a stretch of time. latency_s_p99: of requests that succeeded."""

    requests: int
    failed: int
    latency_s_p99: float

    @property
    def success_ratio(self) -> float:
        return 1.0 - self.failed / self.requests if self.requests else 1.0


class Load:
    """All lanes of all clients.

    failures: what ended requests: when, when they began, and the error.
    """

    def __init__(
        self,
        world: World,
        history: History,
        spec: WorkloadSpec,
        left_out: frozenset[str] = frozenset(),
    ) -> None:
        """left_out: lanes (`client-1/0`) and requests (`client-1/0#17`) not to be made.

        Raises KeyplaneError(INVALID_ARGUMENT) on a mix of requests that there are not.
        """
        _check_mix(spec.mix)
        self.world = world
        self.history = history
        self.spec = spec
        self.left_out = left_out
        self.keys = [key for table in world.topology.tables for key in keys_of(table)]
        self.of_table = {table.name: keys_of(table) for table in world.topology.tables}
        self.going = False
        # Virtual seconds at which the load began.
        self.began_at = 0.0
        self.requests = 0
        # Names of the requests, in the order in which they were made.
        self.made: list[str] = []
        self.failures: list[tuple[float, float, KeyplaneError]] = []
        # Seconds from invocation to answer of every request that succeeded, with its time.
        self.latencies: list[tuple[float, float]] = []
        # Last version seen of each item, by anybody.
        self.versions: dict[str, int] = {}
        self.clients = [SimClient(world, name) for name in world.topology.client_names()]
        self._lanes = [
            _Lane(self, client, f"{client.name}/{number}")
            for client in self.clients
            for number in range(spec.lanes)
        ]

    def window(self, since: float, until: float) -> Window:
        """Requests that began within [since, until), in virtual seconds after the load began."""
        first, last = self.began_at + since, self.began_at + until
        latencies = sorted(took for began, took in self.latencies if first <= began < last)
        failed = sum(first <= began < last for _, began, _ in self.failures)
        slowest = latencies[int(len(latencies) * 0.99)] if latencies else 0.0
        return Window(len(latencies) + failed, failed, slowest)

    def key_at(self, number: float) -> Key:
        """The item that a number of [0, 1) stands for."""
        hot = self.spec.hot
        if number < hot:
            return self.keys[0]
        return self.keys[int((number - hot) / (1.0 - hot) * len(self.keys))]

    def start(self) -> None:
        self.going = True
        self.began_at = self.world.now
        for lane in self._lanes:
            if lane.name not in self.left_out:
                lane.next()

    def stop(self) -> None:
        """Lanes end with the request that they have under way."""
        self.going = False

    @property
    def busy(self) -> bool:
        return any(lane.busy for lane in self._lanes)

    def lane_names(self) -> list[str]:
        return [lane.name for lane in self._lanes]

    def read_once(self, client: SimClient, key: Key, on_end: Callable[[], None]) -> None:
        """One consistent read outside the lanes. A failure counts like any other."""
        at = self.world.now
        place = self.history.begin(under_way(f"{client.name}/last", key.name, Kind.READ, at))

        def ended(answer: Any) -> None:
            now = self.world.now
            if isinstance(answer, KeyplaneError):
                self.history.fail(place, now, answer)
                self.failures.append((now, at, answer))
            else:
                value, version = (
                    (None, None) if answer is None else (answer.item["v"], answer.version)
                )
                self.history.end(place, now, Outcome.OK, value=value, version=version)
            on_end()

        call = client.core.get(
            client.now, key.table.name, key.attributes, True, self.spec.timeout_s
        )
        client.run(call, ended)


class _Lane:
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
                self._load.key_at(what),
                dice,
            )

        self._world.scheduler.after(wait_s, make)

    def _make(self, kind: str, key: Key, dice: int) -> None:
        self.busy = True
        self._load.requests += 1
        self._load.made.append(f"{self.name}#{self._number}")
        _KINDS[kind](self, key, dice)

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
        table, client = key.table.name, self._client

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
            key.table.name,
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
            key.table.name,
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
        table = key.table.name
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
            {key.table.name: [each.attributes for each in keys]},
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
        request = query_request(key.table.name, partition_key, None, backward, 0, None, True)
        self._read_pages(keys, self._client.core.query(request, self._load.spec.timeout_s))

    def scan(self, key: Key, _: int) -> None:
        keys = self._load.of_table[key.table.name]
        request = scan_request(key.table.name, 0, 1, 0, None, True)
        self._read_pages(keys, self._client.core.scan(request, self._load.spec.timeout_s))

    def _read_pages(self, keys: Sequence[Key], cursor: Any) -> None:
        """What a page does not have of its range is not there, so an item that no page has was at
        some moment of the whole not there.
        """
        client, table = self._client, keys[0].table.name
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
            for item in answer[keys[0].table.name]:
                name = _name_of(keys[0].table, item)
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


def _check_mix(mix: Mapping[str, float]) -> None:
    unknown = [kind for kind in mix if kind not in _KINDS]
    if unknown or sum(mix.values()) <= 0.0:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"a mix gives frequencies to these kinds of request: {', '.join(_KINDS)}; not to"
            f" {', '.join(unknown) or 'none'}",
        )


def _left_over(error: KeyplaneError | None, keys: Sequence[Key]) -> dict[str, Outcome]:
    """Which writes of a batch were not acknowledged, and what is known of them."""
    if error is None:
        return {}
    if not isinstance(error, BatchIncomplete):
        return {key.name: outcome_of(error) for key in keys}
    table = keys[0].table
    left: dict[str, Outcome] = {}
    for write in error.unprocessed_writes[table.name].writes:
        item = from_item(write.put if write.HasField("put") else write.delete)
        outcome = Outcome.UNKNOWN if write.indefinite else Outcome.FAILED
        left[_name_of(table, item)] = outcome
    return left


def _name_of(table: TableSpec, item: Attributes) -> str:
    name = f"{table.name}/{item['id']}"
    return f"{name}/{int(item['at'])}" if table.sorted else name


_KINDS: Mapping[str, Callable[[_Lane, Key, int], None]] = {
    "put": _Lane.put,
    "get": _Lane.get,
    "get_stale": _Lane.get_stale,
    "delete": _Lane.delete,
    "put_if_absent": _Lane.put_if_absent,
    "put_if_version": _Lane.put_if_version,
    "delete_if_version": _Lane.delete_if_version,
    "batch_write": _Lane.batch_write,
    "batch_get": _Lane.batch_get,
    "query": _Lane.query,
    "scan": _Lane.scan,
}
