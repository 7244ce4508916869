"""Items: their size by DynamoDB's rules, what is refused, and the way to and from Python values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from decimal import Decimal
from typing import Any, TypeAlias, TypeVar

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.decimals import Number, parse_number
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.limits import ITEM_BYTES_MAX, NESTING_MAX, NUMBER_EXPONENT_MAX

_T = TypeVar("_T")

# What an attribute may hold in Python: str, int, Decimal, bytes, bool, None; lists, tuples and
# mappings of these; sets of str, of numbers or of bytes.
Value: TypeAlias = Any

_INTEGER_DIGITS_MAX = NUMBER_EXPONENT_MAX + 1
_INTEGER_END = 10**_INTEGER_DIGITS_MAX

# Sizes in bytes of parts that are no text, as documented in "DynamoDB item sizes and formats",
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
_BOOL_BYTES = 1
_NULL_BYTES = 1
_CONTAINER_BYTES = 3
_ELEMENT_BYTES = 1


def item_size(item: data.Item) -> int:
    """Size in bytes as DynamoDB counts it, names included. Raises as `validate_item`, but for the
    size itself.
    """
    return sum(
        _name_size(name) + _value_size(name, value, 0) for name, value in item.attributes.items()
    )


def validate_item(item: data.Item) -> int:
    """Checks everything that does not depend on the table, and returns the item's size in bytes.

    Raises KeyplaneError: ITEM_TOO_LARGE above 400 KB; INVALID_ARGUMENT for an attribute without a
    name or value, a number out of range, a null that is not true, an empty set or one with
    duplicates, or lists and maps nested more than 32 deep.
    """
    size = item_size(item)
    if size > ITEM_BYTES_MAX:
        raise KeyplaneError(
            Reason.ITEM_TOO_LARGE,
            f"the item has {size} bytes; at most {ITEM_BYTES_MAX} (400 KB) fit, names included",
        )
    return size


def _name_size(name: str) -> int:
    if not name:
        raise _unnamed()
    return len(name.encode())


def _value_size(path: str, value: data.AttributeValue, depth: int) -> int:
    match value.WhichOneof("value"):
        case "s":
            return len(value.s.encode())
        case "n":
            return _number_size(parse_number(value.n))
        case "b":
            return len(value.b)
        case "bool":
            return _BOOL_BYTES
        case "null" if value.null:
            return _NULL_BYTES
        case "null":
            raise _invalid(f"attribute {path!r}: null is always true")
        case "l" | "m":
            return _container_size(path, value, depth + 1)
        case "ss":
            return sum(len(text.encode()) for text in _members(path, value.ss.values))
        case "ns":
            numbers = [parse_number(text) for text in value.ns.values]
            return sum(map(_number_size, _members(path, numbers)))
        case "bs":
            return sum(map(len, _members(path, value.bs.values)))
        case _:
            raise _invalid(f"attribute {path!r} has no value")


def _container_size(path: str, value: data.AttributeValue, depth: int) -> int:
    if depth > NESTING_MAX:
        raise _invalid(f"lists and maps may nest {NESTING_MAX} deep; {path[:64]!r} goes deeper")
    size = _CONTAINER_BYTES
    if value.HasField("l"):
        for index, element in enumerate(value.l.values):
            size += _ELEMENT_BYTES + _value_size(f"{path}[{index}]", element, depth)
    else:
        for name, element in value.m.entries.items():
            size += _ELEMENT_BYTES + _name_size(name)
            size += _value_size(f"{path}.{name}", element, depth)
    return size


def _number_size(number: Number) -> int:
    """One byte for every two significant digits, and one."""
    return (len(number.digits) + 1) // 2 + 1


def _members(path: str, members: Collection[_T]) -> Collection[_T]:
    """The members of a set, once it is known to be one: not empty, and without duplicates."""
    if not members:
        raise _invalid(f"attribute {path!r}: a set must not be empty")
    if len(set(members)) != len(members):
        raise _invalid(f"attribute {path!r}: a set must not hold a value twice")
    return members


def to_item(values: Mapping[str, Value]) -> data.Item:
    """Wraps Python values. Lists and tuples become L, mappings M, sets of one kind SS, NS or BS.

    Raises KeyplaneError(INVALID_ARGUMENT) for a float (which cannot hold decimals exactly), an
    empty or mixed set, and any other type. Does not check what `validate_item` checks.
    """
    return data.Item(attributes={name: _wrap(name, value) for name, value in values.items()})


def from_item(item: data.Item) -> dict[str, Any]:
    """The Python values of an item: whole numbers as int, others as Decimal, sets as set.

    Raises KeyplaneError(MALFORMED_REQUEST) for an attribute without a value.
    """
    return {name: _unwrap(name, value) for name, value in item.attributes.items()}


def _wrap(path: str, value: Value) -> data.AttributeValue:
    match value:
        case None:
            return data.AttributeValue(null=True)
        case bool():  # before int, which it also is
            return data.AttributeValue(bool=value)
        case str():
            return data.AttributeValue(s=value)
        case bytes() | bytearray() | memoryview():
            return data.AttributeValue(b=bytes(value))
        case int() | Decimal():
            return data.AttributeValue(n=_number_text(path, value))
        case Mapping():
            entries = {name: _wrap(f"{path}.{name}", inner) for name, inner in value.items()}
            return data.AttributeValue(m=data.AttributeMap(entries=entries))
        case Set():
            return _wrap_set(path, value)
        case Sequence():
            values = [_wrap(f"{path}[{index}]", inner) for index, inner in enumerate(value)]
            return data.AttributeValue(l=data.AttributeList(values=values))
        case float():
            raise _invalid(
                f"attribute {path!r} is a float, which cannot hold decimals exactly;"
                f" write Decimal({str(value)!r})"
            )
        case _:
            raise _invalid(
                f"attribute {path!r} is a {type(value).__name__}, which no item can hold"
            )


def _wrap_set(path: str, members: Set[Any]) -> data.AttributeValue:
    kinds = {_set_kind(member) for member in members}
    if len(kinds) != 1:
        found = "mixed types" if kinds else "no members"
        raise _invalid(
            f"attribute {path!r} is a set of {found}; a set holds one type, and something"
        )
    match kinds.pop():
        case "ss":
            return data.AttributeValue(ss=data.StringSet(values=sorted(members)))
        case "bs":
            return data.AttributeValue(bs=data.BinarySet(values=sorted(members)))
        case "ns":
            texts = [_number_text(path, member) for member in sorted(members)]
            return data.AttributeValue(ns=data.NumberSet(values=texts))
        case other:
            raise _invalid(f"attribute {path!r}: a set cannot hold a {other}; use a list")


def _set_kind(member: object) -> str:
    match member:
        case str():
            return "ss"
        case bytes():
            return "bs"
        case int() | Decimal() if not isinstance(member, bool):
            return "ns"
        case _:
            return type(member).__name__


def _number_text(path: str, value: int | Decimal) -> str:
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise _invalid(f"attribute {path!r} is {value}, which is not a number an item can hold")
        return str(value)
    # Python refuses to write integers of more than some thousands of digits.
    if abs(value) >= _INTEGER_END:
        raise _invalid(
            f"attribute {path!r} is an integer of more than {_INTEGER_DIGITS_MAX} digits"
        )
    return str(value)


def _unwrap(path: str, value: data.AttributeValue) -> Any:
    match value.WhichOneof("value"):
        case "s":
            return value.s
        case "n":
            return _number(value.n)
        case "b":
            return value.b
        case "bool":
            return value.bool
        case "null":
            return None
        case "l":
            return [_unwrap(path, element) for element in value.l.values]
        case "m":
            return {name: _unwrap(name, element) for name, element in value.m.entries.items()}
        case "ss":
            return set(value.ss.values)
        case "ns":
            return {_number(text) for text in value.ns.values}
        case "bs":
            return set(value.bs.values)
        case _:
            raise KeyplaneError(Reason.MALFORMED_REQUEST, f"attribute {path!r} has no value")


def _number(text: str) -> int | Decimal:
    """Raises KeyplaneError(INVALID_ARGUMENT) on text that is no number."""
    plain = str(parse_number(text))
    return Decimal(plain) if "." in plain else int(plain)


def _unnamed() -> KeyplaneError:
    return _invalid("an attribute needs a name")


def _invalid(message: str) -> KeyplaneError:
    return KeyplaneError(Reason.INVALID_ARGUMENT, message)
