"""The main of the writer's process: `lightlm serve`'s server, which ends with the studio."""

import json
import os
import signal
import sys
from pathlib import Path

from lightlm.child_process import Answers, watch_parent
from lightlm.serving.server import serve
from lightlm.serving.versions import Limits
from lightlm.studio.writer import ADDRESS, KEY_VARIABLE

LIMITS = Limits(max_rows=8, max_waiting=16, max_versions=3)
"""Two versions side by side, and one more for another page."""


def main(word: str) -> None:
    """Serve until the studio ends."""
    place = json.loads(word)
    port = place["port"]
    answers = Answers()
    watch_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    serve(
        Path(place["home"]),
        ADDRESS,
        port,
        os.environ.pop(KEY_VARIABLE),
        [f"{ADDRESS}:{port}"],
        None,
        None,
        LIMITS,
        lambda loaded: answers.send({"ready": loaded}),
    )


if __name__ == "__main__":
    main(sys.argv[1])
