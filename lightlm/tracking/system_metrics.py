"""System metrics of a run: processor, memory, disk, network and GPU, as MLflow's system charts."""

import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from mlflow import MlflowClient

SAMPLE_SECONDS = 5.0


class SystemSampler:
    """Sends a sample every SAMPLE_SECONDS, under the names that MLflow's own system
    metrics have.
    """

    def __init__(self) -> None:
        self._next = 0.0
        self._count = 0
        self._network = psutil.net_io_counters()
        psutil.cpu_percent()

    def send(self, client: "MlflowClient", run_id: str) -> None:
        """Send a sample if one is due."""
        now = time.monotonic()
        if now < self._next:
            return

        self._next = now + SAMPLE_SECONDS
        from mlflow.entities import Metric

        moment = int(time.time() * 1000)
        values = self.read() | read_gpus()
        client.log_batch(
            run_id,
            metrics=[Metric(name, value, moment, self._count) for name, value in values.items()],
        )

        self._count += 1

    def read(self) -> dict[str, float]:
        """Return the values of now; of the network, what moved since the last call."""
        memory = psutil.virtual_memory()
        disk = psutil.disk_usage("/")
        network = psutil.net_io_counters()
        values = {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),
            "system/system_memory_usage_megabytes": memory.used / 1e6,
            "system/system_memory_usage_percentage": memory.percent,
            "system/disk_usage_megabytes": disk.used / 1e6,
            "system/disk_available_megabytes": disk.free / 1e6,
        }

        if network is not None and self._network is not None:
            values["system/network_receive_megabytes"] = (
                network.bytes_recv - self._network.bytes_recv
            ) / 1e6
            values["system/network_transmit_megabytes"] = (
                network.bytes_sent - self._network.bytes_sent
            ) / 1e6

        return values


def read_gpus() -> dict[str, float]:
    """Return utilisation and memory of NVIDIA GPUs; empty without nvidia-ml-py (extra `gpu`) or a
    GPU.
    """
    try:
        import pynvml  # pyright: ignore[reportMissingImports]
    except ImportError:
        return {}

    try:
        pynvml.nvmlInit()
        values = {}
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            use = pynvml.nvmlDeviceGetUtilizationRates(handle)
            values[f"system/gpu_{index}_utilization_percentage"] = float(use.gpu)
            values[f"system/gpu_{index}_memory_usage_megabytes"] = float(memory.used) / 1e6
            values[f"system/gpu_{index}_memory_usage_percentage"] = (
                100.0 * float(memory.used) / float(memory.total)
            )
        return values
    except pynvml.NVMLError:
        return {}
