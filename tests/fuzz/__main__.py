"""`python tests/fuzz TARGET [OPTIONS OF LIBFUZZER]`: one target under Atheris, until it fails."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
with atheris.instrument_imports(include=["wire", "http2_targets", "hpack"]):
    import http2_targets

target = sys.argv.pop(1)
atheris.Setup(sys.argv, http2_targets.TARGETS[target])
atheris.Fuzz()
