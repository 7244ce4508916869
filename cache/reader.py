"""Reads partition maps from MemDS on a fixed beat.

Constant work (I7): every beat makes the same requests, whether all lookups hit, all miss, nothing
happens, or MemDS is gone. Two nodes, chosen at random, get two requests each: the roots, directory
and reports; then pages, missing ones first and else a rotating re-check of those held. The second
node is asked as soon as the first fails, at the latest when the first would count as late, so
hedging moves a request in time and never adds one. Nothing is repeated within a beat: the next beat
is the retry. The highest valid version wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TypeVar

from cache import ignored, memds_keys
from cache.assembly import TABLES_MAX, Assembly
from cache.config import ReaderConfig, Refresh
from cache.hedge import HedgeDelay
from cache.ignored import Ignored
from cache.listener import LookupResult, MapListener
from cache.partition_map import PartitionMap
from cache.tenant_keeper import TenantKeeper
from wire.metrics import Metrics
from wire.ports import Clock, MemdsGet, MemdsNode, MemdsOutcome, Rng, Timer

_T = TypeVar("_T")

# Nodes asked per beat.
NODES_PER_BEAT = 2

# Most table names that may wait for their lookup.
LOOKUPS_MAX = 1_024

# Beats after which a lookup whose root was seen, but not all its pages, ends as UNKNOWN.
LOOKUP_BEATS_MAX = 20

# Beats that may be unfinished at once. Answers come within a node's timeout, below two beats, so
# more means that this process is not keeping up, and beats are skipped.
BEATS_MAX = 4


@dataclass(slots=True)
class NodeView:
    """One memcached node as this reader sees it. last: None before the first answer."""

    name: str
    last: MemdsOutcome | None = None
    requests: int = 0


@dataclass(slots=True, eq=False)
class _Beat:
    """The requests of one beat: a visit each to up to two nodes."""

    nodes: Sequence[MemdsNode]
    keys: dict[str, Callable[[bytes], None]]
    missing: dict[str, Ignored]
    lookups: dict[str, str]
    visits_started: int = 0
    visits_ended: int = 0
    # Visits whose node was complete, so that what it does not have is not there.
    complete: int = 0
    seen: set[str] = field(default_factory=set)
    hedge: Timer | None = None


class MapReader:
    """Keeps its listener told of maps, nodes and reports in MemDS. One per router process.

    nodes: the cluster's memcached nodes. With one there is nothing to compare or hedge; with none,
        lookups end as UNKNOWN.
    """

    def __init__(
        self,
        config: ReaderConfig,
        clock: Clock,
        nodes: Sequence[MemdsNode],
        rng: Rng,
        metrics: Metrics,
        listener: MapListener,
        tenants: TenantKeeper | None = None,
    ) -> None:
        """tenants: who hears of shards of tenants; None: they are not read."""
        self._config = config
        self._clock = clock
        self._nodes = list(nodes)
        self._rng = rng
        self._listener = listener
        self._tenants = tenants
        self._assembly = Assembly(clock, metrics, listener)
        self._requests = metrics.counter(
            "memds_requests_total", "Requests to memcached nodes, by what they ask for.", "what"
        )
        self._outcomes = metrics.counter(
            "memds_outcomes_total", "How memcached nodes answered.", "outcome"
        )
        self._skipped = metrics.counter(
            "memds_beats_skipped_total", "Beats skipped because too many were unfinished."
        )
        self._views = {node.name: NodeView(node.name) for node in self._nodes}
        self._hedge = HedgeDelay(config.hedge_delay_s_min, config.hedge_delay_s_max)
        # Lookups by table name, with the number of beats they have waited.
        self._lookups: dict[str, int] = {}
        self._touched: dict[str, None] = {}
        self._roots: Iterator[str] = iter(())
        self._reports: Iterator[str] = iter(())
        self._pages: Iterator[bytes] = iter(())
        self._unfinished = 0
        self._timer: Timer | None = None

    def start(self) -> None:
        """Begins with a beat at once."""
        self._timer = self._clock.call_later(0.0, self._on_timer)

    def stop(self) -> None:
        """No beat begins any more; answers still under way are used."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def lookup(self, table: str) -> bool:
        """Asks for a table that is not known; `on_lookup` tells the end, after the next beat.

        Asking again while it waits adds nothing. False if too many wait: try again later.
        """
        if table not in self._lookups:
            if len(self._lookups) >= LOOKUPS_MAX:
                return False
            self._lookups[table] = 0
        return True

    @property
    def wants_touches(self) -> bool:
        """Whether `touch` does anything, which is where `Refresh.PER_REQUEST` is set."""
        return self._config.refresh is Refresh.PER_REQUEST

    def touch(self, table: str) -> None:
        """A table was used. Queues its refresh if that is wanted."""
        if self.wants_touches and len(self._touched) < TABLES_MAX:
            self._touched[table] = None

    def adopt(self, maps: Iterable[PartitionMap], node_ids: Iterable[str] = ()) -> None:
        """Starts from what a snapshot held: those pages are not read again."""
        for map in maps:
            self._assembly.adopt(map)
        self.follow_nodes(node_ids)

    def follow_tables(self, names: Iterable[str]) -> None:
        """Tables heard of elsewhere, whose roots to read from now on: maps, or tombstones."""
        for name in names:
            self._assembly.follow(name)

    def follow_nodes(self, node_ids: Iterable[str]) -> None:
        """Storage nodes heard of elsewhere, whose reports to read from now on."""
        for node_id in node_ids:
            self._assembly.follow_node(node_id)

    def confirmed_at(self, table: str) -> float | None:
        """When MemDS was last seen to hold the table's map as it is here, on the clock's axis."""
        followed = self._assembly.tables.get(table)
        return followed.confirmed_at if followed is not None else None

    def node_views(self) -> Sequence[NodeView]:
        """The memcached nodes, in the order given."""
        return list(self._views.values())

    # --- a beat ---------------------------------------------------------------------------------

    def _on_timer(self) -> None:
        self._timer = self._clock.call_later(self._config.beat_s, self._on_timer)
        if self._unfinished >= BEATS_MAX:
            self._skipped.inc()
            return
        if self._config.refresh is Refresh.PER_REQUEST and not (self._touched or self._lookups):
            return
        self._begin()

    def _begin(self) -> None:
        nodes = list(self._nodes)
        self._rng.shuffle(nodes)
        beat = _Beat(nodes[:NODES_PER_BEAT], {}, {}, {})
        self._add_root_keys(beat)
        self._touched.clear()
        if not beat.nodes:
            self._end_lookups(beat)
            return
        self._unfinished += 1
        self._visit(beat)
        if len(beat.nodes) > 1:
            beat.hedge = self._clock.call_later(
                self._hedge.seconds(), lambda: self._visit_second(beat)
            )

    def _add_root_keys(self, beat: _Beat) -> None:
        """What the first request of each visit asks for, and who takes the values."""
        cluster, assembly = self._config.cluster, self._assembly
        key = memds_keys.nodes(cluster)
        beat.keys[key], beat.missing[key] = assembly.offer_nodes, Ignored.MISSING_NODES
        for name in islice(self._lookups, self._config.root_slots):
            key = memds_keys.root(cluster, name)
            beat.keys[key] = _taker(assembly.offer_root, name)
            beat.lookups[name] = key
        if self._config.refresh is Refresh.PER_REQUEST:
            names: Iterable[str] = islice(self._touched, self._config.root_slots)
        else:
            self._roots, names = _rotate(
                self._roots, list(assembly.tables), self._config.root_slots
            )
        for name in names:
            key = memds_keys.root(cluster, name)
            beat.keys.setdefault(key, _taker(assembly.offer_root, name))
            beat.missing[key] = Ignored.MISSING_ROOT
        self._reports, node_ids = _rotate(
            self._reports, list(assembly.node_ids), self._config.report_slots
        )
        for node_id in node_ids:
            key = memds_keys.report(cluster, node_id)
            beat.keys[key] = _taker(assembly.offer_report, node_id)
            beat.missing[key] = Ignored.MISSING_REPORT
        if self._tenants is not None:
            for number in self._tenants.due():
                key = memds_keys.tenants(cluster, number)
                beat.keys[key] = partial(self._take_tenants, self._tenants, number)
                beat.missing[key] = Ignored.MISSING_TENANTS

    def _take_tenants(self, tenants: TenantKeeper, number: int, value: bytes) -> None:
        why = tenants.offer(number, value)
        if why is not None:
            self._assembly.ignore(why)

    def _visit_second(self, beat: _Beat) -> None:
        if beat.visits_started < len(beat.nodes):
            if beat.hedge is not None:
                beat.hedge.cancel()
            self._visit(beat)

    def _visit(self, beat: _Beat) -> None:
        node = beat.nodes[beat.visits_started]
        beat.visits_started += 1
        asked_at = self._clock.now()

        def on_roots(found: MemdsGet) -> None:
            self._note(node, found.outcome)
            if found.outcome in (MemdsOutcome.OK, MemdsOutcome.EMPTY):
                self._hedge.observe(self._clock.now() - asked_at)
            self._take_roots(beat, found)
            self._read_pages(beat, node)
            if found.outcome is not MemdsOutcome.OK:
                self._visit_second(beat)

        self._ask(node, "roots", list(beat.keys), on_roots)

    def _take_roots(self, beat: _Beat, found: MemdsGet) -> None:
        complete = found.outcome is MemdsOutcome.OK
        beat.complete += complete
        for key, take in beat.keys.items():
            if key in found.values:
                beat.seen.add(key)
                take(found.values[key])
            elif complete and key in beat.missing:
                self._assembly.ignore(beat.missing[key])

    def _read_pages(self, beat: _Beat, node: MemdsNode) -> None:
        digests = {memds_keys.page(self._config.cluster, each): each for each in self._choose()}

        def on_pages(found: MemdsGet) -> None:
            self._note(node, found.outcome)
            complete = found.outcome is MemdsOutcome.OK
            for key, digest in digests.items():
                if key in found.values:
                    self._assembly.offer_page(digest, found.values[key])
                elif complete:
                    self._assembly.ignore(Ignored.MISSING_PAGE)
            self._end_visit(beat)

        self._ask(node, "pages", list(digests), on_pages)

    def _choose(self) -> list[bytes]:
        """Digests of the pages to read: missing ones, and held ones in rotation to fill up."""
        slots = self._config.page_slots
        chosen = dict.fromkeys(self._assembly.take_missing_pages(slots))
        if self._config.refresh is Refresh.FIXED:
            held = self._assembly.held_pages()
            self._pages, rechecked = _rotate(self._pages, held, slots - len(chosen))
            chosen.update(dict.fromkeys(rechecked))
        return list(chosen)

    def _end_visit(self, beat: _Beat) -> None:
        beat.visits_ended += 1
        if beat.visits_ended == len(beat.nodes):
            self._unfinished -= 1
        self._end_lookups(beat)

    def _end_lookups(self, beat: _Beat) -> None:
        """Ends those that are found, and once all visits are over those that cannot be."""
        over = beat.visits_ended == len(beat.nodes)
        for name, key in beat.lookups.items():
            waited = self._lookups.get(name)
            if waited is None:
                continue
            followed = self._assembly.tables.get(name)
            if followed is not None and followed.map is not None:
                self._end_lookup(name, LookupResult.FOUND)
            elif not over:
                continue
            elif followed is not None and followed.collecting is not None:
                self._lookups[name] = waited + 1
                if waited + 1 >= LOOKUP_BEATS_MAX:
                    self._end_lookup(name, LookupResult.UNKNOWN)
            elif followed is not None and followed.deleted:
                self._end_lookup(name, LookupResult.ABSENT)
            else:
                absent = beat.nodes and beat.complete == len(beat.nodes) and key not in beat.seen
                self._end_lookup(name, LookupResult.ABSENT if absent else LookupResult.UNKNOWN)

    def _end_lookup(self, name: str, result: LookupResult) -> None:
        del self._lookups[name]
        self._listener.on_lookup(name, result)

    # --- requests -------------------------------------------------------------------------------

    def _ask(
        self, node: MemdsNode, what: str, keys: Sequence[str], on_done: Callable[[MemdsGet], None]
    ) -> None:
        self._requests.inc(what)
        self._views[node.name].requests += 1
        node.get_many(keys, on_done)

    def _note(self, node: MemdsNode, outcome: MemdsOutcome) -> None:
        self._outcomes.inc(outcome.value)
        self._views[node.name].last = outcome
        why = ignored.OF_OUTCOME.get(outcome)
        if why is not None:
            self._assembly.ignore(why)


def _taker(take: Callable[[str, bytes], None], name: str) -> Callable[[bytes], None]:
    return lambda value: take(name, value)


def _rotate(
    rotation: Iterator[_T], every: Iterable[_T], count: int
) -> tuple[Iterator[_T], list[_T]]:
    """The next `count` of a rotation, each once, starting over with `every` at its end."""
    taken = dict.fromkeys(islice(rotation, count))
    if len(taken) < count:
        rotation = iter(every)
        for each in rotation:
            if each in taken:
                break
            taken[each] = None
            if len(taken) == count:
                break
    return rotation, list(taken)
