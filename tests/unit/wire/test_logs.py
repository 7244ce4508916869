"""Logs go to stderr, as JSON lines or for people, whoever writes them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

# Logging is set up once for a whole process, so each story gets one.
STORY = """
import logging, sys
import structlog
from wire.logs import LogFormat, LogLevel, configure_logging

configure_logging(LogLevel(sys.argv[1]), LogFormat(sys.argv[2]))
log = structlog.get_logger(service="router-1")
log.debug("detail")
log.info("ready", tables=3)
logging.getLogger("pymemcache").info("insides")
logging.getLogger("pymemcache").warning("from %s", "elsewhere")
try:
    password = "hunter2"
    raise ValueError("broken")
except ValueError:
    log.exception("failed")
"""


def logged(level: str, format: str) -> list[str]:
    story = subprocess.run(
        [sys.executable, "-c", STORY, level, format],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert story.stdout == "", "stdout belongs to results"
    assert "hunter2" not in story.stderr.replace('password = "hunter2"', "")
    return story.stderr.splitlines()


def test_off_a_terminal_every_line_is_json() -> None:
    ready, elsewhere, failed = map(json.loads, logged("info", "auto"))
    assert (ready["event"], ready["level"], ready["tables"]) == ("ready", "info", 3)
    assert ready["service"] == "router-1"
    assert ready["timestamp"].endswith("Z")
    assert (elsewhere["event"], elsewhere["logger"]) == ("from elsewhere", "pymemcache")
    assert failed["exception"].endswith("ValueError: broken")


def test_for_people_a_traceback_is_a_traceback() -> None:
    lines = logged("info", "console")
    assert "ready" in lines[0] and "tables" in lines[0]
    assert "from elsewhere" in lines[1]
    assert lines[-1] == "ValueError: broken"


def test_the_level_is_a_threshold() -> None:
    assert len(logged("error", "json")) == 1
    events = [json.loads(line)["event"] for line in logged("debug", "json")]
    assert events == ["detail", "ready", "from elsewhere", "failed"]


def test_a_log_that_cannot_be_written_is_lost_and_nothing_else_is(tmp_path: Path) -> None:
    """As on a full disk: the file may not grow. Whoever logs does not hear of it."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    with (tmp_path / "log").open("wb") as log:
        done = subprocess.run(
            [sys.executable, "-c", limit + STORY + "print('went on')", "info", "json"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            timeout=60,
            check=False,
        )
    assert done.stdout == b"went on\n"
    assert (tmp_path / "log").read_bytes() == b""
