"""Where the embedded API's process finds its database, which is copied from an empty one in a new
home.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ASK = (
    "from lightlm_flows.prefect_api.embedded_server import find_own_database; "
    "print(find_own_database())"
)


def find_database(**variables: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    return subprocess.check_output(
        [sys.executable, "-c", ASK], env=kept | variables, text=True
    ).strip()


@pytest.mark.parametrize(
    ("variables", "is_own"),
    [
        ({}, True),
        (
            {"PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:////elsewhere/other.db"},
            False,
        ),
    ],
)
def test_the_own_database_is_the_one_under_prefect_s_home_unless_another_is_named(
    tmp_path: Path, variables: dict[str, str], is_own: bool
) -> None:
    found = find_database(PREFECT_HOME=str(tmp_path), **variables)
    assert found == (str(tmp_path / "prefect.db") if is_own else "None")
