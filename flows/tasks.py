"""The stages of a run as Prefect tasks; the functions are in lightlm.runs and lightlm.versions."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from prefect import Task
from prefect.cache_policies import NO_CACHE

from lightlm.runs import base_start, champion, dataset_change, retraining, stages
from lightlm.versions import text

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def as_task(stage: Callable[Arguments, Result], name: str) -> Task[Arguments, Result]:
    """Return a stage as a task without Prefect's caching: the store keeps the results."""
    return Task(stage, name=name, cache_policy=NO_CACHE, persist_result=False)


check_system = as_task(stages.check_system, "Check the system")
measure_matrix_rate = as_task(stages.measure_matrix_rate, "Measure the matrix rate")
materialize_subset = as_task(stages.materialize_subset, "Materialize the data set's subset")
measure_training_rate = as_task(stages.measure_training_rate, "Measure the training rate")
choose_base = as_task(base_start.choose_base, "Choose what training starts from")
prepare_tokenizer = as_task(stages.prepare_tokenizer, "Prepare the tokenizer")
tokenize_subset = as_task(stages.tokenize_subset, "Tokenize to cached shards")
count_tokens = as_task(stages.count_tokens, "Count the text's tokens")
score_champion = as_task(champion.score_champion, "Score the champion on the new held-out text")
plan_budget = as_task(stages.plan_budget, "Plan the budget")
train_model = as_task(stages.train_model, "Train the model")
evaluate_model = as_task(stages.evaluate_model, "Score the held-out text")
register_model = as_task(stages.register_model, "Register the model version")

find_text = as_task(retraining.find_text, "Find the data set to retrain on")
look_for_changes = as_task(dataset_change.read_change, "Look for a changed data set")
choose_where_to_start = as_task(base_start.choose_retraining_start, "Choose where to start")

find_version = as_task(text.open_version, "Find the registered version")
write_text = as_task(text.write_traced, "Write text")
