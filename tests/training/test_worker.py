import time

import pytest

from lightlm.data.shards import TokenShards
from lightlm.errors import DatasetError, ParameterError, StoreError, TrainingError
from lightlm.evaluation.score import Score
from lightlm.evaluation.scoring import evaluate_shards
from lightlm.model.hugging_face import load_model
from lightlm.system import Device
from lightlm.training.supervisor import Worker
from lightlm.training.timing import StepTiming
from lightlm.training.worker import describe_error


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    with Worker(tmp_path_factory.mktemp("worker")) as started:
        yield started


def test_it_describes_the_devices_the_cpu_first(worker):
    devices = [Device.model_validate(one) for one in worker.call("describe_devices")["devices"]]
    assert devices[0].kind == "cpu"
    assert devices[0].memory_bytes > 0


def test_it_measures_the_matrix_rate_and_real_steps(worker, shape, settings):
    trainer = settings().model_dump()
    rates = worker.call(
        "measure_matrix_rates", trainer=trainer, dtypes=["float32", "bfloat16"], max_seconds=0.0
    )
    assert min(rates["float32"], rates["bfloat16"]) > 1e6
    answer = worker.call("time_steps", model=shape().model_dump(), trainer=trainer, max_seconds=0.1)
    timing = StepTiming.model_validate(answer)
    assert 0 < timing.step_seconds <= timing.slow_step_seconds
    assert timing.tokens_per_second == pytest.approx(64 / timing.step_seconds)


def test_it_trains_and_then_scores_what_it_trained(worker, make_request, corpus):
    shards: TokenShards = corpus[0]
    request = make_request(max_steps=20)
    records = list(worker.stream("train", **request.model_dump(mode="json")))
    assert [list(record) == ["result"] for record in records] == [False] * (len(records) - 1) + [
        True
    ]

    result = records[-1]["result"]
    assert result["step"] == 20
    arguments = {"folder": result["folder"], "shards_folder": str(shards.folder), "max_bytes": None}
    arguments["trainer"] = request.trainer.model_dump()
    score = Score.model_validate(
        worker.call("evaluate", **arguments, deadline=time.monotonic() + 600)["score"]
    )

    wanted = evaluate_shards(load_model(request.run_folder / "model"), shards)
    assert score.is_whole
    assert score.bits_per_byte == pytest.approx(wanted.bits_per_byte, rel=1e-5)
    late = Score.model_validate(
        worker.call("evaluate", **arguments, deadline=time.monotonic() - 1)["score"]
    )

    assert late.num_documents == 1


def test_an_error_arrives_as_the_class_that_was_raised_and_the_worker_lives_on(
    worker, make_request, shape, tmp_path
):
    def train(**change):
        return worker.call("train", **make_request(**change).model_dump(mode="json"))

    with pytest.raises(StoreError, match="manifest"):
        train(shards_folder=tmp_path)
    with pytest.raises(DatasetError, match="a sequence needs 65,537"):
        train(model=shape(context_length=65_536))
    with pytest.raises(ParameterError, match="no flash kernel on Apple GPUs"):
        train(device="mps", attention="flash")

    with pytest.raises(
        TrainingError,
        match=r"loss on held-out text is .*give a smaller training.learning_rate_scale",
    ):
        train(max_steps=100, embedding_learning_rate=1e38, gain_learning_rate=1e38)

    assert worker.call("describe_devices")["devices"]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("could not create a primitive"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: not enough memory"),
        MemoryError(),
    ],
)
def test_memory_that_ran_out_is_no_bug_and_is_said_so(error: Exception) -> None:
    said = describe_error(error)
    assert said["kind"] == "WorkerError"
    assert said["message"].startswith("memory does not hold the model")
