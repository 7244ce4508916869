"""Named places where a test may stop or kill a process, to try what a crash just there does.

Cores call `crashpoint("split.persisted")` after every persisted step. Nothing happens unless the
process was started with that name in KEYPLANE_CRASH_AT (it kills itself with SIGKILL) or in
KEYPLANE_STOP_AT (it stops itself with SIGSTOP, so that a test can kill others first). A point acts
once: a process that was continued does not stop there again.
"""

from __future__ import annotations

from collections.abc import Callable

# Every point there is, so that a misspelt one is an error at start and tests can list them all.
# Filled by `declare` when the modules that hold the points are imported.
POINTS: set[str] = set()

_armed: dict[str, Callable[[], None]] = {}


def declare(*names: str) -> None:
    """Called once by the module that has the points, when it is imported."""
    POINTS.update(names)


def arm(name: str, action: Callable[[], None]) -> None:
    """Raises ValueError on a name no module has declared."""
    if name not in POINTS:
        raise ValueError(f"no crash point {name!r}; there are: {', '.join(sorted(POINTS))}")
    _armed[name] = action


def disarm(name: str | None = None) -> None:
    """Of one point, or of all."""
    if name is None:
        _armed.clear()
    else:
        _armed.pop(name, None)


def crashpoint(name: str) -> None:
    if _armed:
        action = _armed.pop(name, None)
        if action is not None:
            action()
