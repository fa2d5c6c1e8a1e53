import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from lightlm.data import encoding
from lightlm.data.later_parts import PartWriter, list_later
from lightlm.data.shards import tokenize_subset
from lightlm.data.subset import materialize_subset
from lightlm.errors import TrainingError
from lightlm.evaluation.scoring import evaluate_shards
from lightlm.model.hugging_face import load_model
from lightlm.params import load_params
from lightlm.store.commit import open_commit
from lightlm.store.home import find_home
from lightlm.training.checkpoint import list_checkpoints
from lightlm.training.events import Checkpointed, RolledBack, Sampled, StepDone, Validated
from lightlm.training.recent_events import RecentEvents
from lightlm.training.run import EARLY_SAMPLES, MAX_ROLLBACKS, TrainingRun
from lightlm.training.validation import choose_validation_sample, validate


def stop_after(events, kind):
    """Ask to stop as soon as an event of a kind was told."""
    return lambda: any(isinstance(event, kind) for event in events)


def weights_of(folder):
    return dict(load_model(folder).named_parameters())


def is_same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_ends_with_a_committed_folder_that_scores_better_than_chance(make_request, corpus):
    request = make_request(max_steps=60, generation={"temperature": 0.7})
    events = []
    recent_events = RecentEvents()
    result = TrainingRun(find_home(), request).run(recent_events.keeping(events.append))
    assert (result.step, result.total_tokens) == (60, 60 * 64)
    assert not result.is_stopped
    assert result.final_learning_rate_factor == pytest.approx(1 / 60)
    assert open_commit(result.folder, "model").meta == {
        "step": 60,
        "total_tokens": 3840,
        "result": result.model_dump(mode="json"),
        "events": recent_events.dump(),
    }

    shards, tokenizer = corpus
    score = evaluate_shards(load_model(result.folder), shards)
    assert score.nats_per_token < 0.8 * math.log(tokenizer.vocab_size)
    assert AutoModelForCausalLM.from_pretrained(result.folder).generation_config.temperature == 0.7
    # The last state is kept until the run is registered.
    assert list_checkpoints(request.run_folder / "checkpoints")[0].name == "step-000000060"


def test_a_run_tells_steps_validations_samples_and_checkpoints_in_order(make_request):
    events = []
    TrainingRun(find_home(), make_request(sample_tokens=5)).run(events.append)
    kinds = [type(event) for event in events]
    # 3 on the way, 1 at the end
    assert kinds.count(Validated) == kinds.count(Sampled) - len(EARLY_SAMPLES) == 4
    assert [event.step for event in events if isinstance(event, Checkpointed)] == [3, 5, 9, 13, 16]
    assert [event.progress for event in events] == sorted(event.progress for event in events)
    last = [event for event in events if isinstance(event, StepDone)][-1]
    assert (last.step, last.total_tokens) == (16, 16 * 64)
    assert [event.prompt for event in events if isinstance(event, Sampled)] == ["The"] * 6


def test_watching_does_not_change_what_is_learnt(make_request):
    watched = make_request("watched", dropout=0.1, sample_tokens=5, keep_best=True)
    blind = make_request("blind", dropout=0.1, num_validations=1, num_checkpoints=1)
    folders = [
        TrainingRun(find_home(), request).run(lambda event: None).folder
        for request in (watched, blind)
    ]
    assert is_same(*(weights_of(folder) for folder in folders))


def test_a_stopped_run_keeps_a_checkpoint_and_goes_on_to_the_same_end(make_request):
    straight = TrainingRun(find_home(), make_request("straight")).run(lambda event: None)
    request = make_request("stopped")
    events = []
    stopped = TrainingRun(find_home(), request, should_stop=stop_after(events, Checkpointed)).run(
        events.append
    )
    assert stopped.is_stopped
    assert stopped.step == 3
    assert load_model(stopped.folder).config == request.model
    resumed = TrainingRun(find_home(), request).run(lambda event: None)
    assert (resumed.step, resumed.total_tokens) == (16, 16 * 64)
    assert is_same(weights_of(resumed.folder), weights_of(straight.folder))


def test_paced_by_the_clock_a_run_ends_by_its_deadline_annealed(make_request):
    request = make_request(max_steps=None, deadline=time.monotonic() + 1.0)
    events = []
    result = TrainingRun(find_home(), request).run(events.append)
    assert result.step > 1
    progress = [event.progress for event in events if isinstance(event, StepDone)]
    assert progress == sorted(progress)
    # cooldown_fraction is 1: the factor is what is left of the budget.
    assert result.final_learning_rate_factor == pytest.approx(1 - progress[-1])


def test_seconds_spent_before_a_restart_count_as_spent(make_request):
    request = make_request(max_steps=None, deadline=time.monotonic() + 2.0)
    events = []
    stopped = TrainingRun(find_home(), request, should_stop=stop_after(events, Checkpointed)).run(
        events.append
    )
    events.clear()
    TrainingRun(find_home(), request).run(events.append)
    first = next(
        event for event in events if isinstance(event, StepDone) and event.step > stopped.step
    )
    assert first.progress >= 0.1  # the checkpoint's


def test_after_the_deadline_a_run_still_ends_with_a_model(make_request):
    request = make_request(max_steps=None, deadline=time.monotonic() - 1.0)
    result = TrainingRun(find_home(), request).run(lambda event: None)
    assert (result.step, result.total_tokens) == (0, 0)
    assert load_model(result.folder).config == request.model


def test_a_micro_batch_made_smaller_after_a_memory_kill_is_used_on_resuming(make_request):
    events = []
    TrainingRun(find_home(), make_request(), should_stop=stop_after(events, Checkpointed)).run(
        events.append
    )
    result = TrainingRun(find_home(), make_request(micro_batch_size=2)).run(lambda event: None)
    assert result.micro_batch_size == 2


def test_a_micro_batch_that_was_made_smaller_stays_so_on_resuming(make_request):
    events = []
    request = make_request(micro_batch_size=2)
    TrainingRun(find_home(), request, should_stop=stop_after(events, Checkpointed)).run(
        events.append
    )
    assert (
        TrainingRun(find_home(), make_request(micro_batch_size=4))
        .run(lambda event: None)
        .micro_batch_size
        == 2
    )


def test_where_the_last_weights_validate_worse_the_best_ones_are_kept(make_request):
    request = make_request(max_steps=20, num_validations=10, keep_best=True)
    run = TrainingRun(find_home(), request)
    events = []

    def spoil(event):
        events.append(event)
        if isinstance(event, Checkpointed) and 0.7 < event.progress < 0.9:
            with torch.no_grad():
                run.model.head.mul_(-1.0)

    result = run.run(spoil)
    scores = [event.bits_per_byte for event in events if isinstance(event, Validated)]
    assert result.used_best_checkpoint
    assert scores[-1] > min(scores)
    assert validate(load_model(result.folder), run.validator.sample) == pytest.approx(
        min(scores), rel=1e-5
    )


def test_without_keep_best_the_last_weights_are_kept(make_request):
    run = TrainingRun(find_home(), make_request())
    assert not run.run(lambda event: None).used_best_checkpoint
    assert run.validator.best_weights is None


def test_a_sample_of_all_is_the_whole_held_out_text(corpus):
    shards, tokenizer = corpus
    sample = choose_validation_sample(shards, tokenizer, 10**9)
    assert sample.num_bytes == shards.num_validation_bytes
    tokens = np.concatenate([piece[1:] for piece in sample.pieces])
    assert np.array_equal(tokens, shards.tokens("validation")[1:])


@pytest.mark.parametrize("max_tokens", [8, 100, 300])
def test_a_sample_counts_the_bytes_of_its_tokens(corpus, max_tokens):
    shards, tokenizer = corpus
    sample = choose_validation_sample(shards, tokenizer, max_tokens)
    assert sample.num_bytes == sum(
        len(tokenizer.decode_bytes(piece[1:].tolist())) for piece in sample.pieces
    )
    assert max_tokens // 2 <= sum(len(piece) - 1 for piece in sample.pieces) <= 2 * max_tokens


def test_a_sample_is_spread_over_the_text(corpus):
    shards, tokenizer = corpus
    sample = choose_validation_sample(shards, tokenizer, 80)
    stream = shards.tokens("validation")[:]
    starts = [
        next(i for i in range(len(stream)) if np.array_equal(stream[i : i + len(piece)], piece))
        for piece in sample.pieces
    ]
    assert len(starts) == 8
    assert starts[-1] > 0.75 * len(stream)


def poison_at(run, steps):
    """Make the loss not a number in the steps named, counted by the calls of the first layer in
    training.
    """
    calls = iter(range(10**9))

    def hook(module, inputs, output):
        if not run.model.training:
            return output
        return (output[0] * math.nan, *output[1:]) if next(calls) in steps else output

    return run.model.layers[0].register_forward_hook(hook)


def all_finite(folder):
    return all(bool(torch.isfinite(weight).all()) for weight in weights_of(folder).values())


def test_three_bad_steps_lead_back_to_the_last_good_weights_at_half_the_rate(make_request):
    request = make_request(max_steps=40)
    events = []
    run = TrainingRun(find_home(), request)
    poison_at(run, {15, 16, 17})
    result = run.run(events.append)
    (rolled_back,) = [event for event in events if isinstance(event, RolledBack)]
    saved = [
        event.step
        for event in events
        if isinstance(event, Checkpointed) and event.step < rolled_back.step
    ]

    assert rolled_back.to_step == saved[-1]
    assert rolled_back.learning_rate_scale == 0.5
    assert (result.step, result.num_rollbacks) == (40, 1)  # the batches that did it are left behind
    assert all_finite(result.folder)


def test_before_the_first_checkpoint_a_rollback_is_to_fresh_weights(make_request):
    request = make_request(max_steps=40, num_checkpoints=1)
    events = []
    run = TrainingRun(find_home(), request)
    poison_at(run, {0, 1, 2})
    result = run.run(events.append)
    assert [event.to_step for event in events if isinstance(event, RolledBack)] == [0]
    assert result.step == 40
    assert all_finite(result.folder)


def test_a_run_that_diverges_again_and_again_ends_with_its_last_good_weights(make_request):
    run = TrainingRun(find_home(), make_request(max_steps=400))
    events = []
    poison_at(run, set(range(100, 10**6)))
    result = run.run(events.append)
    assert len([event for event in events if isinstance(event, RolledBack)]) == MAX_ROLLBACKS + 1
    assert result.step < 400
    assert all_finite(result.folder)


def test_a_run_that_was_never_finite_publishes_nothing(make_request):
    request = make_request(max_steps=400)
    run = TrainingRun(find_home(), request)
    poison_at(run, range(10**9))
    with pytest.raises(TrainingError, match="not finite"):
        run.run(lambda event: None)
    assert not (request.run_folder / "model").exists()
    assert not list_checkpoints(request.run_folder / "checkpoints")


def test_weights_that_an_update_made_infinite_are_neither_saved_nor_published(make_request):
    request = make_request(max_steps=20)
    events = []
    run = TrainingRun(find_home(), request)

    def spoil(event):
        events.append(event)
        if isinstance(event, StepDone) and event.step == 20:
            with torch.no_grad():
                run.model.head[0, 0] = math.inf

    result = run.run(spoil)
    assert any(isinstance(event, RolledBack) for event in events)
    assert all_finite(result.folder)


def test_a_run_that_has_ended_is_not_trained_again(make_request):
    request = make_request()
    events = []
    result = TrainingRun(find_home(), request).run(lambda event: None)
    assert TrainingRun(find_home(), request).run(events.append) == result
    assert not [event for event in events if isinstance(event, Checkpointed)]


@pytest.mark.parametrize("is_over", [False, True], ids=["stopped", "ended"])
def test_events_that_may_be_lost_are_emitted_again_by_the_resumed_run(make_request, is_over):
    request = make_request(sample_tokens=5)
    unheard = []
    heard = []
    TrainingRun(
        find_home(),
        request,
        should_stop=(lambda: False) if is_over else stop_after(unheard, Validated),
    ).run(unheard.append)

    assert {type(event) for event in unheard} == {StepDone, Validated, Sampled, Checkpointed}
    TrainingRun(find_home(), request).run(heard.append)
    wanted = [event for event in unheard if isinstance(event, StepDone | Sampled)]
    assert [event for event in heard if isinstance(event, StepDone | Sampled)][
        : len(wanted)
    ] == wanted

    validated, again = (
        [e for e in events if isinstance(e, Validated)] for events in (unheard, heard)
    )
    assert again[: len(validated)] == [replace(event, seconds=0.0) for event in validated]


def test_the_best_weights_outlive_a_restart(make_request):
    request = make_request(max_steps=40, num_validations=10, keep_best=True)
    events = []
    run = TrainingRun(
        find_home(),
        request,
        should_stop=lambda: len([e for e in events if isinstance(e, Validated)]) >= 2,
    )
    run.run(events.append)
    resumed = TrainingRun(find_home(), request)
    assert is_same(resumed.validator.best_weights, run.validator.best_weights)
    assert resumed.validator.best_bits == run.validator.best_bits


def test_the_figures_of_a_resumed_run_are_those_of_the_whole(make_request):
    request = make_request()
    events = []
    first = TrainingRun(find_home(), request, should_stop=stop_after(events, Checkpointed)).run(
        events.append
    )
    second = TrainingRun(find_home(), request).run(lambda event: None)
    assert second.training_seconds > first.training_seconds
    assert second.tokens_per_second == pytest.approx(second.total_tokens / second.training_seconds)


def test_a_run_that_stops_before_the_later_parts_are_there_ends_as_one_that_had_them(
    make_request, corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr(encoding, "CHUNK_BYTES", 1_000)
    monkeypatch.setattr(encoding, "FIRST_BYTES", 8_000)
    path = tmp_path / "lines.jsonl"
    rows = [f"{n} of {n % 7} birds sat on wall {n * n % 1000} and sang." for n in range(1500)]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), "utf-8")
    tokenizer = corpus[1]
    text = materialize_subset(find_home(), load_params(dataset=str(path)).dataset)
    shards = tokenize_subset(find_home(), text, tokenizer)
    sizes = {"batch_tokens": 16 * 16, "micro_batch_size": 16, "max_steps": 40}
    request = make_request("stopped", shards_folder=shards.folder, **sizes)
    events = []
    stop = stop_after(events, Checkpointed)
    stopped = TrainingRun(find_home(), request, should_stop=stop).run(events.append)
    assert stopped.is_stopped and not any(folder.exists() for folder in list_later(shards))

    with PartWriter(find_home(), shards, tokenizer, request.run_folder) as writer:
        resumed = TrainingRun(find_home(), request).run(lambda event: None)
    assert writer.num_bytes and resumed.step == 40
    assert list_later(shards)[0].exists()

    request = make_request("straight", shards_folder=shards.folder, **sizes)
    straight = TrainingRun(find_home(), request).run(lambda event: None)
    assert is_same(weights_of(resumed.folder), weights_of(straight.folder))
