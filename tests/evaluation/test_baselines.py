import random

from lightlm.data.subset import materialize_subset
from lightlm.evaluation.baselines import NGRAM_ORDER, score_baselines
from lightlm.params import load_params


def test_a_text_of_random_words_costs_what_choosing_them_costs(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTLM_HOME", str(tmp_path / "home"))
    choose = random.Random(0)
    words = ["river", "stone", "walks", "under", "night", "glass", "ember", "field"]
    paragraphs = (" ".join(choose.choices(words, k=80)) for _ in range(1500))
    (tmp_path / "text.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    scores = score_baselines(
        materialize_subset(load_params(dataset=str(tmp_path / "text.txt")).dataset)
    )
    assert set(scores) == {f"n-gram, order {NGRAM_ORDER}", "bzip2", "zstd", "xz"}
    # Three bits for a word of five letters and a space; compressors of words this short pay more.
    assert all(0.5 <= bits < 1.2 for bits in scores.values()), scores
