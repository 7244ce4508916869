"""Plays transcripts: stories of a protocol, as commands and exactly what each of them says.

A transcript is a text file:

    # Prose, for people.
    scenario: storage

    > start s1
    s1 serves nothing

The line `scenario: KIND` names who understands the commands. Each line that begins with `> ` is a
command; the lines below it, up to an empty line, prose or the next command, are what it must print.
After a change that is meant, `KEYPLANE_REWRITE_TRANSCRIPTS=1 pytest tests/transcripts` writes what
the commands say now, and the difference is reviewed like any other.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from keyplane.model.errors import KeyplaneError

_KIND = "scenario: "
_COMMAND = "> "


class Scenario(Protocol):
    """One world, from the first command of a transcript to its last."""

    def run(self, words: list[str]) -> Iterable[str]:
        """What a command prints."""


_S = TypeVar("_S", bound=Callable[[], Scenario])

# How to make the world of each kind. Filled by `scenario` when the modules are imported.
SCENARIOS: dict[str, Callable[[], Scenario]] = {}


def scenario(kind: str) -> Callable[[_S], _S]:
    """Registers a class, made anew for every transcript of that kind."""

    def register(make: _S) -> _S:
        SCENARIOS[kind] = make
        return make

    return register


class Commands:
    """A scenario whose commands are its `do_*` methods: `> put a b` calls `do_put("a", "b")`.

    A method returns the lines it prints. A KeyplaneError becomes a line too, so that refusals can
    be told in a story; `explain` may add to it.
    """

    def run(self, words: list[str]) -> Iterable[str]:
        command: Callable[..., Iterable[str] | None] | None = getattr(
            self, f"do_{words[0].replace('-', '_')}", None
        )
        if command is None:
            known = sorted(
                name.removeprefix("do_").replace("_", "-")
                for name in dir(self)
                if name.startswith("do_")
            )
            raise ValueError(f"no command {words[0]!r}; there are: {', '.join(known)}")
        try:
            return list(command(*words[1:]) or ())
        except KeyplaneError as error:
            return [f"refused: {error.reason.name}", *self.explain(error)]

    def explain(self, error: KeyplaneError) -> Iterable[str]:
        return ()


def play(text: str) -> str:
    """The transcript as it should be: the same prose and commands, with what they print now."""
    played: list[str] = []
    world: Scenario | None = None
    for line in _without_output(text.splitlines()):
        played.append(line)
        if line.startswith(_KIND):
            kind = line.removeprefix(_KIND)
            if kind not in SCENARIOS:
                raise ValueError(f"no scenario {kind!r}; there are: {', '.join(sorted(SCENARIOS))}")
            world = SCENARIOS[kind]()
        elif line.startswith(_COMMAND):
            if world is None:
                raise ValueError(f"a command before the line `{_KIND}KIND`: {line}")
            played += world.run(shlex.split(line.removeprefix(_COMMAND)))
    return "\n".join(played) + "\n"


def _without_output(lines: Iterable[str]) -> Iterable[str]:
    in_output = False
    for line in lines:
        if line.startswith(_COMMAND):
            in_output = True
            yield line
        elif not line or line.startswith("#"):
            in_output = False
            yield line
        elif not in_output:
            yield line
