"""Planting bugs at run time: a function with a few words of its source replaced.

An edit names the text that it replaces, so a mutant reads like the line of a diff that brought the
bug in, and one that no longer fits the code says so instead of quietly doing nothing.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import dis
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any


@dataclass(frozen=True, slots=True)
class Edit:
    """In the source of `function`, without the indentation of its `def`, `old` becomes `new`.

    `old` occurs there exactly once.
    """

    function: Callable[..., Any]
    old: str
    new: str


@contextmanager
def planted(edits: Iterable[Edit]) -> Iterator[None]:
    """Makes the edits, and undoes them in the end.

    A function's code is exchanged in place, so whoever holds the function runs the new one, and
    whoever it was given to as well. Raises ValueError on an edit that does not fit, changing
    nothing.
    """
    sources: dict[FunctionType, str] = {}
    for edit in edits:
        function = _function(edit.function)
        source = sources.get(function) or textwrap.dedent(inspect.getsource(function))
        if source.count(edit.old) != 1:
            raise ValueError(
                f"{function.__qualname__} does not have {edit.old!r} once, but"
                f" {source.count(edit.old)} times: the mutant must follow the code"
            )
        sources[function] = source.replace(edit.old, edit.new)
    codes = {function: _compiled(function, source) for function, source in sources.items()}
    before = {function: function.__code__ for function in codes}
    try:
        for function, code in codes.items():
            function.__code__ = code
        yield
    finally:
        for function, code in before.items():
            function.__code__ = code


def _function(function: Callable[..., Any]) -> FunctionType:
    plain = inspect.unwrap(function)
    if not isinstance(plain, FunctionType):
        raise ValueError(f"{function!r} is no plain function")
    return plain


def _compiled(function: FunctionType, source: str) -> CodeType:
    tree = ast.parse(source)
    ast.increment_lineno(tree, function.__code__.co_firstlineno - 1)
    flags = __future__.annotations.compiler_flag
    module = compile(tree, function.__code__.co_filename, "exec", flags, dont_inherit=True)
    code = next(each for each in _codes_in(module) if each.co_name == function.__name__)
    unknown = _globals_of(code) - function.__globals__.keys() - vars(builtins).keys()
    if unknown:
        raise ValueError(f"{function.__qualname__} would use {sorted(unknown)}, which is not there")
    return code


def _globals_of(code: CodeType) -> set[str]:
    """Names that a function and those inside it look up in its module."""
    names = {each.argval for each in dis.get_instructions(code) if each.opname == "LOAD_GLOBAL"}
    return names.union(*map(_globals_of, _codes_in(code)))


def _codes_in(code: CodeType) -> list[CodeType]:
    return [const for const in code.co_consts if isinstance(const, CodeType)]
