"""Table names are held to DynamoDB's rule."""

from __future__ import annotations

import pytest

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.limits import validate_table_name


@pytest.mark.parametrize("name", ["abc", "A-b_c.9", "x" * 255])
def test_good_names_pass(name: str) -> None:
    validate_table_name(name)


@pytest.mark.parametrize(
    "name", ["", "ab", "x" * 256, "with space", "naïve", "slash/", "nl\n", "abc\n"]
)
def test_bad_names_are_refused_and_not_shown_at_length(name: str) -> None:
    with pytest.raises(KeyplaneError, match="3 to 255 characters") as caught:
        validate_table_name(name)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert len(caught.value.message) < 200
