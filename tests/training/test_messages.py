import json
from pathlib import Path

from lightlm.training.messages import TrainRequest, TrainResult


def test_a_request_survives_the_way_to_the_worker(make_request):
    request = make_request(keep_best=True, generation={"temperature": 0.5, "top_k": 3})
    line = json.dumps(request.model_dump(mode="json"))
    assert TrainRequest.model_validate(json.loads(line)) == request


def test_a_result_survives_json():
    result = TrainResult(
        folder=Path("/runs/one/model"),
        step=3,
        total_tokens=192,
        training_seconds=0.5,
        final_learning_rate_factor=0.01,
        tokens_per_second=384.0,
        micro_batch_size=2,
        memory_bytes=10**9,
        is_stopped=False,
        used_best_checkpoint=True,
    )

    assert (
        TrainResult.model_validate(json.loads(json.dumps(result.model_dump(mode="json")))) == result
    )
