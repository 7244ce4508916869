"""grpcio's own words, told apart by which end says them."""

from __future__ import annotations

from keyplane.model.errors import Reason
from keyplane.model.grpc_failures import OwnFailure, own_failure


def test_a_request_that_is_too_large_for_its_sender_was_not_sent() -> None:
    text = "CLIENT: Sent message larger than max (25000000 vs. 20971520)"
    assert own_failure(text) == OwnFailure(Reason.INVALID_ARGUMENT, sent=False)


def test_an_answer_that_is_too_large_leaves_open_what_was_done() -> None:
    """Whichever end refuses it. A server's own refusal is read from its status code."""
    text = "larger than max (25000000 vs. 20971520)"
    received = own_failure(f"CLIENT: Received message {text}")
    assert received == OwnFailure(Reason.INTERNAL, sent=True)
    assert own_failure(f"SERVER: Sent message {text}") is None


def test_other_words_are_not_grpcio_s() -> None:
    assert own_failure("no such table") is None
