"""The seeded world: every part of Keyplane in one process, in virtual time, from one seed.

The routers, storage nodes, Metadata Store and clients in here are the real ones; only what they
touch is simulated: time, the network, memcached, disks, and the life and death of processes.

What a scenario of one's own needs can be imported from here; docs/simulation.md has examples.
"""

from sim.observers import ALL as INVARIANTS
from sim.observers import Observer
from sim.scenario import Result, Scenario
from sim.topology import TableSpec, Topology
from sim.workload import WorkloadSpec

__all__ = [
    "INVARIANTS",
    "Observer",
    "Result",
    "Scenario",
    "TableSpec",
    "Topology",
    "WorkloadSpec",
]
