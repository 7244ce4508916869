"""What a write does, given the item that is there: tokens, then conditions, then the new value.

Pure: nothing here touches an engine, so the rules can be read and tested alone.
"""

from __future__ import annotations

from mypy_extensions import mypyc_attr

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError, Reason
from storage.request import ItemWrite
from storage.stored import made_by, read_version, seal_item
from storage.tokens import Remembered, covers


@mypyc_attr(acyclic=True, free_list_len=1)
class Outcome:
    """version, existed: the answer. changed: whether the entry becomes `value` (None: deleted)."""

    __slots__ = ("changed", "existed", "value", "version")

    def __init__(
        self, version: int, existed: bool, changed: bool = False, value: bytes | None = None
    ) -> None:
        self.version = version
        self.existed = existed
        self.changed = changed
        self.value = value


def recall(
    write: ItemWrite,
    stored: bytes | None,
    remembered: Remembered | None,
    covers_since: float,
    arrived_at: float,
) -> Outcome | None:
    """The answer of an earlier attempt of the same write, or None if there was none.

    stored: the item that is there. remembered: under the token. covers_since: what was done after
    that would be remembered. arrived_at: when the request did, which its age is of.

    A first attempt that nothing explains is carried out, however far the memory reaches back. It
    does not say how old it is, so refusing it would refuse every write of a node whose memory is
    short. It can be a late copy of a write that was done and forgotten only if it lay unread in
    some stopped process for longer than the memory reaches back.

    Raises KeyplaneError: CONDITION_FAILED if that was the answer, RETRY_NOT_COVERED when nobody can
    tell.
    """
    if remembered is not None:
        return repeat(remembered)
    if stored is not None and made_by(stored, write.token):
        # What was there before it is forgotten; the version it made is not.
        return Outcome(read_version(stored), True)
    if write.attempt == 0 or covers(covers_since, write.age_ms / 1000, arrived_at):
        return None
    raise KeyplaneError(
        Reason.RETRY_NOT_COVERED,
        "this node no longer knows whether an earlier attempt of this write was carried out;"
        " read the item to find out",
    )


def repeat(remembered: Remembered) -> Outcome:
    """Raises KeyplaneError(CONDITION_FAILED) if that was the answer."""
    if remembered.refused:
        raise KeyplaneError(
            Reason.CONDITION_FAILED, "the item was not as demanded when this write was first tried"
        )
    return Outcome(remembered.version, remembered.existed)


def carry_out(write: ItemWrite, found_version: int | None, version: int) -> Outcome:
    """found_version: of the item that is there. version: for the item, if it is written.

    Raises KeyplaneError(CONDITION_FAILED).
    """
    existed = found_version is not None
    stored_version = found_version or 0
    if write.condition is not None:
        _check_condition(write.condition, stored_version)
    if write.put is not None:
        sealed = seal_item(version, write.token, write.put, write.item_bytes)
        return Outcome(version, existed, changed=True, value=sealed)
    return Outcome(stored_version, existed, changed=existed)


def _check_condition(condition: data.Condition, stored_version: int) -> None:
    """stored_version: 0 when there is no item; items have versions from 1 on."""
    kind = condition.WhichOneof("condition")
    if kind == "exists" and condition.exists != bool(stored_version):
        found = "exists" if stored_version else "does not exist"
        raise KeyplaneError(Reason.CONDITION_FAILED, f"the item {found}")
    if kind == "version_equals" and condition.version_equals != (stored_version or None):
        found = f"has version {stored_version}" if stored_version else "does not exist"
        raise KeyplaneError(
            Reason.CONDITION_FAILED,
            f"the item {found}, not version {condition.version_equals}",
            {"version": str(stored_version)},
        )
