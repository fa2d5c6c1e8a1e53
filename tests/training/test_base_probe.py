"""The probe of a base: its score on held-out text and the seconds of steps, the weights untouched."""

import json

import pytest
import torch

from lightlm.data.subset import materialize_subset
from lightlm.model.hugging_face import load_model
from lightlm.params import load_params
from lightlm.store.home import find_home
from lightlm.training import base_probe
from lightlm.training.base_probe import choose_places, cut_windows, probe_base
from lightlm.training.run import TrainingRun
from tests.training.conftest import LINES


@pytest.fixture
def subset(tmp_path):
    rows = "".join(json.dumps({"text": line}) + "\n" for line in LINES)
    (tmp_path / "lines.jsonl").write_text(rows, encoding="utf-8")
    params = load_params(
        overrides={"dataset.validation_fraction": 0.2}, dataset=str(tmp_path / "lines.jsonl")
    )
    return materialize_subset(find_home(), params.dataset)


def test_a_base_is_scored_and_each_way_to_tune_it_is_timed(
    make_request, subset, corpus, settings, shape
):
    folder = (
        TrainingRun(find_home(), make_request("start", max_steps=30)).run(lambda event: None).folder
    )
    trainers = [settings(tuned=tuned, micro_batch_size=1) for tuned in ("lora", "all", "last")]
    found = probe_base(folder, subset, shape(), trainers, 60.0)
    assert 1 < found.bits_per_byte < 8
    assert found.num_bytes > 100
    assert found.score_tokens_per_second > 0
    assert [one.tuned for one in found.timings] == ["lora", "all", "last"]
    assert all(one.token_seconds > 0 and one.update_seconds > 0 for one in found.timings)
    windows = list(cut_windows(list(subset.read_documents("validation")), corpus[1], 16))
    assert found.num_bytes == sum(size for _, size in windows)
    assert max(len(tokens) for tokens, _ in windows) == 17


def test_timing_a_step_changes_no_weight(make_request, subset, settings, shape, monkeypatch):
    folder = (
        TrainingRun(find_home(), make_request("start", max_steps=2)).run(lambda event: None).folder
    )
    seen = []
    build = base_probe.build_model

    def build_and_see(*arguments, **options):
        seen.append(build(*arguments, **options))
        return seen[-1]

    monkeypatch.setattr(base_probe, "build_model", build_and_see)
    trainers = [settings(tuned=tuned, weight_decay=0.0) for tuned in ("lora", "all", "last")]
    probe_base(folder, subset, shape(), trainers, 60.0)
    before = dict(load_model(folder).named_parameters())
    for name, weight in seen[0].named_parameters():
        assert torch.equal(weight, before[name]), name


def test_without_time_the_first_way_alone_is_timed(make_request, subset, settings, shape):
    folder = (
        TrainingRun(find_home(), make_request("start", max_steps=2)).run(lambda event: None).folder
    )
    trainers = [settings(tuned=tuned) for tuned in ("lora", "all")]
    found = probe_base(folder, subset, shape(), trainers, 0.0)
    assert [one.tuned for one in found.timings] == ["lora"]


def test_windows_lie_all_over_the_text_and_go_on_with_the_next_document(corpus):
    sizes = [10, 1000, 30, 60]
    places = choose_places(sizes, 11)
    assert len(set(places)) == 11
    assert {document for document, _ in places} == {1, 3}
    assert all(0 <= at < sizes[document] for document, at in places)
    assert sorted(choose_places([3], 64)) == [(0, 0), (0, 1), (0, 2)]

    documents = [line.encode() for line in LINES[:4]]
    tokenizer = corpus[1]
    for ids, size in cut_windows(documents, tokenizer, 16):
        assert len(ids) <= 17
        read = tokenizer.decode_bytes(ids[1:].tolist())
        assert len(read) == size
        assert read in b"".join(documents)


def test_short_windows_are_corrected_for_their_length(
    make_request, subset, settings, shape, monkeypatch
):
    folder = (
        TrainingRun(find_home(), make_request("start", max_steps=2)).run(lambda event: None).folder
    )
    trainers = [settings(tuned="lora")]
    whole = probe_base(folder, subset, shape(), trainers, 60.0)
    assert whole.num_doublings == 0
    monkeypatch.setattr(base_probe, "FIRST_WINDOW", 4)
    short = probe_base(folder, subset, shape(), trainers, 0.0)
    assert short.num_doublings == 2
    assert "estimated from short windows" in short.describe()
