"""The server's numbers as Prometheus reads them."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds, in seconds, of the histograms' buckets."""


class EngineState(NamedTuple):
    """What an engine does now."""

    model: str
    num_running: int
    num_waiting: int


class _States(Collector):
    """Gauges that are read when Prometheus asks."""

    def __init__(self, read: Callable[[], Iterable[EngineState]]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield texts that are written and that wait, per loaded version."""
        running = GaugeMetricFamily(
            "lightlm_running_texts", "Texts that are written now.", labels=["model"]
        )
        waiting = GaugeMetricFamily(
            "lightlm_waiting_texts", "Texts that wait for a row.", labels=["model"]
        )
        for state in self._read():
            running.add_metric([state.model], state.num_running)
            waiting.add_metric([state.model], state.num_waiting)
        yield running
        yield waiting


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self, read_states: Callable[[], Iterable[EngineState]]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_States(read_states))
        self.requests = Counter(
            "lightlm_requests",
            "Answered requests.",
            ["path", "status"],
            registry=self.registry,
        )

        self.prompt_tokens = Counter(
            "lightlm_prompt_tokens", "Tokens of prompts.", ["model"], registry=self.registry
        )
        self.generated_tokens = Counter(
            "lightlm_generated_tokens", "Tokens written.", ["model"], registry=self.registry
        )
        self.cancelled_texts = Counter(
            "lightlm_cancelled_texts", "Texts whose client left.", registry=self.registry
        )

        self.first_token_seconds = Histogram(
            "lightlm_time_to_first_token_seconds",
            "Seconds from a request to its first token.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "lightlm_request_seconds",
            "Seconds from a request to its last token.",
            buckets=SECONDS,
            registry=self.registry,
        )

    def render(self) -> bytes:
        """Return all numbers in Prometheus' text format."""
        return generate_latest(self.registry)
