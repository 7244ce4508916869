"""Designs of one's own: described in a file, checked, and run by the cohort layer."""

from fleet.design.files import design_of, load_design
from fleet.design.model import (
    Cache,
    Design,
    Fault,
    FaultKind,
    Memds,
    Metadata,
    Policies,
    Routers,
    Storage,
    Traffic,
    check,
    describe,
)
from fleet.design.run import as_scenario, run_design

__all__ = [
    "Cache",
    "Design",
    "Fault",
    "FaultKind",
    "Memds",
    "Metadata",
    "Policies",
    "Routers",
    "Storage",
    "Traffic",
    "as_scenario",
    "check",
    "describe",
    "design_of",
    "load_design",
    "run_design",
]
