"""How often the capacity of a table may be changed.

DynamoDB lets a table be switched from provisioned to on-demand up to four times in 24 hours, and
the other way at any time: "Considerations when switching capacity modes in DynamoDB",
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-switching-capacity-modes.html

It lets provisioned throughput be decreased up to four times within an hour that begins with the
first decrease of a day, by UTC, and once in each hour from then on, 27 times in all; and increased
at any time: "Quotas in Amazon DynamoDB",
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html

UNLIMITED is no mode of DynamoDB, and nothing limits switching from or to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from keyplane.model.errors import KeyplaneError, Reason

HOUR_S = 3600
DAY_S = 24 * HOUR_S

SWITCHES_MAX = 4
FIRST_DECREASES_MAX = 4


@dataclass(frozen=True, slots=True)
class CapacityChanges:
    """When the changes were made that count, in seconds since 1970 and in order.

    switches: to on-demand, of the last 24 hours; up to 4. decreases: of the last day that had any;
    up to 27. A clock that was set back makes none of them last longer than if it had just been.
    """

    switches: tuple[float, ...] = ()
    decreases: tuple[float, ...] = ()

    def switched(self, name: str, now: float) -> CapacityChanges:
        """One more switch from provisioned to on-demand. Raises KeyplaneError(LIMIT_EXCEEDED)."""
        switches = [at for at in _past(self.switches, now) if now - at < DAY_S]
        if len(switches) >= SWITCHES_MAX:
            raise _too_often(
                f"table {name!r} was switched to on-demand {SWITCHES_MAX} times within 24 hours",
                now,
                switches[-SWITCHES_MAX] + DAY_S,
            )
        return replace(self, switches=(*switches, now))

    def decreased(self, name: str, now: float) -> CapacityChanges:
        """One more decrease of provisioned units. Raises KeyplaneError(LIMIT_EXCEEDED)."""
        day = now // DAY_S
        decreases = [at for at in _past(self.decreases, now) if at // DAY_S == day]
        if decreases:
            in_first_hour = now - decreases[0] < HOUR_S
            if len(decreases) >= FIRST_DECREASES_MAX or not in_first_hour:
                again_at = min(decreases[-1] + HOUR_S, (day + 1) * DAY_S)
                if now < again_at:
                    raise _too_often(
                        f"the units of table {name!r} were decreased {len(decreases)} times today"
                        " (UTC), after which once an hour is the most",
                        now,
                        again_at,
                    )
        return replace(self, decreases=(*decreases, now))

    def to_json(self) -> dict[str, list[float]]:
        return {"switches": list(self.switches), "decreases": list(self.decreases)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> CapacityChanges:
        return cls(tuple(fields.get("switches", ())), tuple(fields.get("decreases", ())))


def _past(times: Sequence[float], now: float) -> list[float]:
    return [min(at, now) for at in times]


def _too_often(what: str, now: float, again_at: float) -> KeyplaneError:
    # To the second, upwards: what is said to be possible by then is.
    when = datetime.fromtimestamp(math.ceil(again_at), UTC).isoformat().replace("+00:00", "Z")
    return KeyplaneError(
        Reason.LIMIT_EXCEEDED,
        f"{what}, as with DynamoDB; it is possible again at {when}",
        metadata={"possible_at": when},
        retry_after_s=again_at - now,
    )
