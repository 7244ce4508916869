"""What throttled callers are told."""

from __future__ import annotations

import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from hypothesis import given
from hypothesis import strategies as st

from keyplane.model.errors import Code, KeyplaneError, Reason
from keyplane.model.throttling import Limit, Refusals, throttled, throttling_reason


def test_there_are_sixteen_reasons_in_dynamodbs_words() -> None:
    names = {
        throttling_reason(limit, writes, index)
        for limit in Limit
        for writes in (False, True)
        for index in (False, True)
    }
    assert len(names) == 16
    assert "TableReadProvisionedThroughputExceeded" in names
    assert "IndexWriteMaxOnDemandThroughputExceeded" in names
    assert "TableWriteAccountLimitExceeded" in names
    assert "IndexReadKeyRangeThroughputExceeded" in names


def test_refusals_that_say_the_same_are_one() -> None:
    """Waits are rounded up to 5 ms, and long ones to 100 ms."""
    refusals = Refusals(Limit.KEY_RANGE, True, "music", "too much")
    for wait_s, told_s in (
        (0.0, 0.005),
        (0.0049, 0.005),
        (0.005, 0.005),
        (0.0051, 0.010),
        (0.1, 0.1),
        (0.499, 0.5),
        (0.5, 0.5),
        (0.51, 0.6),
        (12.34, 12.4),
    ):
        error = refusals.after(wait_s)
        assert error.retry_after_s == pytest.approx(told_s)
        assert refusals.after(wait_s) is error
    assert refusals.after(0.001) is refusals.after(0.004)
    assert refusals.after(0.001) is not refusals.after(0.008)


@given(st.lists(st.floats(0, 1e6), max_size=400))
def test_no_refusal_asks_back_too_early_and_few_are_kept(waits: list[float]) -> None:
    refusals = Refusals(Limit.PROVISIONED, False, "music", "too much")
    for wait_s in waits:
        told_s = refusals.after(wait_s).retry_after_s
        assert told_s is not None
        assert wait_s - 1e-3 <= told_s <= wait_s + 0.1 + 1e-3
        assert len(refusals._by_wait) <= 16


def test_the_reason_the_resource_and_the_wait_travel_in_the_status() -> None:
    error = throttled(Limit.KEY_RANGE, True, "music", "too much", 0.25)
    status = error.to_status()
    assert status.code == Code.RESOURCE_EXHAUSTED
    info, retry = ErrorInfo(), RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert info.reason == "THROTTLED"
    assert dict(info.metadata) == {
        "reason": "TableWriteKeyRangeThroughputExceeded",
        "resource": "arn:aws:dynamodb:local:000000000000:table/music",
    }
    assert retry.retry_delay.ToMilliseconds() == 250
    read = KeyplaneError.from_status(status.code, status.message, status.SerializeToString())
    assert (read.reason, read.metadata) == (Reason.THROTTLED, error.metadata)
    assert read.retry_after_s == 0.25
    assert read.definite
    assert read.retryable
