"""The hot path, compiled: `mypyc` makes C extensions of the same source, types and all.

`python -m keyplane.native` compiles the modules in `MODULES` into the virtual environment, which
takes a C compiler and about a minute. Processes of the data plane then load those instead of the
source, as long as they were made of the source that is here: a build is found under a digest of it,
so an edit is never shadowed by an older build. Without a build, or with KEYPLANE_NATIVE=0, the
source is interpreted and everything works the same, slower.

Only processes that ask for it (`activate`) load the build. Tests, the simulator and its mutants run
the source.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

# What a request runs through, and no more, from the load generator on: it shares the machine with
# what it measures. Where mypyc departs from Python, the tests of these modules have to show it
# (tests/unit/test_native.py runs them on the build). No class of theirs may be derived from
# elsewhere; a function inside a function is a reference cycle that the collector has to find; a
# generator expression is a list, all of it made at once.
MODULES = (
    "bench._items",
    "bench._lanes",
    "bench._windows",
    "cache.callers",
    "cache.replays",
    "cache.routes",
    "keyplane.model.bucket",
    "keyplane.model.capacity",
    "keyplane.model.keys",
    "keyplane.model.numbers",
    "keyplane.model.partition",
    "keyplane.model.retry",
    "keyplane.model.signature",
    "router.admission",
    "router.config",
    "router.context",
    "router.core",
    "router.exchange",
    "router.nodes",
    "router.operation",
    "router.parse",
    "router.partition_call",
    "router.plain",
    "router.single",
    "router.tables",
    "router.tenant_limits",
    "storage.config",
    "storage.evaluate",
    "storage.executor",
    "storage.group",
    "storage.heat",
    "storage.layout",
    "storage.limits",
    "storage.reads",
    "storage.request",
    "storage.rows",
    "storage.service",
    "storage.shard",
    "storage.sharing",
    "storage.state",
    "storage.stored",
    "storage.token_log",
    "storage.tokens",
    "storage.writes",
    "wire.http2.blocks",
    "wire.http2.client",
    "wire.http2.client_connection",
    "wire.http2.connection",
    "wire.http2.expiry",
    "wire.http2.frames",
    "wire.http2.greeting",
    "wire.http2.inbound",
    "wire.http2.limits",
    "wire.http2.metadata",
    "wire.http2.outbound",
    "wire.http2.seal",
    "wire.http2.server",
    "wire.http2.server_connection",
    "wire.http2.tick",
    "wire.loop",
    "wire.metrics",
    "wire.ports",
    "wire.protobytes",
)

# 0 keeps the source; 1 insists on the build; unset takes it if it is there.
VARIABLE = "KEYPLANE_NATIVE"

EXIT_USAGE = 2

_ROOT = Path(__file__).resolve().parent.parent
# Every compiled module is a shim around this library.
_LIBRARY = "keyplane_native"
_OPTIMIZATION = "2"
# What the directory of a compilation begins with, then the process that runs it.
_SCRATCH = "building-"


class NativeError(Exception):
    """The message says what to do."""


def activate() -> bool:
    """Makes this process load the compiled modules; False if it goes on without.

    To be called before any of them is imported. Raises NativeError if KEYPLANE_NATIVE makes no
    sense, or insists on a build that is not there.
    """
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in ("", "0", "1"):
        raise NativeError(f"{VARIABLE}={wanted!r}: say 1, 0, or nothing at all")
    if wanted == "0":
        return False
    files = _built_files(build_dir())
    if files is None:
        if wanted == "1":
            raise NativeError(
                f"{VARIABLE}=1, but the modules were not compiled from the source that is here:"
                " run `python -m keyplane.native`"
            )
        return False
    early = [name for name in MODULES if name in sys.modules]
    if early:
        raise NativeError(f"{early[0]} was imported before `keyplane.native.activate()`")
    sys.meta_path.insert(0, _Finder(files))
    return True


def activate_or_exit() -> None:
    """As `activate`, for the first line of a program: an error is told, and ends it."""
    try:
        activate()
    except NativeError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(EXIT_USAGE)


def is_active() -> bool:
    """Whether this process loads compiled modules."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


def is_built() -> bool:
    """Whether the source that is here has been compiled."""
    return _built_files(build_dir()) is not None


def build_dir() -> Path:
    """Where a build of this very source for this very interpreter belongs."""
    return Path(sys.prefix) / "keyplane-native" / _digest()


def build() -> Path:
    """Compiles, unless that was done already. Returns the directory.

    Raises NativeError: no compiler, or the code does not compile.
    """
    target = build_dir()
    if _built_files(target) is not None:
        return target
    lacking = _missing()
    if lacking:
        raise NativeError(f"a C compiler or Python's headers are missing: install {lacking}")
    parent = target.parent
    parent.mkdir(parents=True, exist_ok=True)
    prefix = f"{_SCRATCH}{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as scratch:
        made = Path(scratch) / "lib"
        _compile(made, Path(scratch))
        for old in parent.iterdir():
            if not _in_use(old):
                shutil.rmtree(old, ignore_errors=True)
        made.rename(target)
    return target


def _in_use(directory: Path) -> bool:
    """Whether it is the scratch of a compilation that runs: one that was killed leaves its own."""
    import psutil

    if not directory.name.startswith(_SCRATCH):
        return False
    pid = directory.name.removeprefix(_SCRATCH).partition("-")[0]
    return pid.isdigit() and psutil.pid_exists(int(pid))


def _compile(made: Path, scratch: Path) -> None:
    # Only here: neither is needed to run, and both take long to import.
    from mypyc.build import mypycify
    from setuptools import Distribution

    before = Path.cwd()
    # Module names are taken from paths below the working directory.
    os.chdir(_ROOT)
    try:
        paths = [str(_source(name).relative_to(_ROOT)) for name in MODULES]
        extensions = mypycify(
            paths,
            opt_level=_OPTIMIZATION,
            debug_level="0",
            multi_file=True,
            target_dir=str(scratch / "c"),
            group_name="keyplane",
        )
        distribution = Distribution({"name": _LIBRARY, "ext_modules": extensions})
        command = distribution.get_command_obj("build_ext")
        command.build_lib = str(made)
        command.build_temp = str(scratch / "o")
        command.parallel = os.cpu_count()
        command.ensure_finalized()
        command.run()
    except SystemExit as error:
        raise NativeError("the modules do not compile; the lines above say why") from error
    finally:
        os.chdir(before)


def _missing() -> list[str]:
    """What a compilation lacks, as Debian's packages are named."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    found = {"gcc": shutil.which(compiler) is not None, "python3-dev": header.exists()}
    return [package for package, there in found.items() if not there]


def _source(name: str) -> Path:
    return _ROOT.joinpath(*name.split(".")).with_suffix(".py")


def _digest() -> str:
    """Of everything that a build depends on."""
    digest = hashlib.sha256()
    compilers = [_version(package) for package in ("mypy", "librt")]
    digest.update(f"{sys.version} {_OPTIMIZATION} {compilers}".encode())
    digest.update(Path(__file__).read_bytes())
    for name in MODULES:
        digest.update(_source(name).read_bytes())
    return digest.hexdigest()[:32]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _built_files(directory: Path) -> dict[str, Path] | None:
    """Files of a whole build by the names of their modules; None if there is none."""
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    files = {name: directory.joinpath(*name.split(".")) for name in MODULES}
    files = {name: path.with_name(path.name + suffix) for name, path in files.items()}
    files |= {path.name.removesuffix(suffix): path for path in directory.glob(f"*{suffix}")}
    whole = len(files) > len(MODULES) and all(path.exists() for path in files.values())
    return files if whole else None


class _Finder:
    """Finds modules in a build. First on `sys.meta_path`."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        found = self._files.get(name)
        return None if found is None else importlib.util.spec_from_file_location(name, found)


app = typer.Typer(add_completion=False)


@app.command()
def run(
    check: Annotated[
        bool, typer.Option("--check", help="Compile nothing; exit 0 if it is done, else 1.")
    ] = False,
    missing: Annotated[
        bool, typer.Option("--missing", help="Compile nothing; print what Debian calls what lacks.")
    ] = False,
) -> None:
    """Compiles the modules that every request of the data plane runs through.

    Routers, storage nodes and benchmarks then load them by themselves, for as long as the source
    they were made of does not change. KEYPLANE_NATIVE=0 makes a process run the source.
    """
    if missing:
        typer.echo(" ".join(_missing()))
        return
    if check:
        raise typer.Exit(0 if is_built() else 1)
    try:
        directory = build()
    except NativeError as error:
        typer.echo(f"not compiled: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"compiled: {directory}", err=True)


if __name__ == "__main__":
    app(prog_name="python -m keyplane.native")
