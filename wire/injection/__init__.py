"""Faults in a real process: the ports, wrapped so that they misbehave as they are told.

Nothing here is in the way of a process that was started without `--enable-faults`.
"""

from wire.injection.engine import FaultyEngine
from wire.injection.memds import FaultyMemdsNode
from wire.injection.network import FaultyServer, FaultyTransport
from wire.injection.table import FaultTable

__all__ = ["FaultTable", "FaultyEngine", "FaultyMemdsNode", "FaultyServer", "FaultyTransport"]
