"""Options and fixtures of the live fault suite, and the table that it prints.

pytest tests/faults                      the short form
pytest tests/faults --faults-long        minutes instead of seconds for each scenario
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_scenario import Report, Scenario, run
from fault_scene import create_table

from keyplane.cluster import Cluster, ClusterConfig

HEADINGS = f"{'scenario':<34} {'available':>9} {'p99':>11} {'recovery':>9} {'requests':>7} failures"

_reports = pytest.StashKey[list[Report]]()

Play = Callable[[Scenario], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--faults-long", action="store_true", help="Run the long form.")
    group.addoption("--faults-seed", type=int, default=None, help="Seed of what is random.")
    group.addoption("--faults-report", default="", help="File to write a JSON line per scenario.")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for all the scenarios of a file."""
    running = Cluster(home=tmp_path_factory.mktemp("faults"))
    try:
        running.up(ClusterConfig(enable_faults=True))
        create_table(running)
        yield running
    finally:
        running.down(wipe=True)


@pytest.fixture
def play(
    cluster: Cluster,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Play:
    long = bool(request.config.getoption("--faults-long", default=False))
    given = request.config.getoption("--faults-seed", default=None)
    seed = random.randrange(1_000_000) if given is None else given

    def run_one(scenario: Scenario) -> None:
        if scenario.long_only and not long:
            pytest.skip("only in the long form: --faults-long")
        print(f"seed {seed}")
        directory = Path(tmp_path_factory.getbasetemp()) / "histories"
        report = run(scenario, cluster, long, seed, directory)
        request.config.stash.setdefault(_reports, []).append(report)
        path = request.config.getoption("--faults-report", default="")
        if path:
            with Path(path).open("a") as file:
                file.write(report.to_json() + "\n")

    return run_one


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    reports = config.stash.get(_reports, [])
    if reports:
        terminalreporter.section("faults")
        terminalreporter.write_line(HEADINGS)
        for report in reports:
            terminalreporter.write_line(report.line())
