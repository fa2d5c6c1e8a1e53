"""The keeper of the service: restarts a part that died, with longer waits between tries.

It ends when the service is stopped, which is when its record is gone.
"""

import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lightlm.errors import BusyError, LightLMError
from lightlm.store.home import find_home
from lightlm.store.lock import hold_lock
from lightlm_flows.service.lifecycle import add_process, start_of_part
from lightlm_flows.service.record import KEEPER, RunningProcess, read_service
from lightlm_flows.service.servers import name_service_folder

LOGGER = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
FIRST_SECONDS = 1.0
MOST_SECONDS = 60.0
"""Before the first start after a death, and at most; each death doubles the wait."""

STEADY_SECONDS = 300.0
"""A part that lived so long died of something new: the next wait is the first again."""


@dataclass
class Waits:
    """When each part that died may be started again."""

    seconds: dict[str, float] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)

    def note_death(self, part: RunningProcess, now: float) -> float | None:
        """Return how long the part has to wait, when its death is new."""
        if part.name in self.due:
            return None
        has_been_steady = now - part.created_at > STEADY_SECONDS
        before = 0.0 if has_been_steady else self.seconds.get(part.name, 0.0)
        self.seconds[part.name] = min(MOST_SECONDS, before * 2) if before else FIRST_SECONDS
        self.due[part.name] = now + self.seconds[part.name]
        return self.seconds[part.name]

    def is_due(self, name: str, now: float) -> bool:
        """Return whether the wait is over; it begins anew with the next death."""
        if now < self.due[name]:
            return False
        del self.due[name]
        return True


def keep_service(home: Path, is_ended: Callable[[], bool] = lambda: False) -> None:
    """Look after the parts until the service is stopped, or `is_ended`."""
    waits = Waits()
    while not is_ended():
        service = read_service(home)
        if service is None or not any(
            part.name == KEEPER and part.pid == os.getpid() for part in service.processes
        ):
            return
        for part in service.processes:
            if part.name == KEEPER or part.find() is not None:
                continue
            now = time.time()
            if (seconds := waits.note_death(part, now)) is not None:
                LOGGER.warning(
                    "%s (process %s) has died; it is started again in %g s",
                    part.name,
                    part.pid,
                    seconds,
                )
            elif waits.is_due(part.name, now):
                start_again(home, part)
        time.sleep(LOOK_SECONDS)


def start_again(home: Path, part: RunningProcess) -> None:
    """Start a part that died, unless somebody stops or starts the service at this moment."""
    try:
        with hold_lock(name_service_folder(home) / "service.lock", wait=False):
            service = read_service(home)
            if service is None or part not in service.processes:
                return
            start = start_of_part(home, service, part.name)
            service = add_process(home, service, part.name, start, part.num_restarts + 1)
            LOGGER.warning("%s is started again: process %s", part.name, service.processes[-1].pid)
    except BusyError:
        return
    except (LightLMError, OSError) as error:
        LOGGER.warning("%s was not started again: %s", part.name, error)


def keep_in_foreground(home: Path, log: Callable[[str], None]) -> None:
    """Keep the service running from this process, for systemd and launchd."""
    from lightlm_flows.service.lifecycle import stop_service

    ends: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda caught, _: ends.append(caught))
    prepare_log()
    try:
        keep_service(home, lambda: bool(ends))
    finally:
        stop_service(home, log)


def prepare_log() -> None:
    """Say what happens on standard error: the keeper's own log, or systemd's."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)


if __name__ == "__main__":
    prepare_log()
    keep_service(find_home())
