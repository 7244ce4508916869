"""Settings of a granter."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GranterConfig:
    """How capacity units are granted."""

    # Seconds of unused capacity that a table may save up for a burst: DynamoDB keeps "up to 5
    # minutes (300 seconds)", https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/
    # burst-adaptive-capacity.html
    burst_s: float = 300.0

    # Seconds of use that a grant is to last for, by what was wanted of late.
    refill_s: float = 1.0
    # The grant is that many times as large while there is enough, so that load may rise.
    headroom: float = 2.0
    # Seconds after which a grant may not be used any more. A few refills, so that one that is late
    # or lost does not open the table.
    valid_s: float = 3.0

    # Tables in one request, and tables that are kept: 300 s of 10,000 new ones a second.
    tables_per_request_max: int = 1_000
    tables_max: int = 100_000
    # Routers that may hold grants on one table.
    routers_max: int = 1_000
