"""Settings of a granter."""

from __future__ import annotations

from dataclasses import dataclass

from keyplane.model.limits import WARM_READ_UNITS, WARM_WRITE_UNITS


@dataclass(frozen=True, slots=True)
class GranterConfig:
    """How capacity units are granted."""

    # Seconds of unused capacity that a table may save up for a burst: DynamoDB keeps "up to 5
    # minutes (300 seconds)", https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/
    # burst-adaptive-capacity.html
    burst_s: float = 300.0

    # On-demand tables: see `granter.growth` for the rules. Seconds within which a table may not
    # more than double its peak, and seconds of its limit that it may use at once.
    doubling_s: float = 1800.0
    on_demand_depth_s: float = 1.0
    # What a new table may use, in units a second.
    warm_read_units: float = float(WARM_READ_UNITS)
    warm_write_units: float = float(WARM_WRITE_UNITS)

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

    @property
    def peak_s(self) -> float:
        """Seconds over which traffic is averaged to be a peak. DynamoDB does not say how long; its
        metrics are of minutes. Not less than what a router gives account of in one go.
        """
        return max(self.refill_s, min(60.0, self.doubling_s / 30))
