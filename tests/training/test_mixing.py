"""A run with count tables: its folder has them, and both together score better than either."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lightlm.data.shards import TokenShards, tokenize_subset
from lightlm.data.subset import materialize_subset
from lightlm.data.tokenization.tokenizer import Tokenizer, prepare_tokenizer
from lightlm.errors import CorruptError, ModelVersionError
from lightlm.evaluation.scoring import score_documents, summarize_documents
from lightlm.generation.text import load_generator
from lightlm.model.hugging_face import load_model
from lightlm.ngram.mixture import FOLDER, GATE_FILE
from lightlm.ngram.stage import can_count, count_shards, is_counted
from lightlm.ngram.version import load_mixture
from lightlm.params import load_params
from lightlm.store.commit import open_commit
from lightlm.store.home import find_home
from lightlm.training.memorization import choose_pieces, count_verbatim, measure_memorization
from lightlm.training.messages import TrainResult
from lightlm.training.mixing import fit_mixture
from lightlm.training.run import TrainingRun

WORDS = "river stone walks under night glass ember field seven birds sat on old walls".split()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def text(home: Path) -> tuple[TokenShards, Tokenizer]:
    """Return the shards of a text whose words follow each other by a rule, often enough."""
    random = np.random.default_rng(0)
    place = 0
    rows = []
    for _ in range(900):
        words = []
        for _ in range(40):
            place = (place + int(random.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))) % len(WORDS)
            words.append(WORDS[place])
        rows.append(json.dumps({"text": " ".join(words)}) + "\n")
    (home / "rows.jsonl").write_text("".join(rows), encoding="utf-8")
    params = load_params(dataset=str(home / "rows.jsonl"))
    subset = materialize_subset(home, params.dataset)
    tokenizer = prepare_tokenizer(home, params.tokenizer, subset, [270])
    return tokenize_subset(home, subset, tokenizer), tokenizer


@pytest.fixture(scope="module")
def counted(home: Path, text: tuple[TokenShards, Tokenizer]) -> Any:
    shards, _ = text
    assert can_count(shards)
    assert not is_counted(home, shards, 4_000_000)
    counted = count_shards(home, shards, 4_000_000)
    assert is_counted(home, shards, 4_000_000)
    assert count_shards(home, shards, 4_000_000).reused
    return counted


@pytest.fixture
def result(make_request, shape, text, counted) -> TrainResult:
    shards, tokenizer = text
    request = make_request(
        max_steps=60,
        shards_folder=shards.folder,
        tokenizer_folder=tokenizer.folder,
        model=shape(vocab_size=tokenizer.vocab_size),
        counts_folder=counted.folder,
    )
    return TrainingRun(find_home(), request).run(lambda _: None)


def test_a_run_with_count_tables_scores_better_than_its_network_alone(result, text, counted):
    shards, _ = text
    assert counted.bits_per_byte < 1.0
    assert result.gate_seconds > 0
    mixture = load_mixture(open_commit(result.folder, "model").folder)
    assert mixture is not None
    nats, _ = score_documents(load_model(result.folder), shards, mixture=mixture)
    score = summarize_documents(shards, nats)
    network = score.network_bits_per_byte
    counting = score.counting_bits_per_byte
    assert network is not None
    assert counting is not None
    assert score.bits_per_byte < network - 0.1
    assert score.bits_per_byte < 1.02 * counting
    assert math.isclose(counting, counted.bits_per_byte, rel_tol=0.25)


def test_its_text_is_written_by_both_and_stays_without_its_tables_alone(result, text):
    generator = load_generator(result.folder)
    assert generator.mixture is not None
    sampling = load_params().generation.model_dump() | {"temperature": 0.0, "max_new_tokens": 12}
    from lightlm.generation.sampling import check_sampling

    written = generator.generate(["river stone"], check_sampling(sampling))[0].text
    assert set(written.split()[:-1]) <= set(WORDS)


def test_tables_that_were_deleted_or_changed_are_refused(result):
    (result.folder / FOLDER / GATE_FILE).unlink()
    with pytest.raises(CorruptError, match=f"{FOLDER}/{GATE_FILE}"):
        open_commit(result.folder, "model")
    with pytest.raises(ModelVersionError, match=r"model\.ngram=off"):
        load_mixture(result.folder)


def test_a_gate_of_other_features_is_refused(result):
    path = result.folder / FOLDER / GATE_FILE
    save_file({"weights": load_file(path)["weights"][:3]}, path)
    with pytest.raises(ModelVersionError, match="the gate has 3 weights"):
        load_mixture(result.folder)


def test_counts_that_gain_nothing_are_not_taken(result, text, counted, monkeypatch):
    monkeypatch.setattr("lightlm.training.mixing.LEAST_GAIN", 0.9)
    model = load_model(result.folder)
    assert fit_mixture(model, text[0], counted.folder, 1.0) is None


def test_memorization_is_the_share_of_beginnings_that_are_continued_verbatim(result, home, text):
    subset = materialize_subset(home, load_params(dataset=str(home / "rows.jsonl")).dataset)
    first = next(subset.read_documents("train")).decode()
    samples = ["What the model wrote: " + first[:60], "river"]
    found = measure_memorization(result.folder, [subset], samples, 60.0)
    assert found.num_prefixes[0] >= 40
    assert found.num_prefixes[1] > 0
    assert found.together is not None
    for split, tried in enumerate(found.num_prefixes):
        assert 0 <= found.network[split] <= found.together[split] < tried / 2
    assert found.longest_copy.strip() == first[:60].strip()

    class Parrot:
        """Continues what it knows."""

        def choose_ids(self, prompts, sampling):
            for place in range(sampling.max_new_tokens):
                yield [pieces[tuple(prompt)][place] for prompt in prompts]

    known = list(choose_pieces(subset, text[1], "train"))
    pieces = {tuple(one[:32]): one[32:] for one in known}
    assert count_verbatim(Parrot(), known[:5]) == 5  # pyright: ignore[reportArgumentType]
