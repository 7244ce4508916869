"""Every transcript in this directory says exactly what happens."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest
import runner

HERE = Path(__file__).parent
TRANSCRIPTS = sorted(HERE.glob("*.txt"))

for module in sorted(HERE.glob("scenario_*.py")):
    importlib.import_module(module.stem)


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    written = path.read_text()
    played = runner.play(written)
    if os.environ.get("KEYPLANE_REWRITE_TRANSCRIPTS"):
        path.write_text(played)
    else:
        assert played == written


def test_an_unknown_command_or_scenario_is_named() -> None:
    with pytest.raises(ValueError, match="no scenario 'nowhere'"):
        runner.play("scenario: nowhere\n")
    with pytest.raises(ValueError, match="no command 'fly'; there are: "):
        runner.play("scenario: storage\n\n> fly away\n")
    with pytest.raises(ValueError, match="a command before"):
        runner.play("> start s1\n")
