"""Traces of served texts: handed to a process that keeps them in MLflow. No request waits for it.

`python -m lightlm.serving.tracing HOME` is the process itself.
"""

import json
import queue
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lightlm.child_process import Message, end_child, leave, send_message, start_child
from lightlm.store.disk import make_folder

if TYPE_CHECKING:
    from lightlm.serving.choices import RequestTexts
    from lightlm.serving.requests import TextRequest

MOST_WAITING = 1000
"""Traces that wait for the process; of more requests, no trace is kept."""

END_SECONDS = 20.0
"""Seconds that the rest gets when the server ends."""

LOG = "serve-traces.log"

UNTRACED = {"stream", "stream_options", "user", "metadata", "safety_identifier", "prompt_cache_key"}
"""Values of a request that say nothing about the text, or name a person."""


class Tracer:
    """The server's side: takes each finished request, and drops it where the process is slower."""

    def __init__(self, home: Path) -> None:
        make_folder(home / "service")
        self.num_dropped = 0
        self._process = start_child(
            "lightlm.serving.tracing", str(home), log=home / "service" / LOG
        )
        self._waiting: queue.Queue[Message | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._send, name="traces", daemon=True)
        self._thread.start()

    def take(self, request: "TextRequest", texts: "RequestTexts") -> None:
        """Hand on a request that has ended; never waits, never fails."""
        version = texts.loaded.version
        ended_ns = time.time_ns()
        message = {
            "version": version.model_dump(mode="json"),
            "inputs": request.model_dump(mode="json", exclude_none=True, exclude=UNTRACED),
            "outputs": {
                "texts": ["".join(choice.written) for choice in texts.choices],
                "finish_reasons": [choice.finish_reason for choice in texts.choices],
                "prompt_tokens": texts.num_prompt_tokens,
                "new_tokens": texts.num_new_tokens,
            },
            "started_ns": ended_ns - int(1e9 * texts.seconds),
            "ended_ns": ended_ns,
        }
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            self.num_dropped += 1

    def close(self) -> None:
        """Let the process keep the rest, for at most END_SECONDS."""
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(END_SECONDS)
        end_child(self._process, END_SECONDS)

    def _send(self) -> None:
        with suppress(OSError, subprocess.SubprocessError):
            while (message := self._waiting.get()) is not None:
                send_message(self._process, message)


def main(home: Path) -> None:
    """Be the process: keep a trace of each line of standard input, until it ends."""
    from lightlm.params import load_params
    from lightlm.tracking.registry import ModelVersion, open_client
    from lightlm.tracking.traces import keep_trace

    with suppress(Exception):  # importing MLflow takes seconds: before the first trace comes
        open_client(home)
    experiment = load_params().tracking.experiment
    for line in sys.stdin:
        message = json.loads(line)
        version = ModelVersion.model_validate(message.pop("version"))
        keep_trace(home, experiment, version, **message)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave()
