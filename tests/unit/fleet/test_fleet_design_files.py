"""Designs in files: what they may say, and what is said of those that are wrong."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.design import Cache, FaultKind, describe, design_of, load_design
from fleet.design.model import SECTIONS, Design, Fault, specs
from fleet.design.units import Dimension, QuantityError, quantity, written
from keyplane.model.errors import KeyplaneError, Reason

GOOD = """
name = "shop"
duration = "5 min"

[traffic]
rate = "50k/s"
keys = 1000

[routers]
count = 20
cache = "ttl"
ttl = "2 min"

[policies]
timeout = "100 ms"

[[faults]]
kind = "cold caches"
at = "60 s"
share = "50 %"
"""


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("10 ms", Dimension.TIME, 0.01),
        ("250us", Dimension.TIME, 0.00025),
        ("1.5 h", Dimension.TIME, 5400.0),
        ("100k/s", Dimension.RATE, 100_000.0),
        ("2.5M/s", Dimension.RATE, 2_500_000.0),
        ("500 /s", Dimension.RATE, 500.0),
        ("99.75 %", Dimension.SHARE, 0.9975),
        ("10k", Dimension.COUNT, 10_000.0),
        ("1_000", Dimension.COUNT, 1_000.0),
        (7, Dimension.COUNT, 7.0),
    ],
)
def test_quantities_are_read_as_people_write_them(
    text: object, dimension: Dimension, value: float
) -> None:
    assert quantity(text, dimension) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("given", "dimension", "message"),
    [
        (60, Dimension.TIME, 'is 60 without a unit; write "250 ms"'),
        ("60", Dimension.TIME, "without a unit"),
        ("60 parsecs", Dimension.TIME, "'parsecs' is no unit of it; there are us, "),
        ("10 ms", Dimension.RATE, "a time; wanted is a rate"),
        ("99 %", Dimension.TIME, "a share; wanted is a time"),
        (0.5, Dimension.SHARE, 'write "99.75 %"'),
        ("soon", Dimension.TIME, "no number with a unit"),
        (True, Dimension.COUNT, "is True"),
        ([], Dimension.TIME, r"is \[\]"),
    ],
)
def test_what_is_no_quantity_is_told_what_to_write(
    given: object, dimension: Dimension, message: str
) -> None:
    with pytest.raises(QuantityError, match=message):
        quantity(given, dimension)


@given(
    st.floats(1e-5, 1e5).map(lambda value: float(f"{value:.5g}")),
    st.sampled_from([Dimension.TIME, Dimension.RATE, Dimension.SHARE]),
)
def test_what_is_written_is_read_back(value: float, dimension: Dimension) -> None:
    assert quantity(written(value, dimension), dimension) == pytest.approx(value, rel=1e-4)


def test_a_design_is_read(tmp_path: Path) -> None:
    design = load_design(file(tmp_path, GOOD))
    assert design.name == "shop"
    assert design.duration_s == 300
    assert design.traffic.rate_per_s == 50_000
    assert design.traffic.keys == 1000
    assert design.routers.cache is Cache.TTL
    assert design.routers.ttl_s == 120
    assert design.policies.timeout_s == 0.1
    (fault,) = design.faults
    assert (fault.kind, fault.at_s, fault.share) == (FaultKind.COLD_CACHES, 60, 0.5)
    # What is not said has the default of its field.
    assert design.policies.retries == Design(name="x").policies.retries


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("timeout =", "timeut =", r"\[policies\] timeut is unknown; did you mean timeout\?"),
        ("[policies]", "[polices]", r"\[design\] polices is unknown; did you mean policies\?"),
        ('"100 ms"', "100", r'\[policies\] timeout is 100 without a unit; write "250 ms"'),
        ('"100 ms"', '"100/s"', "a rate; wanted is a time"),
        ('"100 ms"', '"2 h"', "timeout is 2 h; give from 20 ms to 1 min"),
        ('"ttl"', '"tll"', "cache is 'tll'; did you mean 'ttl'"),
        ('"ttl"', '"file"', "there are 'none', 'ttl', 'memds', 'memds per request'"),
        ("count = 20", "count = 2.5", "count is 2.5; give a whole number"),
        ("count = 20", "count = 2", r"\[routers\] all together can do 20k/s, and traffic.rate"),
        ("keys = 1000", "keys = 0", "keys is 0; give from 1 to"),
        ('"cold caches"', '"cold cache"', "did you mean 'cold caches'"),
        ('at = "60 s"', 'at = "60 s"\nfor = "1 s"', "cold caches has no for; it has at, share"),
        ('at = "60 s"', 'at = "10 min"', "goes on until 10 min, and the run ends at 5 min"),
        ('at = "60 s"\n', "", 'cold caches: say when, as in at = "60 s"'),
        ('kind = "cold caches"', "", "it has no kind"),
        ('kind = "cold caches"\n', 'kind = "metadata down"\nhow = 1\n', "how is unknown"),
        ("[[faults]]", "[faults]", r"\[\[faults\]\]"),
        ('name = "shop"', "", "it has no name"),
        ('duration = "5 min"', 'duration = "5 min', r"not TOML: .*line 3"),
        ("[traffic]", 'step = "20 ms"\n[traffic]', "step is 20 ms; give from 500 us to 10 ms"),
        ("[traffic]", "traffic = 5\n[storage]", r"write a table: \[traffic\]"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_write(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in GOOD
    with pytest.raises(KeyplaneError, match=message) as caught:
        load_design(file(tmp_path, GOOD.replace(old, new, 1)))
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert "design.toml" in caught.value.message


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('[[faults]]\nkind = "metadata down"\nat = "1 s"', "say how long"),
        (
            '[[faults]]\nkind = "memds node slow"\nat = "1 s"\nfor = "1 s"\nnodes = 9',
            "9 nodes are slow, and memds.nodes is 3",
        ),
        ('[memds]\nnodes = 1\n[metadata]\npublish = "15 ms"', "no whole number of steps"),
        ("[storage]\nnodes = 1", r"\[storage\] all together can do 10k/s"),
    ],
)
def test_what_makes_no_sense_together_is_told(tmp_path: Path, lines: str, message: str) -> None:
    with pytest.raises(KeyplaneError, match=message):
        load_design(file(tmp_path, f"{GOOD}\n{lines}\n"))


def test_hedging_needs_two_nodes() -> None:
    facts = {"name": "x", "memds": {"nodes": 1}, "policies": {"hedge": "10 ms"}}
    with pytest.raises(KeyplaneError, match="hedge needs two MemDS nodes"):
        design_of(facts)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyplaneError, match=r"nowhere\.toml: there is no such file"):
        load_design(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("DESIGN = 5", "it defines no DESIGN"),
        ("x = 1\ndef", "line 2: invalid syntax"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        (
            "from fleet.design import *\nDESIGN = Design('x', duration_s=float('nan'))",
            "duration is nan",
        ),
        (
            "from fleet.design import *\nDESIGN = Design('x', routers=Routers(cache='lru'))",
            "cache is 'lru'; there are",
        ),
    ],
)
def test_a_python_file_is_checked_too(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "design.py"
    path.write_text(text)
    with pytest.raises(KeyplaneError, match=message):
        load_design(path)


def test_everything_a_design_has_is_described(tmp_path: Path) -> None:
    rows = describe(load_design(file(tmp_path, GOOD)))
    assert ("traffic", "rate", "50k/s") in rows
    assert ("faults", "cold caches", "at 1 min, share 50 %") in rows
    told = {(part, what) for part, what, _ in rows}
    for name, kind in SECTIONS.items():
        assert {(name, key) for key in specs(kind)} <= told


def test_every_number_has_help_and_bounds() -> None:
    for kind in (Design, Fault, *SECTIONS.values()):
        for spec in specs(kind).values():
            assert spec.help
            assert spec.low < spec.high < math.inf


def file(directory: Path, text: str) -> Path:
    path = directory / "design.toml"
    path.write_text(text)
    return path
