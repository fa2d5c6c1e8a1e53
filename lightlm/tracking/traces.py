"""Traces of generated texts in MLflow: prompt, version, sampling, text and times, one per text."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from lightlm.errors import LightLMError
from lightlm.json_object import JsonObject
from lightlm.redaction import clean
from lightlm.tracking.mlflow_records import find_experiment
from lightlm.tracking.registry import ModelVersion, open_client

LOGGER = logging.getLogger(__name__)

Written = TypeVar("Written")


def trace_generation(
    home: Path,
    experiment: str,
    version: ModelVersion,
    inputs: Mapping[str, Any],
    write: Callable[[], Written],
    describe: Callable[[Written], Mapping[str, Any]],
) -> Written:
    """Return what `write` returns, and leave a trace of it in MLflow; a trace that fails costs only
    itself.

    `inputs` are the prompt and how it was sampled; `describe` gives what the trace shows of the
    result.
    """
    span = _open_span(home, experiment, version, inputs)
    if span is None:
        return write()

    from mlflow.entities import SpanStatusCode

    try:
        written = write()
    except LightLMError as error:
        _close_span(span, {"error": clean(str(error))}, SpanStatusCode.ERROR)
        raise

    _close_span(span, _clean_values(describe(written)), SpanStatusCode.OK)
    return written


def keep_trace(
    home: Path,
    experiment: str,
    version: ModelVersion,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    started_ns: int,
    ended_ns: int,
) -> None:
    """Keep a trace of a text that was written already; one that fails costs only itself.

    Times are nanoseconds since 1970.
    """
    from mlflow.entities import SpanStatusCode

    span = _open_span(home, experiment, version, inputs, started_ns)
    if span is not None:
        _close_span(span, _clean_values(outputs), SpanStatusCode.OK, ended_ns)


def _open_span(
    home: Path,
    experiment: str,
    version: ModelVersion,
    inputs: Mapping[str, Any],
    started_ns: int | None = None,
) -> Any:
    try:
        # Sent when it ends: MLflow's own queue takes a second to empty, and is lost with its
        # process.
        os.environ.setdefault("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")
        client = open_client(home)
        import mlflow
        from mlflow.entities import SpanType

        return mlflow.start_span_no_context(
            "generate",
            span_type=SpanType.LLM,
            inputs=_clean_values(inputs),
            attributes={"model": version.uri, "run_id": version.run_id},
            tags={"lightlm.model_version": version.version, "lightlm.model_name": version.name},
            experiment_id=find_experiment(client, experiment, home),
            start_time_ns=started_ns,
        )
    except Exception as error:  # noqa: BLE001  (whatever MLflow raises, the text is written)
        LOGGER.debug("no trace: %s", error)
        return None


def _close_span(
    span: Any, outputs: Mapping[str, Any], status: Any, ended_ns: int | None = None
) -> None:
    try:
        span.end(outputs=dict(outputs), status=status, end_time_ns=ended_ns)
    except Exception as error:  # noqa: BLE001  (whatever MLflow raises, the text is written)
        LOGGER.debug("no trace: %s", error)


def _clean_values(values: Mapping[str, Any]) -> JsonObject:
    return {name: _clean_value(value) for name, value in values.items()}


def _clean_value(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return _clean_values(value)
    return [_clean_value(one) for one in value] if isinstance(value, list | tuple) else value
