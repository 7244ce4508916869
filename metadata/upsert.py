"""Insert or replace rows by primary key, in one statement.

The ORM's `merge` reads a row before it writes it and keeps a unit of work over it: four times the
work of this, at every step of every operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Table, inspect
from sqlalchemy.dialects import postgresql, sqlite

from metadata.schema import Base

_INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def upsert(connection: Connection, rows: Sequence[Base]) -> None:
    """rows: of one table, with all columns set."""
    if not rows:
        return
    kind = type(rows[0])
    names = _columns(kind)
    statement = _statement(connection.dialect.name, kind)
    connection.execute(statement, [{name: getattr(row, name) for name in names} for row in rows])


@cache
def _columns(kind: type[Base]) -> tuple[str, ...]:
    return tuple(attribute.key for attribute in inspect(kind).column_attrs)


@cache
def _statement(dialect: str, kind: type[Base]) -> Any:
    table = kind.__table__
    assert isinstance(table, Table)
    insert = _INSERTS[dialect](table)
    keys = [column.name for column in table.primary_key]
    replaced = {name: insert.excluded[name] for name in _columns(kind) if name not in keys}
    return insert.on_conflict_do_update(index_elements=keys, set_=replaced)
