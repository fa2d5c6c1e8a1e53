"""Bases from Hugging Face folders: checked, copied once, their tokenizer kept."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightlm.bases.folder import adopt_folder
from lightlm.data.tokenization.tokenizer import load_tokenizer, prepare_tokenizer
from lightlm.errors import ModelVersionError, TokenizerError
from lightlm.model.hugging_face import export_model, load_model
from lightlm.params import load_params

WriteBase = Callable[..., Path]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_base_computes_what_its_folder_does(
    home: Path, write_base: WriteBase, family: str, dtype: torch.dtype
) -> None:
    folder = write_base(family, dtype=dtype)
    base = adopt_folder(home, folder)
    tokens = torch.randint(0, 258, (1, 60), generator=torch.Generator().manual_seed(0))
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        ours = load_model(base.folder)(tokens)[..., :258]
        torch.testing.assert_close(ours, theirs(tokens).logits, atol=1e-4, rtol=0)
    assert base.model.family == family
    assert base.origin.license == "apache-2.0"
    assert base.origin.languages == ("en",)


def test_no_text_is_lost_by_a_tokenizer_that_lacks_a_byte(
    home: Path, write_base: WriteBase
) -> None:
    base = adopt_folder(home, write_base())
    tokenizer = load_tokenizer(base.folder)
    text = "an end \x04 of transmission, \u00e9\U0001f600"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    # The token that was added has a row of its own: the mean of those that were there.
    assert tokenizer.vocab_size == base.model.vocab_size == 259
    table = load_file(base.folder / "model.safetensors")["model.embed_tokens.weight"]
    torch.testing.assert_close(table[258], table[:258].mean(0))


def test_documents_end_as_in_pretraining_and_a_chat_as_before(
    home: Path, write_base: WriteBase
) -> None:
    base = adopt_folder(home, write_base())
    assert base.origin.end_of_text == "<|endoftext|>"
    assert load_tokenizer(base.folder).end_of_text_id == 0
    assert json.loads((base.folder / "config.json").read_text())["eos_token_id"] == 2


def test_a_model_trained_from_it_keeps_tokenizer_chat_template_and_special_tokens(
    home: Path, write_base: WriteBase, tmp_path: Path
) -> None:
    folder = write_base()
    base = adopt_folder(home, folder)
    out = tmp_path / "out"
    out.mkdir()
    params = load_params(overrides={"tokenizer.source": str(base.folder)})
    read_with = prepare_tokenizer(home, params.tokenizer, None, [])  # pyright: ignore[reportArgumentType]
    assert read_with.end_of_text_id == 0
    export_model(load_model(base.folder), read_with.folder, out, base_folder=base.folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    kept = AutoTokenizer.from_pretrained(out)
    chat = [{"role": "user", "content": "hello"}]
    assert kept.apply_chat_template(chat, tokenize=False) == theirs.apply_chat_template(
        chat, tokenize=False
    )
    assert kept("the old river").input_ids == theirs("the old river").input_ids
    assert (kept.eos_token, kept.bos_token) == ("<|im_end|>", "<|im_start|>")
    assert json.loads((out / "config.json").read_text())["eos_token_id"] == 2
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == [2, 0]
    assert AutoModelForCausalLM.from_pretrained(out).config.model_type == "llama"
    assert load_tokenizer(out).encode("a \x04") == load_tokenizer(base.folder).encode("a \x04")


def test_a_base_is_copied_once_and_anew_where_it_has_changed(
    home: Path, write_base: WriteBase
) -> None:
    folder = write_base()
    first = adopt_folder(home, folder)
    assert adopt_folder(home, folder).folder == first.folder
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"] += 1
    save_file(weights, path, metadata={"format": "pt"})
    assert adopt_folder(home, folder).folder != first.folder


def test_several_files_of_weights_become_one(home: Path, write_base: WriteBase) -> None:
    folder = write_base()
    whole = adopt_folder(home, folder)
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    assert len(list(folder.glob("*.safetensors"))) > 1
    again = adopt_folder(home, folder)
    ours = load_file(again.folder / "model.safetensors")
    for name, weight in load_file(whole.folder / "model.safetensors").items():
        assert torch.equal(ours[name], weight)


def test_weights_that_could_run_code_are_not_looked_at(home: Path, write_base: WriteBase) -> None:
    folder = write_base()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelVersionError, match=r"pytorch_model\.bin, which can run code"):
        adopt_folder(home, folder)


def test_a_folder_without_a_tokenizer_is_refused(home: Path, write_base: WriteBase) -> None:
    folder = write_base()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match=r"holds no tokenizer\.json"):
        adopt_folder(home, folder)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"\xff" * 16, "no whole safetensors file"),
        (struct.pack("<Q", 2**62) + b"{}", "a header of"),
        (
            b'{"x": {"dtype": "F32", "shape": [9999999999], "data_offsets": [0, 39999999996]}}',
            "does not lie within the file",
        ),
        (b'{"x": {"dtype": "F8", "shape": [1], "data_offsets": [0, 1]}}', "is of type F8"),
        (b'{"x": 3}', "no whole safetensors file"),
    ],
)
def test_damaged_weights_are_refused_before_anything_is_allocated(
    home: Path, write_base: WriteBase, header: bytes, message: str
) -> None:
    folder = write_base()
    content = header if header[:1] != b"{" else struct.pack("<Q", len(header)) + header
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelVersionError, match=message):
        adopt_folder(home, folder)


def test_a_config_of_a_larger_model_than_its_weights_is_refused(
    home: Path, write_base: WriteBase
) -> None:
    folder = write_base()
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"hidden_size": 64, "head_dim": 8}))
    with pytest.raises(ModelVersionError, match="but its config wants"):
        adopt_folder(home, folder)
