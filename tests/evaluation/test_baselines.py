import random

from lightlm.data.subset import materialize_subset
from lightlm.data.tokenization.tokenizer import prepare_tokenizer
from lightlm.evaluation.baselines import score_compressors, score_counting
from lightlm.params import load_params
from lightlm.store.home import find_home


def test_a_text_of_random_words_costs_what_choosing_them_costs(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTLM_HOME", str(tmp_path / "home"))
    choose = random.Random(0)
    words = ["river", "stone", "walks", "under", "night", "glass", "ember", "field"]
    paragraphs = (" ".join(choose.choices(words, k=80)) for _ in range(1500))
    (tmp_path / "text.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    params = load_params(dataset=str(tmp_path / "text.txt"))
    subset = materialize_subset(find_home(), params.dataset)
    scores = score_compressors(subset)
    assert set(scores) == {"bzip2", "zstd", "xz"}
    scores["counting"] = score_counting(
        subset, prepare_tokenizer(find_home(), params.tokenizer, subset, [300])
    )
    # Three bits for a word of five letters and a space; compressors of words this short pay more.
    assert all(0.5 <= bits < 1.2 for bits in scores.values()), scores
    assert scores["counting"] < 0.56
