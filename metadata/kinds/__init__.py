"""What each kind of operation does: one file per kind, and the table of them all."""

from __future__ import annotations

from collections.abc import Mapping

from metadata.kinds import create_table, delete_table, drain, merge, move, split, update_table
from metadata.kinds.script import Script
from metadata.plans import Kind

SCRIPTS: Mapping[Kind, Script] = {
    Kind.CREATE_TABLE: create_table.SCRIPT,
    Kind.DELETE_TABLE: delete_table.SCRIPT,
    Kind.UPDATE_TABLE: update_table.SCRIPT,
    Kind.SPLIT: split.SCRIPT,
    Kind.MERGE: merge.SCRIPT,
    Kind.MOVE: move.SCRIPT,
    Kind.DRAIN: drain.SCRIPT,
}
