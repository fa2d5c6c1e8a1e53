"""Relocation of a home: MLflow's local database names its artifacts by absolute paths."""

import sqlite3
from contextlib import closing
from pathlib import Path


def relocate_artifacts(database: Path, old: Path, new: Path) -> int:
    """Give every path in `database` that begins with `old` the beginning `new`; return how many
    there were.
    """
    if not database.exists() or old == new:
        return 0

    pairs = [(old.as_uri(), new.as_uri()), (old.as_posix(), new.as_posix())]
    changed = 0
    with closing(sqlite3.connect(database)) as connection, connection:
        for table, column in _list_texts(connection):
            for before, after in pairs:
                update = f'UPDATE "{table}" SET "{column}" = ? || substr("{column}", ?)'  # noqa: S608
                where = f'WHERE "{column}" = ? OR substr("{column}", 1, ?) = ?'
                found = connection.execute(
                    f"{update} {where}",
                    (after, len(before) + 1, before, len(before) + 1, before + "/"),
                )
                changed += found.rowcount

    return changed


def _list_texts(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    tables = [
        name
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    ]
    return [
        (table, column[1])
        for table in tables
        for column in connection.execute(f'PRAGMA table_info("{table}")')
        if column[2].upper().startswith(("VARCHAR", "TEXT", "STRING"))
    ]
