"""The machine in a session of menus: devices and rate, from a process started when needed."""

from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from lightlm.errors import LightLMError
from lightlm.params import Params, load_params


class Bench:
    """The machine: devices and rate, from a worker that starts while the user reads."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder: Path | None = None
        self.report: Any = None
        self._worker: Any = None
        self._rate: Any = None
        self._is_tried = False

    def __enter__(self) -> Self:
        """Return it; nothing starts before it is needed."""
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def check(self, params: Params) -> Any:
        """Return the SystemReport of this machine for `params`."""
        from lightlm.system import Device, check_system, describe_cpu, may_have_accelerator

        if self.report is None and not may_have_accelerator():
            devices = [describe_cpu()]
        elif self.report is None:
            devices = [
                Device.model_validate(d) for d in self._start().call("describe_devices")["devices"]
            ]
        else:
            devices = self.report.devices

        self.report = check_system(params, self.home, devices)
        return self.report

    def measure(self) -> Any:
        """Return the MachineRate, measured once; None if that fails."""
        from lightlm.budget.probe import measure_machine

        if not self._is_tried:
            self._is_tried = True
            with suppress(LightLMError):
                params = load_params()
                self._rate = measure_machine(
                    params.training, self.report or self.check(params), self._start()
                )
        return self._rate

    def stop(self) -> None:
        """End the process: its memory and cores belong to planning and training now."""
        worker = self._worker
        self._worker = None
        if worker is not None:
            from lightlm.store.commit import remove_folder

            worker.stop()
            remove_folder(worker.run_folder)

    def _start(self) -> Any:
        if self._worker is None:
            from lightlm.runs.folder import name_run_folder
            from lightlm.runs.session import start_worker

            self._worker = start_worker(name_run_folder(self.home), self.home)
        return self._worker
