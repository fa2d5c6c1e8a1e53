import random

from lightlm.data.compressibility import SAMPLE_BYTES, measure_compressibility
from lightlm.data.subset import materialize_subset
from lightlm.params import load_params


def measure(folder, monkeypatch, text: str) -> tuple[float, int]:
    monkeypatch.setenv("LIGHTLM_HOME", str(folder / "home"))
    (folder / "text.txt").write_text(text, encoding="utf-8")
    return measure_compressibility(materialize_subset(load_params(dataset=str(folder / "text.txt")).dataset))


def test_a_text_of_random_letters_needs_their_entropy(tmp_path, monkeypatch):
    letters = random.Random(0)
    text = "\n\n".join("".join(letters.choices("abcdefghijklmnop", k=400)) for _ in range(1000))
    bits, size = measure(tmp_path, monkeypatch, text)
    assert 4.0 < bits < 4.4  # 16 letters: 4 bits each
    assert size <= SAMPLE_BYTES


def test_a_text_that_repeats_itself_needs_next_to_nothing(tmp_path, monkeypatch):
    paragraphs = "\n\n".join(f"{number} the same old story told again and again " * 10 for number in range(500))
    bits, _ = measure(tmp_path, monkeypatch, paragraphs)
    assert bits < 0.5
