"""Reads every key of an ack log back and judges what is there."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from keyplane.client.aio import AsyncClient
from keyplane.model.errors import KeyplaneError
from keyplane.workload.verdict import KeyHistory, Verdict

# Reads in flight.
_CLIENTS = 32

# Keys named in a report; there is one line for each.
_NAMED_MAX = 20


@dataclass(slots=True)
class Report:
    """keys: by verdict. violations: up to 20 keys that did not hold. unread: keys that could not be
    read, by reason, about which nothing can be said.
    """

    keys: Counter[Verdict] = field(default_factory=Counter)
    violations: list[dict[str, object]] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)

    @property
    def lost(self) -> int:
        return self.keys[Verdict.LOST]

    @property
    def applied_twice(self) -> int:
        return self.keys[Verdict.APPLIED_TWICE]


async def verify(
    client: AsyncClient,
    found: Mapping[tuple[str, str], KeyHistory],
    key_attributes: Mapping[str, str],
    timeout_s: float,
    on_read: Callable[[], None] = lambda: None,
) -> Report:
    """key_attributes: name of the partition key of each table in the log.

    on_read: called after each key.
    """
    report = Report()
    left = iter(found.items())

    async def read_some() -> None:
        for (table, key), history in left:
            try:
                item = await client.get_versioned(
                    table, {key_attributes[table]: key}, consistent=True, timeout_s=timeout_s
                )
            except KeyplaneError as error:
                report.unread[error.reason.name] += 1
            else:
                content, version = (None, 0) if item is None else item
                _judge(report, table, key, history, history.judge(content, version), version)
            on_read()

    async with asyncio.TaskGroup() as group:
        for _ in range(_CLIENTS):
            group.create_task(read_some())
    return report


def _judge(
    report: Report, table: str, key: str, history: KeyHistory, verdict: Verdict, version: int
) -> None:
    report.keys[verdict] += 1
    if verdict in (Verdict.LOST, Verdict.APPLIED_TWICE) and len(report.violations) < _NAMED_MAX:
        report.violations.append(
            {
                "table": table,
                "key": key,
                "verdict": verdict.value,
                "acknowledged_version": history.last.version if history.last else None,
                "found_version": version,
            }
        )
