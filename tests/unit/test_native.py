"""Compiled modules: when a process loads them, and that they do what their source does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keyplane import native

ROOT = Path(__file__).resolve().parents[2]

# What covers the compiled modules, without tests that start processes: those load the build anyway.
SUITES = (
    *("tests/unit/bench", "tests/unit/router", "tests/unit/storage", "tests/unit/wire"),
    *("tests/property/test_http2.py", "tests/property/test_storage_structures.py"),
)

RUN_SUITES = """
import sys
from keyplane import native
assert native.activate()
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""
LOOK_FOR_OUTSIDERS = """
import importlib, sys
from keyplane import native
assert native.activate()
for name in ("router.command", "storage.command", "bench._load", "bench._echo", *native.MODULES):
    importlib.import_module(name)
assert sys.modules["wire.http2.connection"].__file__.endswith(".so")

def derived(of):
    for each in of.__subclasses__():
        yield each
        yield from derived(each)

for name in native.MODULES:
    for value in vars(sys.modules[name]).values():
        if isinstance(value, type) and value.__module__ == name:
            if not getattr(value, "_is_protocol", False):
                for each in derived(value):
                    if each.__module__ not in native.MODULES:
                        print(f"{each.__module__}.{each.__name__} is derived from {value.__name__}")
"""


def python(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def said_by(program: str, **environment: str) -> str:
    done = python(f"from keyplane import native\n{program}", **environment)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


@pytest.fixture
def build() -> Path:
    directory = native.build_dir()
    if not native.is_built():
        pytest.skip("nothing is compiled here; `python -m keyplane.native` does it")
    return directory


def test_a_process_is_told_by_its_environment() -> None:
    assert said_by("print(native.activate())", KEYPLANE_NATIVE="0") == "False"
    assert "KEYPLANE_NATIVE='yes': say 1, 0" in said_by("native.activate()", KEYPLANE_NATIVE="yes")


@pytest.mark.parametrize("program", ["router", "storage", "bench"])
def test_programs_refuse_what_makes_no_sense(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", program, "--help"],
        cwd=ROOT,
        env={**os.environ, "KEYPLANE_NATIVE": "yes"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == native.EXIT_USAGE
    assert done.stderr == "KEYPLANE_NATIVE='yes': say 1, 0, or nothing at all\n"


def test_a_build_of_other_source_is_not_taken() -> None:
    """And whoever insists is told what to do."""
    other = "native._digest = lambda: 'of other source'\n"
    assert said_by(other + "print(native.activate())", KEYPLANE_NATIVE="") == "False"
    insisting = said_by(other + "native.activate()", KEYPLANE_NATIVE="1")
    assert "run `python -m keyplane.native`" in insisting


def test_only_the_scratch_of_a_compilation_that_runs_is_in_use(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert native._in_use(tmp_path / f"building-{os.getpid()}-abc")
    assert not native._in_use(tmp_path / f"building-{ended.pid}-abc")
    assert not native._in_use(tmp_path / "0123456789abcdef")


def test_what_is_compiled_must_not_have_been_imported(build: Path) -> None:
    late = said_by("import wire.ports\nnative.activate()", KEYPLANE_NATIVE="1")
    assert "wire.ports was imported before" in late


def test_nothing_outside_is_derived_from_a_compiled_class(build: Path) -> None:
    """Compiled code would refuse its objects."""
    done = python(LOOK_FOR_OUTSIDERS, KEYPLANE_NATIVE="1")
    assert done.returncode == 0, done.stderr
    assert not done.stdout


@pytest.mark.timeout(900)
def test_compiled_modules_pass_the_tests_of_their_source(build: Path) -> None:
    options = ["-q", "-p", "no:cacheprovider", "-m", "not cluster"]
    done = python(RUN_SUITES, *options, *SUITES, KEYPLANE_NATIVE="1")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
