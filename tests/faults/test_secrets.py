"""Secrets in the environment, in an address and in an error: no byte that LightLM writes or says
holds one.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.test_corpora import LIGHTLM, lines

PROXY = "http://bob:CANARY-proxy-sesame@127.0.0.1:9"
SECRETS = {
    "HF_TOKEN": "hf_CANARYaaaaaaaaaaaaaaaaaaaaaaaa",
    "HUGGING_FACE_HUB_TOKEN": "hf_CANARYbbbbbbbbbbbbbbbbbbbbbbbb",
    "AWS_ACCESS_KEY_ID": "AKIACANARYAAAAAAAAAA",
    "AWS_SECRET_ACCESS_KEY": "CANARYwJalrXUtnFEMIK7MDENG",
    "AWS_SESSION_TOKEN": "CANARYFwoGZXIvYXdzEBY",
    "AZURE_STORAGE_CONNECTION_STRING": "AccountName=a;AccountKey=CANARYkeykeykey==",
    "PREFECT_API_KEY": "pnu_CANARYcccccccccccccccc",
    "PREFECT_API_AUTH_STRING": "admin:CANARY-auth-sesame",
    "PREFECT_SERVER_API_AUTH_STRING": "admin:CANARY-auth-sesame",
    "MLFLOW_TRACKING_USERNAME": "alice",
    "MLFLOW_TRACKING_PASSWORD": "CANARY-tracking-sesame",
    "MLFLOW_TRACKING_TOKEN": "CANARY-tracking-token",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "CANARY-flask-key",
    "OPENAI_API_KEY": "sk-CANARYdddddddddddddddddddd",
    "ANTHROPIC_API_KEY": "sk-ant-CANARYeeeeeeeeeeeeeeee",
    "GITHUB_TOKEN": "ghp_CANARYffffffffffffffff",
    "GITLAB_TOKEN": "glpat-CANARYgggggggggggggg",
    "WANDB_API_KEY": "CANARY0123456789abcdef0123456789abcdef00",
    "DATABASE_URL": "postgresql://u:CANARY-db-sesame@host/db",
    "ftp_proxy": PROXY,
}

CRASH = """
import sys
import lightlm.data.subset
from lightlm_flows.cli.main import main
def fail(*_, **__):
    raise RuntimeError("cannot reach postgresql://u:CANARY-db-sesame@host/db with token=CANARY-token-sesame")
lightlm.data.subset.materialize_subset = fail
sys.argv = ["lightlm", *sys.argv[1:]]
main()
"""
"""A bug, whose message holds what it should not."""


@pytest.mark.timeout(900)
def test_no_secret_is_written_or_said_by_a_run_a_crash_and_a_sync(
    tmp_path: Path, tell: Callable[[str], None]
) -> None:
    home = tmp_path / "home"
    text = tmp_path / "text.txt"
    text.write_bytes(lines(4000))
    environment = os.environ | SECRETS | {"LIGHTLM_HOME": str(home), "OMP_NUM_THREADS": "1"}
    away = environment | {"MLFLOW_TRACKING_URI": "http://alice:CANARY-uri-sesame@127.0.0.1:9"}
    train = [
        "train",
        "--hours",
        "0.003",
        "--dataset",
        str(text),
        "--set",
        'training.compile="off"',
        "--fresh",
    ]

    said: dict[str, str] = {}

    def run(
        name: str, command: list[str], environment: dict[str, str], codes: tuple[int, ...]
    ) -> None:
        done = subprocess.run(
            command,
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode in codes, done.stderr
        said[name] = done.stdout + done.stderr

    run("away", [str(LIGHTLM), *train], away, (0,))
    run("crash", [sys.executable, "-c", CRASH, *train], away, (1, 70))
    run("sync", [str(LIGHTLM), "sync"], environment, (0,))
    run("models", [str(LIGHTLM), "models", "--json"], environment, (0,))
    assert "a bug ended the run: RuntimeError" in said["crash"]
    (traceback,) = home.glob("runs/*/traceback.txt")
    assert "[hidden]" in traceback.read_text()
    assert '"1"' in said["models"], "the version that was registered later"
    written = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    found = [path for path in written if re.search(rb"CANARY", path.read_bytes())]
    assert found == []
    assert [name for name, words in said.items() if "CANARY" in words] == []
    # an address and a token stand in the error, the server's in its URI
    number = len(set(SECRETS.values())) + 1
    tell(f"{number} secrets in {len(written)} files and what four commands said: 0 found")
