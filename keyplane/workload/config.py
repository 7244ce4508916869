"""What a workload does."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Distribution(enum.StrEnum):
    UNIFORM = "uniform"
    ZIPF = "zipf"
    HOT_KEY = "hot-key"


@dataclass(frozen=True, slots=True)
class WorkloadConfig:
    """table: must have a string partition key and no sort key; see `ensure_table`.

    clients: requests in flight at most. Sixteen keep two cores busy without queueing for long.
    rate_per_s: requests a second, all clients together, whose latency counts from the moment they
        were due. None: closed loop, each client sends its next request when it has an answer.
    read_share: 0 writes only, 1 reads only.
    keys: how many different keys there are.
    distribution: which of them are asked for.
    zipf_exponent: of ZIPF. YCSB's default, 0.99, gives the most popular of 10,000 keys a tenth of
        the requests.
    hot_share: of HOT_KEY: share of the requests that go to one key.
    item_bytes: size of an item's payload; its key and bookkeeping add about 60 bytes.
    seed: of keys and of the order of reads and writes. The same seed asks for the same.
    duration_s: None runs until it is stopped.
    timeout_s: deadline of each request. As the client's own default.
    """

    table: str
    clients: int = 16
    rate_per_s: float | None = None
    read_share: float = 0.5
    keys: int = 10_000
    distribution: Distribution = Distribution.UNIFORM
    zipf_exponent: float = 0.99
    hot_share: float = 0.5
    item_bytes: int = 200
    seed: int = 1
    duration_s: float | None = 30.0
    timeout_s: float = 5.0
