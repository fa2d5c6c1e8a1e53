import json

import pytest

from lightlm.errors import CorruptError, InputError
from lightlm.model.gguf import FILE, name_tensors, read_gguf, read_weights, write_gguf
from lightlm.model.quantization import check_quantization, check_rounding


@pytest.fixture(params=["dense", "experts"])
def folder(request, hugging_face_folder):
    return hugging_face_folder(num_experts=4 if request.param == "experts" else 0)


@pytest.mark.parametrize("quantization", ["f16", "q8_0", "q5_0", "q4_0"])
def test_a_smaller_type_changes_no_weight_by_more_than_it_rounds(folder, tmp_path, quantization):
    write_gguf(folder, tmp_path / "f32.gguf", "a name")
    write_gguf(folder, tmp_path / FILE, "a name", quantization)
    assert (tmp_path / FILE).stat().st_size < (tmp_path / "f32.gguf").stat().st_size
    named = name_tensors(read_weights(folder))
    again = read_gguf(tmp_path / FILE)
    check_rounding(named, again, quantization)
    with pytest.raises(CorruptError, match=r"is not the model's as f32"):
        check_rounding(named, again, "f32")


def test_matrices_shrink_and_vectors_routers_and_the_head_keep_precision(folder, tmp_path):
    from gguf import GGUFReader

    write_gguf(folder, tmp_path / FILE, "a name", "q4_0")
    reader = GGUFReader(tmp_path / FILE)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert kinds["blk.0.attn_q.weight"] == "Q4_0"
    assert kinds["output.weight"] == "Q8_0"
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    assert kinds.get("blk.0.ffn_gate_inp.weight", "F32") == "F32"
    rows = json.loads((folder / "config.json").read_text())["intermediate_size"]
    assert rows % 32  # such rows are no whole blocks
    assert kinds.get("blk.0.ffn_down.weight", "F16") == "F16"
    assert reader.fields["general.file_type"].contents() == 2


def test_a_matrix_in_the_wrong_place_is_found(hugging_face_folder, tmp_path):
    folder = hugging_face_folder()
    write_gguf(folder, tmp_path / FILE, "a name", "q4_0")
    named = name_tensors(read_weights(folder))
    again = read_gguf(tmp_path / FILE)
    again["blk.0.attn_q.weight"], again["blk.1.attn_q.weight"] = (
        again["blk.1.attn_q.weight"],
        again["blk.0.attn_q.weight"],
    )
    with pytest.raises(CorruptError, match=r"blk.0.attn_q.weight.*q4_0"):
        check_rounding(named, again, "q4_0")


def test_a_type_that_gguf_does_not_quantize_to_is_refused_with_what_to_do():
    assert check_quantization("Q8_0") == "q8_0"
    with pytest.raises(InputError, match=r"llama-quantize model.gguf out.gguf q4_k_m"):
        check_quantization("q4_k_m")
    with pytest.raises(InputError, match=r"'int8'; give one of f32, f16, q8_0, q5_0, q4_0$"):
        check_quantization("int8")
