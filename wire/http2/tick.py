"""When what connections have written goes to their sockets: once a tick, and no later than needed.

A tick of the event loop is all callbacks that were ready at its start. What is written while a
connection reads leaves at the end of the tick, so that it goes out together with what other
connections of the tick cause; and at once if there are no others. Waiting for the loop to come
round would cost a request in an idle process two further looks at all sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from wire.http2.connection import Connection


class Tick:
    """Of one event loop, for all its connections."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # Callbacks of this tick that have not run yet. asyncio's own loops keep them there; of
        # others nothing is known, so that they always come round.
        self._left: Sized | None = getattr(loop, "_ready", None)
        self._due: list[Connection] = []
        self._reading = False
        self._scheduled = False

    def add(self, connection: Connection) -> None:
        """Of a connection that has something to send, once until its `flush`."""
        self._due.append(connection)
        if not self._reading:
            self._schedule()

    def read_begins(self) -> None:
        self._reading = True

    def read_ends(self) -> None:
        self._reading = False
        if not self._due:
            return
        if self._left is not None and not len(self._left):
            self._flush()
        else:
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._come_round)

    def _come_round(self) -> None:
        self._scheduled = False
        self._flush()

    def _flush(self) -> None:
        due, self._due = self._due, []
        for connection in due:
            connection.flush()


_ticks: WeakKeyDictionary[asyncio.AbstractEventLoop, Tick] = WeakKeyDictionary()


def tick_of(loop: asyncio.AbstractEventLoop) -> Tick:
    found = _ticks.get(loop)
    if found is None:
        found = _ticks[loop] = Tick(loop)
    return found
