import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from lightlm_flows.prefect_api.templates import make_templates


@pytest.mark.slow
def test_both_databases_have_their_tables(home: Path) -> None:
    make_templates(home)
    for database, table in (("mlflow.db", "experiments"), ("prefect/prefect.db", "flow_run")):
        with closing(sqlite3.connect(home / database)) as connection:
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] < 2
