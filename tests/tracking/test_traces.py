"""Tests of traces: each text leaves one in MLflow without its secrets, and a trace that fails costs
only itself.
"""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from lightlm.errors import PromptError
from lightlm.tracking.registry import ModelVersion, open_client
from lightlm.tracking.traces import keep_trace, trace_generation

VERSION = ModelVersion(
    name="lightlm",
    version="3",
    run_id="r",
    aliases=(),
    tags={},
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)


def write(home: Path, prompt: str = "The old", text: str = " river") -> str:
    return trace_generation(
        home,
        "lightlm",
        VERSION,
        {"prompt": prompt, "seed": 3},
        lambda: text,
        lambda written: {"text": written},
    )


def test_a_text_leaves_a_trace_with_its_version_and_without_secrets(
    home: Path, database: Path
) -> None:
    assert write(home, "my key is hf_abcdefghijklmnop") == " river"
    client = open_client(home)
    experiment = client.get_experiment_by_name("lightlm")
    assert experiment is not None
    (trace,) = client.search_traces(locations=[experiment.experiment_id])
    (span,) = trace.data.spans
    assert span.inputs == {"prompt": "my key is [hidden]", "seed": 3}
    assert span.outputs == {"text": " river"}
    assert span.attributes["model"] == "models:/lightlm/3"
    assert trace.info.tags["lightlm.model_version"] == "3"
    assert trace.info.execution_duration is not None


def test_a_refused_prompt_is_a_trace_of_an_error_and_still_refused(
    home: Path, database: Path
) -> None:
    def refuse() -> str:
        raise PromptError("the prompt is too long")

    with pytest.raises(PromptError, match="too long"):
        trace_generation(
            home, "lightlm", VERSION, {"prompt": "x"}, refuse, lambda written: {"text": written}
        )

    client = open_client(home)
    experiment = client.get_experiment_by_name("lightlm")
    assert experiment is not None
    (trace,) = client.search_traces(locations=[experiment.experiment_id])
    assert str(trace.info.status).endswith("ERROR")
    assert trace.data.spans[0].outputs == {"error": "the prompt is too long"}


def test_without_mlflow_the_text_is_written_all_the_same(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert write(home) == " river"


def test_a_text_that_was_written_before_leaves_a_trace_with_its_own_times(
    home: Path, database: Path
) -> None:
    inputs = {"prompt": ["the old", "my key is hf_abcdefghijklmnop"]}
    keep_trace(home, "lightlm", VERSION, inputs, {"texts": [" river"]}, 10**18, 10**18 + 5 * 10**8)
    client = open_client(home)
    experiment = client.get_experiment_by_name("lightlm")
    assert experiment is not None
    (trace,) = client.search_traces(locations=[experiment.experiment_id])
    assert trace.data.spans[0].inputs == {"prompt": ["the old", "my key is [hidden]"]}
    assert trace.data.spans[0].outputs == {"texts": [" river"]}
    assert (trace.info.request_time, trace.info.execution_duration) == (10**12, 500)
