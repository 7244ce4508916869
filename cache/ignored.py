"""Why something read from MemDS, or not found there, changed nothing."""

from __future__ import annotations

import enum

from keyplane.model.errors import KeyplaneError, Reason
from wire.metrics import Counter, Metrics
from wire.ports import MemdsOutcome


class Ignored(enum.Enum):
    """Label of the counter `memds_ignored_total`. None of these ever removes a route."""

    # A node answered, and a value that was expected is not there.
    MISSING_ROOT = "missing_root"
    MISSING_PAGE = "missing_page"
    MISSING_NODES = "missing_nodes"
    MISSING_REPORT = "missing_report"
    MISSING_TENANTS = "missing_tenants"
    # The node as a whole: flushed or restarted, too slow, unreachable, or answering errors.
    EMPTY = "empty"
    TIMEOUT = "timeout"
    DOWN = "down"
    ERROR = "error"
    # A value is there and is not usable: altered or cut short, of another format version, under a
    # key that is not its own, or a map with a gap or overlap.
    CORRUPT = "corrupt"
    FOREIGN_FORMAT = "foreign_format"
    WRONG_KEY = "wrong_key"
    MAP_INVALID = "map_invalid"
    # A valid value that is behind what is known.
    OLDER_ROOT = "older_root"
    OLDER_NODES = "older_nodes"
    OLDER_TENANTS = "older_tenants"
    # A directory without nodes is never believed.
    EMPTY_NODES = "empty_nodes"
    # More tables or storage nodes than are followed.
    TOO_MANY = "too_many"


OF_OUTCOME = {
    MemdsOutcome.EMPTY: Ignored.EMPTY,
    MemdsOutcome.TIMEOUT: Ignored.TIMEOUT,
    MemdsOutcome.DOWN: Ignored.DOWN,
    MemdsOutcome.ERROR: Ignored.ERROR,
}

_OF_REASON = {
    Reason.CORRUPT: Ignored.CORRUPT,
    Reason.FOREIGN_FORMAT: Ignored.FOREIGN_FORMAT,
    Reason.MAP_INVALID: Ignored.MAP_INVALID,
}


def of_error(error: KeyplaneError) -> Ignored:
    return _OF_REASON.get(error.reason, Ignored.CORRUPT)


def counter(metrics: Metrics) -> Counter:
    return metrics.counter(
        "memds_ignored_total", "What was read from MemDS and changed nothing, by why.", "reason"
    )
