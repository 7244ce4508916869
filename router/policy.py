"""What a router does about a failed attempt: a table with a row per reason."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from keyplane.model.errors import Reason


class Action(enum.Enum):
    """The next step after a failed attempt; also the label under which it is counted."""

    # The caller gets the error.
    FAIL = "fail"
    # The route was wrong: take over what the node said and go there at once.
    REDIRECT = "redirect"
    # The node is right and may succeed later.
    WAIT = "wait"
    # The node may be gone: try again, then ask others whether somebody else serves it now.
    ASK = "ask"


_ACTIONS: Mapping[Reason, Action] = {
    Reason.STALE_ROUTE: Action.REDIRECT,
    Reason.NOT_SERVING: Action.WAIT,
    Reason.OVERLOADED: Action.WAIT,
    Reason.SHUTTING_DOWN: Action.WAIT,
    Reason.WRITE_ERROR: Action.WAIT,
    Reason.NODE_UNREACHABLE: Action.ASK,
    Reason.CONNECTION_LOST: Action.ASK,
}


def action_for(reason: Reason) -> Action:
    return _ACTIONS.get(reason, Action.FAIL)
