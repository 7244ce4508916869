"""GetHeat, GetPlan, SetPlanner."""

from __future__ import annotations

from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError
from metadata.catalog import Catalog
from metadata.change import Change
from metadata.config import PAGE_SIZE_MAX
from metadata.handlers.checks import invalid
from metadata.handlers.dispatch import Answer, Handling, Parts
from metadata.planner.heat import HEAT_BINS_MAX, heat_of
from metadata.records import PlannerMode
from metadata.writer import Decision

_MODES = {
    pb.PLANNER_MODE_ON: PlannerMode.ON,
    pb.PLANNER_MODE_DRY_RUN: PlannerMode.DRY_RUN,
    pb.PLANNER_MODE_OFF: PlannerMode.OFF,
}


def _heat(parts: Parts, request: pb.GetHeatRequest, answer: Answer) -> None:
    for name, value, most in (
        ("bins", request.bins, HEAT_BINS_MAX),
        ("limit", request.limit, PAGE_SIZE_MAX),
    ):
        if value > most:
            raise invalid(f"{name} {value} is more than {most:,}")
    world = parts.world
    answer(heat_of(request, world.catalog, world.registry, world.config.planner))


def _get(parts: Parts, request: pb.GetPlanRequest, answer: Answer) -> None:
    answer(parts.planner.describe())


def _set(parts: Parts, request: pb.SetPlannerRequest, answer: Answer) -> None:
    mode = _MODES.get(request.mode)
    if mode is None:
        raise invalid("mode must be ON, DRY_RUN or OFF")

    def decide(catalog: Catalog) -> Decision[None]:
        change = None if catalog.planner is mode else Change(catalog.counters, planner=mode)
        return Decision(change, None)

    def decided(outcome: KeyplaneError | None) -> None:
        answer(outcome or pb.SetPlannerResponse())

    parts.writer.submit(decide, decided)


METHODS = {
    "GetHeat": Handling(pb.GetHeatRequest, _heat, all_tables=True),
    "GetPlan": Handling(pb.GetPlanRequest, _get),
    "SetPlanner": Handling(pb.SetPlannerRequest, _set),
}
