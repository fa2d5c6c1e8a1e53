"""Tests of the run's own record: everything with its time, no secret."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lightlm.store.journal import read_journal
from lightlm.tracking.recorder import JOURNAL, Recorder, RegistrationRequest, redact

SECRETS = [
    "hf_abcdefghijklmnopqrstuvwxyz",
    "ghp_0123456789abcdefghij",
    "AKIAABCDEFGHIJKLMNOP",
    "sk-0123456789abcdefghij",
    "alice:sesame42",
    "verysecretvalue",
]


def test_records_come_back_in_order_with_their_kinds_and_times(
    tmp_path: Path, request_for: Callable[..., RegistrationRequest]
) -> None:
    recorder = Recorder(tmp_path)
    recorder.start_run("name", "lightlm", {}, "text")
    recorder.log_metrics({"train/loss": 2.5}, 3)
    recorder.register(request_for())
    recorder.finish("FINISHED")
    recorder.close()
    records = [record for record, _ in read_journal(tmp_path / JOURNAL)]
    assert [record["kind"] for record in records] == ["start", "metrics", "register", "finish"]
    assert records[1]["values"] == {"train/loss": 2.5}
    assert records[1]["step"] == 3
    times = [record["time_ms"] for record in records]
    assert times == sorted(times)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_hidden_wherever_it_stands(
    tmp_path: Path, request_for: Callable[..., RegistrationRequest], secret: str
) -> None:
    text = f"https://{secret}@host/x" if ":" in secret else f"token={secret} and more"
    recorder = Recorder(tmp_path)
    recorder.start_run("n", "lightlm", {"mlflow.source.name": text}, text)
    recorder.log_params({"dataset.source": text})
    recorder.set_tags({"url": text})
    recorder.log_text(text, "plan.json")
    recorder.log_dataset({"name": "n", "digest": "d", "source": text})
    recorder.describe(text)
    recorder.register(request_for().model_copy(update={"description": text, "tags": {"origin": text}}))
    recorder.close()
    assert secret.encode() not in (tmp_path / JOURNAL).read_bytes()
    assert secret not in redact(text)


def test_what_is_no_secret_stays(tmp_path: Path) -> None:
    text = "generation.max_new_tokens=128, SHA-256 a3c995f97e3c638c, tokens_per_second: 31000.25"
    assert redact(text) == text
