"""The probe of a base: its score on held-out text and the seconds of steps, the weights untouched."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightlm.bases.folder import adopt_folder
from lightlm.data.subset import materialize_subset
from lightlm.errors import ModelVersionError
from lightlm.model.hugging_face import load_model
from lightlm.params import load_params
from lightlm.store.home import find_home
from lightlm.training import base_probe
from lightlm.training.base_probe import choose_places, cut_windows, probe_base
from lightlm.training.run import TrainingRun
from tests.bases.conftest import save_base
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
    documents = list(subset.read_documents("validation"))
    assert sum(map(len, documents)) / 2 < found.num_bytes <= sum(map(len, documents))


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


def test_windows_lie_side_by_side_all_over_the_text_and_go_on_with_the_next_document(corpus):
    sizes = [10, 1000, 30, 60]
    places = choose_places(sizes, 100)
    assert len(set(places)) == 11
    assert {document for document, _ in places} == {0, 1}
    assert all(0 <= at < sizes[document] for document, at in places)
    assert choose_places([3], 64) == [(0, 0)]

    documents = [line.encode() for line in LINES[:4]]
    tokenizer = corpus[1]
    for ids, size in cut_windows(documents, [True] * 4, tokenizer, 16, 16):
        assert len(ids) <= 17
        read = tokenizer.decode_bytes(ids[1:].tolist())
        assert len(read) == size
        assert read in b"".join(documents)


@pytest.mark.parametrize("ends", [[True, True], [False, True]])
def test_a_small_text_is_one_window_as_the_final_score_has_it(corpus, ends):
    documents = [line.encode() for line in LINES[:2]]
    tokenizer = corpus[1]
    ((ids, size),) = cut_windows(documents, ends, tokenizer, 512, 2000)
    first, second = (tokenizer.encode(document.decode()) for document in documents)
    end = [tokenizer.end_of_text_id]
    assert ids.tolist() == end + first + (end if ends[0] else []) + second + end
    assert size == sum(map(len, documents))


def test_no_end_is_put_where_a_long_piece_is_cut(corpus):
    tokenizer = corpus[1]
    ((ids, size),) = cut_windows([b"the " * 40], [True], tokenizer, 300, 300)
    assert tokenizer.end_of_text_id == ids[-1]
    assert size == 160
    for ids, _ in cut_windows([b"the " * 4000], [True], tokenizer, 8, 8):
        assert tokenizer.end_of_text_id not in ids[1:]


def test_a_base_whose_weights_are_no_numbers_is_refused(subset, settings, tmp_path):
    folder = save_base(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    base = adopt_folder(find_home(), folder)
    with pytest.raises(ModelVersionError, match="its weights are damaged"):
        probe_base(base.folder, subset, base.model, [settings(tuned="lora")], 60.0)


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
