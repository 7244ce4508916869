"""Keeps one memcached node full, one beat at a time.

A beat is the same whether anything changed or not: one store of pages, one read of values with
their CAS tokens, one conditional store for each of those, and the marker. New pages and changed
values come first; what room is left goes round everything, so a node that comes back empty is whole
again after a bounded number of beats, with no recovery of its own. A value is stored only after
every page it names, and only over an older one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from cache import memds_keys
from cache.config import PublisherConfig
from cache.envelope import Kind, seal
from cache.pages import Page
from wire.metrics import Metrics
from wire.ports import MemdsGet, MemdsNode, MemdsOutcome, MemdsStore

# Digests remembered as stored beyond those in use, before they are sorted out.
_STORED_SLACK = 4_096


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A versioned value to keep in MemDS. Two are the same only if they are the same object.

    rank: decides between two values of one key; the higher one stays.
    rank_of: reads the rank of a value found in MemDS; None if it is not a valid one, which any
        value may replace.
    pages: to be stored before the value.
    """

    key: str
    rank: tuple[int, int]
    value: bytes
    rank_of: Callable[[bytes], tuple[int, int] | None]
    pages: Sequence[Page] = ()


class NodeWriter:
    """One memcached node. Its failures and delays are its own: writers never wait for each other.

    on_outranked: told of a key for which the node holds a higher rank than ours, and that rank.
    keeps_marker: whether this writer says that the node is complete; exactly one publisher does.
    """

    def __init__(
        self,
        config: PublisherConfig,
        node: MemdsNode,
        metrics: Metrics,
        on_outranked: Callable[[str, tuple[int, int]], None],
        keeps_marker: bool,
    ) -> None:
        self._config = config
        self._node = node
        self._on_outranked = on_outranked
        self._keeps_marker = keeps_marker
        self._results = metrics.counter(
            "memds_stores_total", "Values stored, or not, in memcached nodes, by how.", "result"
        )
        self._beats = metrics.counter(
            "memds_publish_beats_total",
            "Beats of publishing to one node, by how they ended.",
            "end",
        )
        self._busy = False
        self._marked = False
        # Pages and entries this node is believed to hold; forgotten when it turns out empty.
        self._stored_pages: set[bytes] = set()
        self._stored: dict[str, Entry] = {}
        # Entries whose pages are known to be all there, by key.
        self._ready: dict[str, Entry] = {}
        self._page_rotation: Iterator[Page] = iter(())
        self._entry_rotation: Iterator[Entry] = iter(())

    @property
    def name(self) -> str:
        return self._node.name

    def holds(self, entry: Entry) -> bool:
        """Whether the node is believed to hold this entry and its pages."""
        return self._stored.get(entry.key) is entry

    def beat(self, entries: Mapping[str, Entry]) -> None:
        """Writes what is due. Does nothing while the beat before is unfinished."""
        if self._busy:
            self._beats.inc("skipped")
            return
        self._busy = True
        self._write_pages(entries)

    # --- steps, in order ------------------------------------------------------------------------

    def _write_pages(self, entries: Mapping[str, Entry]) -> None:
        pages = self._choose_pages(entries)
        cluster = self._config.cluster
        values = {memds_keys.page(cluster, page.digest): page.value for page in pages}

        def on_done(outcome: MemdsOutcome) -> None:
            if outcome is not MemdsOutcome.OK:
                self._end(outcome.value)
                return
            self._results.inc("page", len(pages))
            self._stored_pages.update(page.digest for page in pages)
            self._read_values(entries, pages)

        self._node.set_many(values, on_done)

    def _read_values(self, entries: Mapping[str, Entry], written: Sequence[Page]) -> None:
        chosen = self._choose_entries(entries)

        def on_done(found: MemdsGet) -> None:
            if found.outcome not in (MemdsOutcome.OK, MemdsOutcome.EMPTY):
                self._end(found.outcome.value)
                return
            if self._was_emptied(chosen, found):
                self._forget(written)
            ready = [entry for entry in chosen if self._is_ready(entry)]
            self._write_values(entries, ready, found)

        self._node.gets_many([entry.key for entry in chosen], on_done)

    def _write_values(
        self, entries: Mapping[str, Entry], chosen: Sequence[Entry], found: MemdsGet
    ) -> None:
        waiting = len(chosen)
        if not waiting:
            self._write_marker(entries)

        def done(entry: Entry, store: MemdsStore | None) -> None:
            nonlocal waiting
            self._results.inc(store.value if store is not None else "outranked")
            if store in (MemdsStore.STORED, None):
                self._stored[entry.key] = entry
            else:
                self._stored.pop(entry.key, None)
            waiting -= 1
            if not waiting:
                self._write_marker(entries)

        for entry in chosen:
            self._write_value(entry, found, done)

    def _write_value(
        self, entry: Entry, found: MemdsGet, done: Callable[[Entry, MemdsStore | None], None]
    ) -> None:
        def on_done(store: MemdsStore, _: MemdsOutcome) -> None:
            done(entry, store)

        def on_kept(store: MemdsStore, _: MemdsOutcome) -> None:
            done(entry, MemdsStore.STORED if store is MemdsStore.CONFLICT else store)

        value = found.values.get(entry.key)
        if value is None:
            self._node.add(entry.key, entry.value, on_done)
        elif value == entry.value:
            # As much work as a change, puts it back if it has gone since, and disturbs no cas of
            # a publisher with something newer.
            self._node.add(entry.key, entry.value, on_kept)
        else:
            rank = entry.rank_of(value)
            if rank is not None and rank > entry.rank:
                # Stored by somebody who knew more: the node needs nothing from us.
                self._on_outranked(entry.key, rank)
                done(entry, None)
            else:
                self._node.cas(entry.key, entry.value, found.tokens[entry.key], on_done)

    def _write_marker(self, entries: Mapping[str, Entry]) -> None:
        complete = all(self._stored.get(key) is entry for key, entry in entries.items())
        if not (self._keeps_marker and complete):
            self._end("ok" if complete else "incomplete")
            return
        key = memds_keys.marker(self._config.cluster)

        def on_done(outcome: MemdsOutcome) -> None:
            self._marked = outcome is MemdsOutcome.OK
            self._end(outcome.value)

        self._node.set_many({key: seal(Kind.MARKER, b"")}, on_done)

    def _end(self, how: str) -> None:
        self._busy = False
        self._beats.inc(how)

    # --- what is due ----------------------------------------------------------------------------

    def _choose_pages(self, entries: Mapping[str, Entry]) -> list[Page]:
        """Pages the node lacks, those of the entry that lacks fewest first; then the rotation."""
        slots = self._config.page_slots
        missing = []
        for entry in entries.values():
            if not self._is_ready(entry):
                lacking = [page for page in entry.pages if page.digest not in self._stored_pages]
                missing.append(lacking)
        missing.sort(key=len)
        new = (page for lacking in missing for page in lacking)
        chosen = {page.digest: page for page in islice(new, slots)}
        for page in self._next_pages(entries, slots - len(chosen)):
            chosen[page.digest] = page
        self._sort_out(entries)
        return list(chosen.values())

    def _choose_entries(self, entries: Mapping[str, Entry]) -> list[Entry]:
        """Entries whose pages are all there: changed ones first; then the rotation."""
        slots = self._config.value_slots
        changed = (
            entry
            for entry in entries.values()
            if self._stored.get(entry.key) is not entry and self._is_ready(entry)
        )
        chosen = {entry.key: entry for entry in islice(changed, slots)}
        for entry in self._next_entries(entries, slots - len(chosen)):
            chosen[entry.key] = entry
        return list(chosen.values())

    def _next_pages(self, entries: Mapping[str, Entry], count: int) -> Iterable[Page]:
        taken = list(islice(self._page_rotation, count))
        if len(taken) < count:
            every = [page for entry in entries.values() for page in entry.pages]
            self._page_rotation = iter(every)
            taken += islice(self._page_rotation, min(count - len(taken), len(every)))
        return taken

    def _next_entries(self, entries: Mapping[str, Entry], count: int) -> Iterable[Entry]:
        taken = list(islice(self._entry_rotation, count))
        if len(taken) < count:
            every = list(entries.values())
            self._entry_rotation = iter(every)
            taken += islice(self._entry_rotation, min(count - len(taken), len(every)))
        # A rotation may be older than the newest entries.
        return [
            entry for entry in taken if entries.get(entry.key) is entry and self._is_ready(entry)
        ]

    def _is_ready(self, entry: Entry) -> bool:
        if self._ready.get(entry.key) is entry:
            return True
        if all(page.digest in self._stored_pages for page in entry.pages):
            self._ready[entry.key] = entry
            return True
        return False

    def _was_emptied(self, chosen: Iterable[Entry], found: MemdsGet) -> bool:
        """Whether something is gone that this writer had put there."""
        if self._marked and found.outcome is MemdsOutcome.EMPTY:
            return True
        return any(
            self._stored.get(entry.key) is entry and entry.key not in found.values
            for entry in chosen
        )

    def _forget(self, written: Sequence[Page]) -> None:
        """The node was emptied: it holds what was written in this beat and nothing else."""
        self._stored_pages = {page.digest for page in written}
        self._stored.clear()
        self._ready.clear()
        self._marked = False

    def _sort_out(self, entries: Mapping[str, Entry]) -> None:
        used = sum(len(entry.pages) for entry in entries.values())
        if len(self._stored_pages) > used + _STORED_SLACK:
            self._stored_pages &= {p.digest for entry in entries.values() for p in entry.pages}
        for key in [key for key in self._stored if key not in entries]:
            del self._stored[key]
            self._ready.pop(key, None)
