"""A question that can be asked of a fleet, and where to find each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from fleet.outcome import Outcome
from keyplane.model.errors import KeyplaneError, Reason

# In the order of `fleet run all`; each module of fleet.scenarios named so has a SCENARIO. They are
# loaded when wanted: numba takes a second to load.
NAMES = (
    "why-not-scale-metadata",
    "cold-start",
    "constant-work",
    "hedging",
    "control-plane-outage",
    "hot-partition",
    "noisy-tenant",
    "pool-size",
    "retry-storm",
    "split-storm",
)


@dataclass(frozen=True, slots=True)
class Context:
    """progress: called with how much is done, 0 to 1, and what is being done."""

    seed: int
    progress: Callable[[float, str], None]

    def stream(self, name: str) -> int:
        """The seed of one independent stream of random numbers, 64 bits: same seed and name, same
        numbers, whatever else is drawn."""
        digest = hashlib.blake2b(f"{self.seed}/{name}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big")


@dataclass(frozen=True, slots=True)
class Scenario:
    """parameters: a frozen dataclass of `fleet.parameters.parameter` fields; run gets one of it.

    question: one sentence with a question mark. explanation: what is modelled and how, by which
    layer, and what is left out; a few sentences.
    """

    name: str
    title: str
    question: str
    explanation: str
    parameters: type[Any]
    run: Callable[[Any, Context], Outcome]


def load(name: str) -> Scenario:
    """Raises INVALID_ARGUMENT on a name there is none of."""
    if name not in NAMES:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT, f"no scenario {name}; there are {', '.join(NAMES)}"
        )
    module = import_module("fleet.scenarios." + name.replace("-", "_"))
    scenario: Scenario = module.SCENARIO
    return scenario
