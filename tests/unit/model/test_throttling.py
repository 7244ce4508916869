"""What throttled callers are told."""

from __future__ import annotations

from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo

from keyplane.model.errors import Code, KeyplaneError, Reason
from keyplane.model.throttling import Limit, throttled, throttling_reason


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
