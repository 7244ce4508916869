"""Designs in files: TOML, or Python that defines DESIGN."""

from __future__ import annotations

import runpy
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from fleet.design.model import (
    SECTIONS,
    USED,
    Cache,
    Design,
    Fault,
    FaultKind,
    check,
    refusal,
    specs,
)
from fleet.design.units import QuantityError, quantity
from keyplane.model.errors import KeyplaneError, Reason

E = TypeVar("E", bound=StrEnum)

# A file of more than this is something else.
_BYTES_MAX = 1_000_000


def load_design(path: Path) -> Design:
    """A Python file is run, with all that it may do. Raises INVALID_ARGUMENT: no such file, no TOML
    (the message has the line), or no design; the message says what to write instead."""
    path = Path(path)
    try:
        if path.stat().st_size > _BYTES_MAX:
            raise _error(path, "too large for a design")
        if path.suffix == ".py":
            return _of_python(path)
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _error(path, "there is no such file") from None
    except UnicodeDecodeError:
        raise _error(path, "not text in UTF-8") from None
    except OSError as error:
        raise _error(path, f"cannot be read: {error.strerror}") from error
    try:
        facts = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _error(path, f"not TOML: {error}") from error
    try:
        return design_of(facts)
    except KeyplaneError as error:
        raise _error(path, error.message) from error


def design_of(facts: Mapping[str, Any]) -> Design:
    """Of what a TOML file holds. Raises INVALID_ARGUMENT."""
    numbers = specs(Design)
    _known(facts, ("name", "title", *numbers, *SECTIONS, "faults"), "design")
    if not isinstance(facts.get("name"), str) or not facts["name"].strip():
        raise refusal("design", 'it has no name; write name = "..." in the first line')
    if not isinstance(facts.get("title", ""), str):
        raise refusal("design", f"title is {facts['title']!r}; write it in quotes")
    parts: dict[str, Any] = {}
    for name, kind in SECTIONS.items():
        given = facts.get(name, {})
        if not isinstance(given, dict):
            raise refusal("design", f"{name} is {given!r}; write a table: [{name}]")
        words = {"cache"} if name == "routers" else set()
        _known(given, (*specs(kind), *words), name)
        values = _numbers(kind, given, name)
        if "cache" in given and name == "routers":
            values["cache"] = _one_of(Cache, given["cache"], "cache", name)
        parts[name] = kind(**values)
    faults = facts.get("faults", [])
    if not isinstance(faults, list) or not all(isinstance(each, dict) for each in faults):
        raise refusal("faults", "write each as a table of its own: [[faults]]")
    design = Design(
        name=facts["name"].strip(),
        title=facts.get("title", ""),
        faults=tuple(
            _fault(each, f"faults, number {number}") for number, each in enumerate(faults, 1)
        ),
        **_numbers(Design, facts, "design"),
        **parts,
    )
    return check(design)


def _fault(given: Mapping[str, Any], where: str) -> Fault:
    if "kind" not in given:
        raise refusal(where, f"it has no kind; there are {_listed(FaultKind)}")
    kind = _one_of(FaultKind, given["kind"], "kind", where)
    numbers = specs(Fault)
    _known(given, ("kind", *numbers), where)
    usable = {"at_s", *USED[kind]}
    for key, spec in numbers.items():
        if key in given and spec.attribute not in usable:
            told = ", ".join(k for k, each in numbers.items() if each.attribute in usable)
            raise refusal(where, f"{kind} has no {key}; it has {told}")
    if "at" not in given:
        raise refusal(where, f'{kind}: say when, as in at = "60 s"')
    return Fault(kind=kind, **_numbers(Fault, given, where))


def _numbers(kind: type, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Those that are given, checked, by attribute."""
    found: dict[str, Any] = {}
    for key, spec in specs(kind).items():
        if key not in given:
            continue
        try:
            value = quantity(given[key], spec.dimension)
        except QuantityError as error:
            raise refusal(where, f"{key} {error}") from error
        spec.checked(value, where)
        found[spec.attribute] = int(value) if spec.whole else value
    return found


def _known(given: Iterable[str], known: Iterable[str], where: str) -> None:
    names = tuple(known)
    for key in given:
        if key in names:
            continue
        near = get_close_matches(key, names, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"
        raise refusal(where, f"{key} is unknown{hint}")


def _one_of(kind: type[E], given: object, key: str, where: str) -> E:
    if isinstance(given, str):
        wanted = " ".join(given.replace("-", " ").replace("_", " ").lower().split())
        for each in kind:
            if each == wanted:
                return each
        near = get_close_matches(wanted, [str(each) for each in kind], n=1, cutoff=0.6)
        if near:
            raise refusal(where, f"{key} is {given!r}; did you mean {near[0]!r}?")
    raise refusal(where, f"{key} is {given!r}; there are {_listed(kind)}")


def _listed(kind: type[StrEnum]) -> str:
    return ", ".join(repr(str(each)) for each in kind)


def _of_python(path: Path) -> Design:
    try:
        found = runpy.run_path(str(path)).get("DESIGN")
    except KeyplaneError as error:
        raise _error(path, error.message) from error
    except SyntaxError as error:
        raise _error(path, f"line {error.lineno}: {error.msg}") from error
    except Exception as error:
        raise _error(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(found, Design):
        raise _error(path, "it defines no DESIGN = Design(...), of fleet.design")
    try:
        return check(replace(found, faults=tuple(found.faults)))
    except KeyplaneError as error:
        raise _error(path, error.message) from error


def _error(path: Path, what: str) -> KeyplaneError:
    return KeyplaneError(Reason.INVALID_ARGUMENT, f"{path}: {what}")
