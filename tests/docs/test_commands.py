"""Every command that the documentation shows is run, in the order in which it is shown.

Commands stand in fenced blocks marked `console`, on lines that begin with `$ `; a backslash at the
end continues one. The commands of one document share a directory for their data, so a cluster that
one block starts is there for the next. What a person would not run here is marked by a comment on
the line before the block:

    <!-- not run: the reason -->
    <!-- needs: grpcurl -->          skipped where that program is not installed
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
# The guide takes as long as all others together, so it runs in the lane that they do not run in.
IN_LANES = [
    pytest.param(path, marks=() if path.name == "guide.md" else pytest.mark.apart)
    for path in DOCUMENTS
]

_FENCE = re.compile(
    r"(?:<!-- (?P<mark>not run|needs): (?P<value>[^\n]*?) -->\n+)?"
    r"^```(?P<kind>\w*)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Command:
    line: str
    needs: str = ""
    not_run: str = ""


def commands_of(text: str) -> list[Command]:
    found = []
    for block in _FENCE.finditer(text):
        if block["kind"] != "console":
            continue
        joined = block["body"].replace("\\\n", " ")
        mark, value = block["mark"], block["value"] or ""
        found += [
            Command(
                line.removeprefix("$ "),
                needs=value if mark == "needs" else "",
                not_run=value if mark == "not run" else "",
            )
            for line in joined.splitlines()
            if line.startswith("$ ")
        ]
    return found


@pytest.mark.cluster
@pytest.mark.timeout(400)
@pytest.mark.parametrize("document", IN_LANES, ids=lambda path: path.name)
def test_every_command_shown_works(document: Path, tmp_path: Path) -> None:
    commands = commands_of(document.read_text())
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "KEYPLANE_HOME": str(tmp_path / "home"),
    }
    skipped = []
    try:
        for command in commands:
            if command.not_run:
                continue
            if command.needs and shutil.which(command.needs, path=environment["PATH"]) is None:
                skipped.append(command.needs)
                continue
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command.line],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=200,
                check=False,
            )
            assert done.returncode == 0, (
                f"{document.name} shows a command that fails:\n$ {command.line}\n"
                f"{done.stdout}{done.stderr}"
            )
    finally:
        subprocess.run(
            [sys.executable, "-m", "keyplane", "down"], env=environment, check=False, timeout=60
        )
    if skipped:
        pytest.skip(f"the rest passed; not installed: {', '.join(sorted(set(skipped)))}")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_command_hides_in_another_kind_of_block(document: Path) -> None:
    """A `bash` or `sh` block would be shown to readers and never run."""
    kinds = {block["kind"] for block in _FENCE.finditer(document.read_text())}
    assert not kinds & {"bash", "sh", "shell", "zsh"}, kinds


def test_the_parser_reads_what_readers_read() -> None:
    text = (
        "```console\n$ one\noutput\n$ two \\\n    more\n```\n"
        "<!-- needs: tool -->\n```console\n$ three\n```\n"
        "<!-- not run: costs an hour -->\n\n```console\n$ four\n```\n"
        "```python\n$ five\n```\n"
    )
    assert commands_of(text) == [
        Command("one"),
        Command("two      more"),
        Command("three", needs="tool"),
        Command("four", not_run="costs an hour"),
    ]
