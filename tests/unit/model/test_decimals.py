"""DynamoDB numbers: what is read, what is refused, and how they are written back."""

from __future__ import annotations

import pytest

from keyplane.model.decimals import TEXT_MAX, ZERO, decode_number, encode_number, parse_number
from keyplane.model.errors import KeyplaneError, Reason


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("0", "0"),
        ("-0", "0"),
        ("0.000e5", "0"),
        ("7", "7"),
        ("+7", "7"),
        ("007", "7"),
        ("7.", "7"),
        (".5", "0.5"),
        ("1e2", "100"),
        ("1E+2", "100"),
        ("-12.50", "-12.5"),
        ("120", "120"),
        ("0.00120", "0.0012"),
        ("123.456e-1", "12.3456"),
        ("1e-130", "0." + "0" * 129 + "1"),
        ("9" * 38 + "e88", "9" * 38 + "0" * 88),
    ],
)
def test_equal_numbers_are_one_number_in_plain_notation(text: str, plain: str) -> None:
    assert str(parse_number(text)) == plain
    assert parse_number(plain) == parse_number(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "abc",
        "1e",
        "e5",
        ".",
        "-",
        "--1",
        "1,5",
        "0x10",
        "NaN",
        "Infinity",
        "1_000",
        "١",
    ],
)
def test_text_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(KeyplaneError, match="is not a number") as caught:
        parse_number(text)
    assert caught.value.reason is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1" * 39, "39 significant digits"),
        ("1e126", "out of range"),
        ("-1e126", "out of range"),
        ("9.9e-131", "out of range"),
        ("1e999999999999", "out of range"),
        ("0" * (TEXT_MAX + 1), "characters"),
    ],
)
def test_numbers_that_would_lose_something_are_refused(text: str, why: str) -> None:
    with pytest.raises(KeyplaneError, match=why):
        parse_number(text)


def test_zeros_around_the_digits_do_not_count_as_significant() -> None:
    assert parse_number("0" * 50 + "1" * 38 + "0" * 50).digits == "1" * 38


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\x04",
        b"\x03",
        b"\x03\x82",
        b"\x03\x82\x0b",
        b"\x03\x82\x00",  # no digits
        b"\x03\x82\x02\x00",  # a leading zero
        b"\x03\x82\x0b\x01\x00",  # a trailing pair of zeros
        b"\x03\x82\xff\x00",  # no pair of digits
        b"\x03\x82" + b"\x0b" * 20 + b"\x00",  # 40 digits
    ],
)
def test_bytes_that_the_encoding_never_writes_are_refused(encoded: bytes) -> None:
    with pytest.raises(ValueError):
        decode_number(encoded, 0)


def test_zero_is_one_byte_between_the_negative_and_the_positive() -> None:
    below, above = (encode_number(parse_number(text)) for text in ("-1e-130", "1e-130"))
    assert below < encode_number(ZERO) < above
