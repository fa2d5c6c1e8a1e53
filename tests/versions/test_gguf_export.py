import math
import sys

import pytest
import torch

from lightlm.data.tokenization.tokenizer import load_tokenizer
from lightlm.errors import CorruptError
from lightlm.evaluation.scoring import encode_documents, evaluate_text
from lightlm.model.gguf import FILE
from lightlm.model.hugging_face import load_model
from lightlm.versions import gguf_export
from lightlm.versions.gguf_export import make_gguf, measure_rounding, sum_nats

DOCUMENTS = [b"the old river 5 walks under stone 35", b"the river walks"] * 10


@pytest.fixture
def logits_of():
    """Return a model's own logits (T, V) of ids (T,)."""

    def give(model):
        @torch.inference_mode()
        def compute(ids):
            return model(torch.from_numpy(ids)[None])[0].numpy()

        return compute

    return give


def test_nats_of_windows_are_those_of_our_own_score(hugging_face_folder, logits_of):
    folder = hugging_face_folder()
    model = load_model(folder)
    tokens = encode_documents(load_tokenizer(folder), DOCUMENTS)
    assert len(tokens) > model.config.context_length
    nats = sum_nats(logits_of(model), tokens, model.config.context_length)
    score = evaluate_text(model, load_tokenizer(folder), DOCUMENTS)
    assert nats / math.log(2) / score.num_bytes == pytest.approx(score.bits_per_byte, rel=1e-5)


def test_what_a_smaller_type_costs_is_measured(hugging_face_folder, tmp_path, monkeypatch):
    folder = hugging_face_folder()
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    again = make_gguf("a name", folder, tmp_path, "q4_0")
    model = load_model(folder)
    rounded = measure_rounding(model, folder, again, tmp_path / FILE, "q4_0", DOCUMENTS)
    assert rounded.num_bytes == sum(map(len, DOCUMENTS))
    assert rounded.bits_per_byte != rounded.fp32_bits_per_byte
    assert rounded.cost == pytest.approx(rounded.bits_per_byte / rounded.fp32_bits_per_byte - 1)
    assert rounded.format().startswith("q4_0: ")
    assert rounded.scored_with == "LightLM from the file's weights"


def test_a_file_that_llama_cpp_scores_otherwise_is_refused(
    hugging_face_folder, tmp_path, monkeypatch, logits_of
):
    folder = hugging_face_folder()
    again = make_gguf("a name", folder, tmp_path, "q8_0")
    model = load_model(folder)
    compute = logits_of(load_model(again))
    values = (model, folder, again, tmp_path / FILE, "q8_0", DOCUMENTS)
    monkeypatch.setattr(gguf_export, "open_llama_logits", lambda *_: compute)
    assert measure_rounding(*values).scored_with == "llama-cpp-python"
    monkeypatch.setattr(gguf_export, "open_llama_logits", lambda *_: lambda ids: -compute(ids))
    with pytest.raises(CorruptError, match=r"llama.cpp scores the q8_0 file at"):
        measure_rounding(*values)


def test_llama_cpp_computes_what_the_file_holds(hugging_face_folder, tmp_path):
    pytest.importorskip("llama_cpp")
    folder = hugging_face_folder()
    again = make_gguf("a name", folder, tmp_path, "q8_0")
    model = load_model(folder)
    rounded = measure_rounding(model, folder, again, tmp_path / FILE, "q8_0", DOCUMENTS)
    assert rounded.scored_with == "llama-cpp-python"
