"""Which seed kills which mutant, as recorded last: `python -m sim.mutants.record` writes this file.

It saves the tests the hunt. A kill that no longer holds, because seeds mean something else by now
or the code has changed, is no failure of anything: record it anew.
"""

from __future__ import annotations

from collections.abc import Mapping

KILLED_BY: Mapping[str, tuple[str, int]] = {
    "epoch-not-checked": ("split-storm", 0),
    "ack-before-commit": ("cache-loss", 0),
    "ack-before-sync": ("split-storm", 0),
    "ownership-not-synced": ("swarm", 2),
    "version-not-persisted": ("swarm", 0),
    "conditions-miss-own-batch": ("control-plane-outage", 0),
    "learns-from-failed-commit": ("swarm", 4),
    "queue-without-bound": ("swarm", 1),
    "fence-queue-without-bound": ("swarm", 1),
    "serves-by-leave-of-control-plane": ("control-plane-outage", 0),
    "split-keeps-epoch": ("lite", 0),
    "merge-takes-lower-epoch": ("control-plane-outage", 0),
    "merge-without-neighbours": ("swarm", 0),
    "split-applied-twice": ("gray", 5),
    "split-leaves-no-tombstone": ("split-storm", 9),
    "heirs-start-versions-anew": ("lite", 0),
    "tokens-not-remembered": ("gray", 0),
    "split-forgets-tokens": ("gray", 12),
    "activates-before-handover": ("gray", 6),
    "activation-not-persisted": ("split-storm", 0),
    "fence-not-enforced": ("swarm", 1),
    "queued-writes-pass-the-fence": ("swarm", 21),
    "reads-pass-the-handover": ("cache-loss", 0),
    "tail-forgotten": ("swarm", 0),
    "chunk-loses-an-entry": ("swarm", 0),
    "move-leaves-no-tombstone": ("swarm", 3),
    "move-restarts-versions": ("swarm", 0),
    "retry-without-its-token": ("gray", 0),
    "calls-metadata-store": ("lite", 0),
    "reads-memds-per-miss": ("control-plane-outage", 0),
    "older-root-accepted": ("cache-loss", 0),
    "miss-is-deletion": ("swarm", 0),
    "checksum-not-checked": ("cache-loss", 0),
    "latest-hint-wins": ("swarm", 0),
    "map-outranks-storage-nodes": ("control-plane-outage", 0),
    "root-before-pages": ("lite", 0),
    "page-in-use-cleared": ("lite", 0),
}
