"""Bugs of the map on its way: what publishers put into MemDS, and what readers take from it."""

from __future__ import annotations

from cache import envelope, routes
from cache.assembly import Assembly
from cache.reader import MapReader
from cache.routes import RouteTable
from cache.writer import NodeWriter
from sim.mutants.mutant import Mutant
from sim.mutants.patch import Edit

CACHE: tuple[Mutant, ...] = (
    Mutant(
        "older-root-accepted",
        "A router takes the root it has read last, even if it is older than the one it has.",
        ("I3",),
        (
            Edit(
                Assembly.offer_root,
                "if rank < max(followed.rank, followed.collecting_rank):",
                "if rank[0] < max(followed.rank, followed.collecting_rank)[0]:",
            ),
            Edit(
                Assembly.offer_root,
                "elif rank > followed.collecting_rank:",
                "else:",
            ),
            Edit(
                RouteTable.install_map,
                "new.version <= self.version:",
                "new.version == self.version:",
            ),
        ),
    ),
    Mutant(
        "miss-is-deletion",
        "A root that a memcached node does not have is taken for a deleted table.",
        ("I5",),
        (
            Edit(
                MapReader._take_roots,
                "elif complete and key in beat.missing:",
                "elif beat.missing.get(key) is Ignored.MISSING_ROOT and not complete"
                " and found.outcome is MemdsOutcome.EMPTY:\n"
                "            for name in list(self._assembly.tables):\n"
                "                if memds_keys.root(self._config.cluster, name) == key:\n"
                "                    rank = self._assembly.tables[name].rank\n"
                "                    self._listener.on_deleted(name, rank[0])\n"
                "        elif complete and key in beat.missing:",
            ),
        ),
    ),
    Mutant(
        "checksum-not-checked",
        "Values from MemDS are used without looking at their checksum.",
        ("I10", "I3", "no-crash"),
        (
            Edit(
                envelope.open_sealed,
                "if xxhash.xxh3_128_digest(header + payload) != checksum:",
                "if len(checksum) != _CHECKSUM_BYTES:",
            ),
        ),
    ),
    Mutant(
        "latest-hint-wins",
        "Of two claims on a hash a router believes the one it heard last, not the higher epoch.",
        ("I3",),
        (
            Edit(
                routes._upper_envelope,
                "(-epoch, -partition_id, segment.learned, arrived, segment)",
                "(-segment.learned, -epoch, -partition_id, arrived, segment)",
            ),
        ),
    ),
    Mutant(
        "map-outranks-storage-nodes",
        "A map from MemDS replaces what storage nodes have said, even if that is newer.",
        ("I3",),
        (
            Edit(
                RouteTable.install_map,
                "self._set_overlay(0, len(self._overlay), _above(new, held))",
                "self._set_overlay(0, len(self._overlay), [])",
            ),
        ),
    ),
    Mutant(
        "root-before-pages",
        "The publisher stores a root before the pages that it names.",
        ("I5",),
        (
            Edit(NodeWriter._is_ready, "if self._ready.get(entry.key) is entry:", "if True:"),
            Edit(
                NodeWriter.beat,
                "self._write_pages(entries)",
                "self._read_values(entries, ())",
            ),
            Edit(
                NodeWriter._write_marker,
                "if not (self._keeps_marker and complete):",
                "pages = self._choose_pages(entries)\n"
                "    self._node.set_many(\n"
                "        {memds_keys.page(self._config.cluster, each.digest): each.value"
                " for each in pages},\n"
                "        lambda _: None,\n"
                "    )\n"
                "    if not (self._keeps_marker and complete):",
            ),
        ),
    ),
    Mutant(
        "page-in-use-cleared",
        "The publisher clears pages that the newest map does not need, but other tables do.",
        ("I5", "liveness"),
        (
            Edit(
                NodeWriter._write_pages,
                "cluster = self._config.cluster",
                "cluster = self._config.cluster\n"
                "    newest = max(entries.values(), key=lambda entry: entry.rank, default=None)\n"
                "    used = set() if newest is None else {page.digest for page in newest.pages}\n"
                "    unused = self._stored_pages - used",
            ),
            Edit(
                NodeWriter._write_pages,
                "def on_done(outcome: MemdsOutcome) -> None:",
                "values |= {memds_keys.page(cluster, digest): b'' for digest in unused}\n\n"
                "    def on_done(outcome: MemdsOutcome) -> None:",
            ),
        ),
    ),
)
