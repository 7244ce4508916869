"""A scenario that only takes its time: for tests of what is interrupted."""

from __future__ import annotations

import time
from dataclasses import dataclass

from fleet.outcome import Figure, Layer, Outcome
from fleet.parameters import parameter
from fleet.scenario import Context, Scenario


@dataclass(frozen=True, slots=True)
class Parameters:
    wait_s: float = parameter(0.1, "s", "How long.", low=0.0, high=10.0, source="chosen")


def run(asked: Parameters, context: Context) -> Outcome:
    time.sleep(asked.wait_s)
    return Outcome(
        (Figure("waited", asked.wait_s, "s", Layer.CLOSED),), (), (), (), "It took time."
    )


SCENARIO = Scenario("pause", "A pause", "How long does it take?", "It sleeps.", Parameters, run)
