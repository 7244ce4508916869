"""Every reason is raised in the class that says what a caller can do about it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import keyplane
from keyplane import (
    AlreadyExists,
    ConditionFailed,
    DeadlineExceeded,
    InvalidRequest,
    KeyplaneError,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    Reason,
    TableNotFound,
    Throttled,
    Unavailable,
    WrongState,
)
from keyplane.client.errors import error_class, typed


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (Reason.INVALID_ARGUMENT, InvalidRequest),
        (Reason.ITEM_TOO_LARGE, InvalidRequest),
        (Reason.UNKNOWN_METHOD, InvalidRequest),
        (Reason.TABLE_NOT_FOUND, TableNotFound),
        (Reason.NODE_NOT_FOUND, NotFound),
        (Reason.TABLE_EXISTS, AlreadyExists),
        (Reason.CONDITION_FAILED, ConditionFailed),
        (Reason.PARTITION_BUSY, WrongState),
        (Reason.NO_ROUTE, Unavailable),
        (Reason.OVERLOADED, Overloaded),
        (Reason.THROTTLED, Throttled),
        (Reason.DEADLINE_BEFORE_START, Unavailable),
        (Reason.DEADLINE_EXCEEDED, DeadlineExceeded),
        (Reason.CONNECTION_LOST, OutcomeUnknown),
        (Reason.RETRY_NOT_COVERED, OutcomeUnknown),
        (Reason.CORRUPT, KeyplaneError),
    ],
)
def test_classes(reason: Reason, kind: type[KeyplaneError]) -> None:
    assert error_class(reason) is kind


@pytest.mark.parametrize("reason", Reason)
def test_a_class_never_contradicts_its_reason(reason: Reason) -> None:
    """OutcomeUnknown is indefinite, Unavailable is definite and can be tried again."""
    kind = error_class(reason)
    if issubclass(kind, OutcomeUnknown):
        assert not reason.definite
    if issubclass(kind, Unavailable):
        assert reason.definite
        assert reason.retryable


def test_typing_keeps_everything_an_error_says() -> None:
    plain = KeyplaneError(Reason.OVERLOADED, "too much", {"table": "music"}, 0.5)
    error = typed(plain)
    assert isinstance(error, Overloaded)
    assert (error.message, error.metadata, error.retry_after_s) == (
        "too much",
        {"table": "music"},
        0.5,
    )
    assert typed(error) is error
    assert str(error) == "OVERLOADED: too much"


def test_all_public_names_are_there() -> None:
    for name in keyplane.__all__:
        assert getattr(keyplane, name).__name__ == name
    with pytest.raises(AttributeError):
        keyplane.nothing  # noqa: B018


def test_importing_the_model_does_not_load_grpc() -> None:
    """Servers and simulations import `keyplane.model`, which is free of I/O."""
    program = "import keyplane.model.errors, sys; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
