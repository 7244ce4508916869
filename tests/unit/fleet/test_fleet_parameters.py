"""Parameters: what is refused, and which value goes before which."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from fleet.parameters import make_parameters, parameter, parameters_of
from keyplane.model.errors import KeyplaneError, Reason


@dataclass(frozen=True, slots=True)
class Asked:
    nodes: int = parameter(10, "", "nodes", low=1, high=100, source="chosen")
    wait_ms: float = parameter(
        2.5, "ms", "wait", low=0.1, high=1_000, source="chosen", measured="get_idle_ms"
    )


def test_a_flag_goes_before_a_calibration_and_that_before_what_is_published() -> None:
    assert make_parameters(Asked, None, {}) == Asked(10, 2.5)
    measured = {"get_idle_ms": 0.2, "another": 9.0}
    assert make_parameters(Asked, measured, {}) == Asked(10, 0.2)
    assert make_parameters(Asked, measured, {"wait_ms": 7, "nodes": 20}) == Asked(20, 7.0)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("nodes", 0.0, "from 1 to 100"),
        ("nodes", 2.5, "a whole number"),
        ("nodes", math.nan, "from 1 to 100"),
        ("nodes", math.inf, "from 1 to 100"),
        ("wait_ms", -math.inf, "from 0.1 to 1000 ms"),
        ("wait_ms", math.nan, "from 0.1 to 1000 ms"),
        ("wait", 1.0, "there are nodes, wait_ms"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(name: str, value: float, told: str) -> None:
    with pytest.raises(KeyplaneError) as refused:
        make_parameters(Asked, None, {name: value})
    assert refused.value.reason is Reason.INVALID_ARGUMENT
    assert told in refused.value.message


def test_a_calibrated_value_out_of_bounds_is_refused_too() -> None:
    with pytest.raises(KeyplaneError, match=r"measured, --wait-ms is 5000; give .*measure again"):
        make_parameters(Asked, {"get_idle_ms": 5_000.0}, {})
    assert make_parameters(Asked, {"get_idle_ms": 5_000.0}, {"wait_ms": 3.0}).wait_ms == 3.0


def test_a_field_that_is_no_parameter_is_a_mistake_of_the_scenario() -> None:
    @dataclass
    class Wrong:
        nodes: int = 3

    with pytest.raises(TypeError, match="nodes"):
        parameters_of(Wrong)
