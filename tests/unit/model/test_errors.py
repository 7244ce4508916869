"""The error table, and its way over the wire and back."""

from __future__ import annotations

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.errors import MESSAGE_CHARS_MAX, Code, KeyplaneError, Reason
from keyplane.route.v1 import route_pb2 as route

HINT = route.RouteHint(partitions=[catalog.Partition(partition_id=7, epoch=2)])


def over_the_wire(error: KeyplaneError, *detail_types: type) -> KeyplaneError:
    status = error.to_status()
    return KeyplaneError.from_status(
        status.code, status.message, status.SerializeToString(), detail_types
    )


@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.name)
def test_every_reason_comes_back_as_itself(reason: Reason) -> None:
    """Reasons with equal rows are still different reasons."""
    assert over_the_wire(KeyplaneError(reason, "why")).reason is reason


def test_names_are_unique_and_rows_complete() -> None:
    assert len({reason.value for reason in Reason}) == len(Reason.__members__) == len(list(Reason))
    for reason in Reason:
        assert reason.code is not Code.OK
        assert 400 <= reason.http_status < 600
        assert reason.dynamodb_name


def test_what_waiting_heals_is_never_a_client_error() -> None:
    """Tools that know only codes must not give up on, or repeat, the wrong ones."""
    for reason in Reason:
        if reason.code in (Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.ALREADY_EXISTS):
            assert reason.definite and not reason.retryable, reason


def test_all_of_an_error_arrives() -> None:
    sent = KeyplaneError(Reason.STALE_ROUTE, "moved; retry", {"table": "t"}, 0.25, (HINT,))
    got = over_the_wire(sent, route.RouteHint)
    assert (got.reason, got.message, got.metadata, got.retry_after_s) == (
        Reason.STALE_ROUTE,
        "moved; retry",
        {"table": "t"},
        0.25,
    )
    assert got.detail(route.RouteHint) == HINT
    assert got.detail(catalog.Node) is None
    assert str(got) == "STALE_ROUTE: moved; retry"
    assert got.definite and got.retryable


def test_details_nobody_asked_for_are_dropped() -> None:
    assert over_the_wire(KeyplaneError(Reason.STALE_ROUTE, "", details=(HINT,))).details == ()


def test_a_long_message_is_cut() -> None:
    got = over_the_wire(KeyplaneError(Reason.INTERNAL, "x" * 100_000))
    assert got.message == "x" * MESSAGE_CHARS_MAX


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (Code.CANCELLED, Reason.CANCELLED),
        (Code.DEADLINE_EXCEEDED, Reason.DEADLINE_EXCEEDED),
        (Code.UNAVAILABLE, Reason.CONNECTION_LOST),
        (Code.RESOURCE_EXHAUSTED, Reason.OVERLOADED),
        (Code.UNIMPLEMENTED, Reason.UNKNOWN_METHOD),
        (Code.INVALID_ARGUMENT, Reason.INVALID_ARGUMENT),
        (Code.UNKNOWN, Reason.INTERNAL),
        (99, Reason.INTERNAL),
    ],
)
def test_a_status_without_details_is_read_by_its_code(code: int, reason: Reason) -> None:
    error = KeyplaneError.from_status(code, "from elsewhere")
    assert (error.reason, error.message) == (reason, "from elsewhere")


def test_a_code_alone_never_claims_that_nothing_was_done_when_something_may_have_been() -> None:
    for code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED, Code.UNKNOWN):
        assert not KeyplaneError.from_status(code, "").definite


BROKEN_INFO = AnyMessage(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")


@pytest.mark.parametrize(
    "details", [b"\xff\xff\xff", Status(details=[BROKEN_INFO]).SerializeToString()]
)
def test_garbage_in_the_details_falls_back_to_the_code(details: bytes) -> None:
    error = KeyplaneError.from_status(Code.UNAVAILABLE, "still readable", details)
    assert (error.reason, error.message) == (Reason.CONNECTION_LOST, "still readable")


def test_reasons_of_other_domains_and_of_newer_builds_fall_back_to_the_code() -> None:
    for info in (
        ErrorInfo(reason="STALE_ROUTE", domain="example.com"),
        ErrorInfo(reason="INVENTED_LATER", domain="keyplane"),
    ):
        status = Status(code=Code.UNAVAILABLE)
        status.details.add().Pack(info)
        error = KeyplaneError.from_status(Code.UNAVAILABLE, "", status.SerializeToString())
        assert error.reason is Reason.CONNECTION_LOST


def test_a_retry_delay_is_never_negative() -> None:
    status = Status(code=Code.UNAVAILABLE)
    retry = RetryInfo()
    retry.retry_delay.seconds = -5
    status.details.add().Pack(retry)
    error = KeyplaneError.from_status(Code.UNAVAILABLE, "", status.SerializeToString())
    assert error.retry_after_s == 0.0


def test_errors_are_told_apart_by_identity_as_exceptions_are() -> None:
    one, same = KeyplaneError(Reason.INTERNAL, "x"), KeyplaneError(Reason.INTERNAL, "x")
    assert len({one, same}) == 2
