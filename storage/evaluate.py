"""What a write does, given the item that is there: tokens, then conditions, then the new value.

Pure: nothing here touches an engine, so the rules can be read and tested alone.
"""

from __future__ import annotations

from typing import NamedTuple

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.limits import ITEM_BYTES_MAX
from keyplane.storage.v1 import storage_pb2 as pb
from storage.stored import CLIENT_ID_BYTES, StoredHeader, join_token, seal_item
from storage.tokens import Remembered, TokenMemory

# The router enforces DynamoDB's limit on an item's size; its encoding may be somewhat longer.
PUT_BYTES_MAX = 2 * ITEM_BYTES_MAX


class Outcome(NamedTuple):
    """version, existed: the answer. changed: whether the entry becomes `value` (None: deleted)."""

    version: int
    existed: bool
    changed: bool = False
    value: bytes | None = None


def check_write(op: pb.WriteOp) -> bytes:
    """The write's token as `join_token` joins it, empty without one.

    Raises KeyplaneError: MALFORMED_REQUEST or ITEM_TOO_LARGE.
    """
    action = op.WhichOneof("action")
    if action is None or (action == "delete" and not op.delete):
        raise KeyplaneError(Reason.MALFORMED_REQUEST, "a write is a put or a delete")
    if len(op.put) > PUT_BYTES_MAX:
        raise KeyplaneError(
            Reason.ITEM_TOO_LARGE, f"an item may be {ITEM_BYTES_MAX >> 10} KB; this is larger"
        )
    if not op.HasField("token"):
        return b""
    token = op.token
    client_id = token.client_id
    if len(client_id) != CLIENT_ID_BYTES:
        raise KeyplaneError(
            Reason.MALFORMED_REQUEST, f"a token's client_id has {CLIENT_ID_BYTES} bytes"
        )
    return join_token(client_id, token.sequence)


def recall(
    op: pb.WriteOp,
    token: bytes,
    stored: StoredHeader | None,
    remembered: Remembered | None,
    memory: TokenMemory,
    arrived_at: float,
) -> Remembered | None:
    """The answer of an earlier attempt of the same write, or None if there was none.

    stored: of the item that is there. remembered: under the token. arrived_at: when the request
    did, which its age is of.

    A first attempt that nothing explains is carried out, however far the memory reaches back. It
    does not say how old it is, so refusing it would refuse every write of a node whose memory is
    short. It can be a late copy of a write that was done and forgotten only if it lay unread in
    some stopped process for longer than the memory reaches back.

    Raises KeyplaneError: CONDITION_FAILED if that was the answer, RETRY_NOT_COVERED when nobody can
    tell.
    """
    if remembered is not None:
        return repeat(remembered)
    if stored is not None and stored.token == token:
        # What was there before it is forgotten; the version it made is not.
        return Remembered(arrived_at, stored.version, True)
    if op.token.attempt == 0 or memory.covers(op.token.age_ms / 1000, arrived_at):
        return None
    raise KeyplaneError(
        Reason.RETRY_NOT_COVERED,
        "this node no longer knows whether an earlier attempt of this write was carried out;"
        " read the item to find out",
    )


def repeat(remembered: Remembered) -> Remembered:
    """Raises KeyplaneError(CONDITION_FAILED) if that was the answer."""
    if remembered.refused:
        raise KeyplaneError(
            Reason.CONDITION_FAILED, "the item was not as demanded when this write was first tried"
        )
    return remembered


def carry_out(op: pb.WriteOp, token: bytes, stored: StoredHeader | None, version: int) -> Outcome:
    """version: for the item, if it is written. Raises KeyplaneError(CONDITION_FAILED)."""
    existed = stored is not None
    stored_version = stored.version if stored is not None else 0
    if op.HasField("condition"):
        _check_condition(op.condition, stored_version)
    if op.WhichOneof("action") == "put":
        sealed = seal_item(version, token, op.put)
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
