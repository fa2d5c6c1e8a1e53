import numpy as np
import pytest
import torch

from lightlm.errors import ModelVersionError
from lightlm.model.hugging_face import load_model
from lightlm.model.onnx import FILE, run_onnx, write_onnx


def test_the_graph_computes_our_logits_at_any_batch_and_length(hugging_face_folder, tmp_path):
    model = load_model(hugging_face_folder())
    write_onnx(model, tmp_path / FILE)
    for batch, length in ((1, 1), (3, 7), (2, model.config.context_length)):
        tokens = torch.randint(
            0, model.config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(1)
        )
        with torch.inference_mode():
            expected = model(tokens).numpy()
        np.testing.assert_allclose(run_onnx(tmp_path / FILE, tokens.numpy()), expected, atol=1e-4)


def test_experts_are_refused_with_what_to_do(hugging_face_folder, tmp_path):
    model = load_model(hugging_face_folder(num_experts=4))
    with pytest.raises(ModelVersionError, match="hf or gguf"):
        write_onnx(model, tmp_path / FILE)
    assert not (tmp_path / FILE).exists()
