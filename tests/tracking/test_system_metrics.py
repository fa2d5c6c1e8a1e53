"""Tests of what is sampled of the machine: MLflow's own names, at most one sample in
five seconds.
"""

import math
from pathlib import Path

from lightlm.tracking.mlflow_records import find_experiment
from lightlm.tracking.registry import open_client
from lightlm.tracking.system_metrics import SystemSampler


def test_samples_are_finite_and_have_the_names_of_mlflows_own() -> None:
    values = SystemSampler().read()
    assert {
        "system/cpu_utilization_percentage",
        "system/system_memory_usage_megabytes",
        "system/disk_available_megabytes",
    } <= set(values)
    assert all(math.isfinite(value) and value >= 0 for value in values.values())
    assert 0 < values["system/system_memory_usage_percentage"] <= 100


def test_a_sample_that_is_not_due_is_not_sent(home: Path, database: Path) -> None:
    client = open_client(home)
    run_id = client.create_run(find_experiment(client, "lightlm", home)).info.run_id
    sampler = SystemSampler()
    sampler.send(client, run_id)
    sampler._next = math.inf
    sampler.send(client, run_id)
    assert [
        m.step for m in client.get_metric_history(run_id, "system/cpu_utilization_percentage")
    ] == [0]

    sampler._next = 0.0
    sampler.send(client, run_id)
    assert [
        m.step for m in client.get_metric_history(run_id, "system/cpu_utilization_percentage")
    ] == [0, 1]
