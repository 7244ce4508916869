"""What every command has: the options that choose a cluster and an output, and what they open."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from keyplane.cli.output import Output
from keyplane.client.admin import AdminClient
from keyplane.client.sync import Client
from keyplane.cluster import Cluster, Kind
from keyplane.cluster.cluster import DEFAULT_NAME
from keyplane.model.credentials import Credentials

# Addresses of a cluster that these commands did not start, for instance on other machines.
ROUTERS_ENV = "KEYPLANE_ROUTERS"
METADATA_ENV = "KEYPLANE_METADATA"

_PANEL = "Every command"

JsonFlag = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Make the last line on stdout one JSON object; all else goes to stderr.",
        rich_help_panel=_PANEL,
    ),
]
ClusterName = Annotated[
    str,
    typer.Option(
        "--cluster",
        envvar="KEYPLANE_CLUSTER",
        help="Which cluster.",
        rich_help_panel=_PANEL,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="KEYPLANE_HOME",
        help="Where clusters are kept.",
        show_default=".keyplane in the working directory",
        rich_help_panel=_PANEL,
    ),
]


@dataclass(frozen=True)
class Session:
    """One run of a command."""

    as_json: bool
    cluster_name: str
    data_dir: Path | None
    out: Output = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", Output(self.as_json))

    def cluster(self) -> Cluster:
        return Cluster(self.cluster_name, self.data_dir, say=self.out.note)

    def routers(self) -> list[str]:
        """Their addresses: $KEYPLANE_ROUTERS, a comma list, or those of the cluster."""
        named = os.environ.get(ROUTERS_ENV, "")
        return [a.strip() for a in named.split(",") if a.strip()] or self.cluster().addresses(
            Kind.ROUTER
        )

    def credentials(self) -> Credentials | None:
        """The key of $KEYPLANE_KEY_ID and $KEYPLANE_SECRET, or the operator's of the cluster if it
        takes signed calls only.
        """
        named = Credentials.from_env()
        if named is not None or os.environ.get(ROUTERS_ENV) or os.environ.get(METADATA_ENV):
            return named
        return self.cluster().credentials()

    def client(self, routers: Sequence[str] | None = None) -> Client:
        """routers: all of them, if none is named."""
        return Client(routers or self.routers(), credentials=self.credentials())

    def metadata(self) -> str:
        """Address of the Metadata Store: $KEYPLANE_METADATA, or the cluster's."""
        return os.environ.get(METADATA_ENV) or self.cluster().addresses(Kind.METADATA)[0]

    def admin(self) -> AdminClient:
        return AdminClient(self.metadata(), credentials=self.credentials())


_COMMON = (
    inspect.Parameter(
        "as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JsonFlag
    ),
    inspect.Parameter(
        "cluster_name",
        inspect.Parameter.KEYWORD_ONLY,
        default=DEFAULT_NAME,
        annotation=ClusterName,
    ),
    inspect.Parameter("data_dir", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=DataDir),
)


_Command = Callable[..., int | None]


def command(app: typer.Typer, name: str, examples: str) -> Callable[[_Command], _Command]:
    """Registers a command whose first parameter is a Session, made of the options all have.

    examples: command lines, each followed by what it does; shown at the end of --help.
    The command returns its exit code; None is 0.
    """
    return _registration(app, name, examples, _COMMON, Session)


def command_without_cluster(
    app: typer.Typer, name: str, examples: str, *, takes_any_option: bool = False
) -> Callable[[_Command], _Command]:
    """As `command`, for one that needs no cluster: its first parameter is the Output.

    takes_any_option: options that it does not know are words of its last argument.
    """
    return _registration(app, name, examples, _COMMON[:1], Output, takes_any_option)


def _registration(
    app: typer.Typer,
    name: str,
    examples: str,
    common: Sequence[inspect.Parameter],
    make_first: Callable[..., object],
    takes_any_option: bool = False,
) -> Callable[[_Command], _Command]:
    def register(function: _Command) -> _Command:
        _, *own = inspect.signature(function, eval_str=True).parameters.values()
        parameters = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in own]
        parameters.extend(common)

        @functools.wraps(function)
        def run(**given: Any) -> None:
            first = make_first(*(given.pop(parameter.name) for parameter in common))
            code = function(first, **given)
            if code:
                raise typer.Exit(code)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        settings = {"ignore_unknown_options": takes_any_option}
        app.command(name, epilog=_epilog(examples), context_settings=settings)(run)
        return function

    return register


def _epilog(examples: str) -> str:
    lines = [line for line in inspect.cleandoc(examples).splitlines() if line]
    return "Examples:\n\n" + "\n".join(f"  {escape(line)}" for line in lines)
