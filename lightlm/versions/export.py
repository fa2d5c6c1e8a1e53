"""Export of a registered version to another format, verified against ours."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from lightlm.errors import CorruptError, InputError, ModelVersionError
from lightlm.store.commit import MANIFEST, commit_folder
from lightlm.tracking.registry import ModelVersion, download

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

Format = Literal["hf", "gguf", "onnx"]

CHECKED_TOKENS = 48
"""Tokens over which logits are compared; the greedy continuation is as long."""

TOLERANCE = 1e-3
"""Largest difference of a logit that is rounding; fp32 sums in another order give about 1e-5."""


class Export(BaseModel):
    """An export and its check: largest difference of a logit, and whether greedy text agrees."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    folder: str
    format: Format
    model_name: str
    model_version: str
    num_bytes: int
    checked_tokens: int
    largest_difference: float
    is_same_text: bool
    checked_with: str


def export_version(version: ModelVersion, kind: Format, folder: Path) -> Export:
    """Write a registered version into a new folder as `kind`, and compare it with ours.

    Raises:
        InputError: the folder is there already and is not empty.
        ModelVersionError: a package for the format is missing; or the format cannot hold it.
        CorruptError: what was written does not compute what ours does; nothing is left under the
            folder.
    """
    check_folder(folder)
    found: dict[str, Export] = {}

    def write(scratch: Path) -> dict[str, str]:
        found["export"] = fill(version, kind, scratch).model_copy(update={"folder": str(folder)})
        return {"model": version.name, "version": version.version, "format": kind}

    if folder.exists():
        folder.rmdir()
    commit_folder(folder, f"export-{kind}", write)
    return found["export"]


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something already.

    Raises:
        InputError: it does, or is a file.
    """
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise InputError(f"{folder} is there already and not empty; give a new folder")


def fill(version: ModelVersion, kind: Format, folder: Path) -> Export:
    """Write and check; return the figures."""
    import torch

    from lightlm.model.card import write_card
    from lightlm.model.hugging_face import load_model

    source = download(version)
    ours = load_model(source)
    generator = torch.Generator().manual_seed(0)
    length = min(CHECKED_TOKENS, ours.config.context_length)
    tokens = torch.randint(0, ours.config.vocab_size, (1, length), generator=generator)
    with torch.inference_mode():
        expected = ours(tokens)

    if kind == "hf":
        for path in source.iterdir():
            if path.name != MANIFEST:
                shutil.copyfile(path, folder / path.name)
        reached = run_transformers(folder, tokens)
        phrase = "transformers.AutoModelForCausalLM"
    elif kind == "gguf":
        reached = make_gguf(version, source, folder, tokens)
        phrase = f"gguf read back, in transformers; tokens by {check_tokens(source, folder)}"
    else:
        from lightlm.model.onnx import FILE, run_onnx, write_onnx

        write_onnx(ours, folder / FILE)
        for name in (
            "tokenizer.json",
            "tokenizer_config.json",
            "config.json",
            "generation_config.json",
        ):
            shutil.copyfile(source / name, folder / name)
        reached = torch.from_numpy(run_onnx(folder / FILE, tokens.numpy()))
        phrase = "onnxruntime"

    difference = float((reached - expected).abs().max())
    is_same = bool((reached.argmax(-1) == expected.argmax(-1)).all())
    if not difference <= TOLERANCE:
        raise CorruptError(
            f"the {kind} export of {version.name} {version.version} is off by {difference:.2g}; "
            "not kept"
        )

    (folder / "README.md").write_text(
        write_card(version.name, version.version, ours.config, version.tags, kind), "utf-8"
    )
    return Export(
        folder="",
        format=kind,
        model_name=version.name,
        model_version=version.version,
        num_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        checked_tokens=length,
        largest_difference=difference,
        is_same_text=is_same,
        checked_with=phrase,
    )


def make_gguf(
    version: ModelVersion, source: Path, folder: Path, tokens: "torch.Tensor"
) -> "torch.Tensor":
    """Write GGUF and Modelfile; return the logits of the file as read back."""
    import numpy as np
    from safetensors.numpy import save_file

    from lightlm.model.gguf import FILE, read_gguf, read_vocabulary, unname_tensors, write_gguf

    write_gguf(source, folder / FILE, f"{version.name}-{version.version}")
    config = json.loads((source / "generation_config.json").read_text(encoding="utf-8"))
    context = json.loads((source / "config.json").read_text(encoding="utf-8"))[
        "max_position_embeddings"
    ]
    end = read_vocabulary(folder / FILE).tokens[config["eos_token_id"]]
    (folder / "Modelfile").write_text(
        f"FROM ./{FILE}\n"
        'TEMPLATE "{{ .Prompt }}"\n'
        f"PARAMETER num_ctx {context}\n"
        f"PARAMETER temperature {config.get('temperature', 0.8)}\n"
        f"PARAMETER top_k {config.get('top_k', 50)}\n"
        f"PARAMETER top_p {config.get('top_p', 0.95)}\n"
        f"PARAMETER stop {json.dumps(end, ensure_ascii=False)}\n",
        "utf-8",
    )

    again = folder / "read-back"
    again.mkdir()
    for name in ("config.json", "generation_config.json"):
        shutil.copyfile(source / name, again / name)
    weights = {
        name: np.ascontiguousarray(weight)
        for name, weight in unname_tensors(read_gguf(folder / FILE)).items()
    }

    save_file(weights, again / "model.safetensors", metadata={"format": "pt"})
    reached = run_transformers(again, tokens)
    shutil.rmtree(again)
    return reached


def check_tokens(source: Path, folder: Path) -> str:
    """Compare tokens of hard texts and all entries with llama.cpp's; return which code made those.

    Raises:
        ModelVersionError: a text has other tokens there.
    """
    from lightlm.data.tokenization.hard_texts import HARD_TEXTS, surround
    from lightlm.data.tokenization.tokenizer import load_tokenizer
    from lightlm.model.gguf import FILE, read_vocabulary
    from lightlm.model.llama_vocabulary import REMEDY, SPACE_SYMBOL, LlamaTokenizer, overlap

    tokenizer = load_tokenizer(source)
    vocabulary = read_vocabulary(folder / FILE)
    added = vocabulary.added_tokens()
    entries = [tokenizer.decode([index]) for index in range(tokenizer.vocab_size)]
    texts = [*HARD_TEXTS, *surround(added), *overlap(added), *entries]
    # llama.cpp writes this symbol for spaces, and then cannot tell the two apart
    if vocabulary.scores:
        texts = [text for text in texts if SPACE_SYMBOL not in text]

    encode = LlamaTokenizer(vocabulary).encode
    phrase = "llama.cpp's rules"
    with suppress(ImportError):
        encode = open_llama_cpp(folder / FILE)
        phrase = "llama-cpp-python"

    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        if encode(text) != ids:
            raise ModelVersionError(
                f"llama.cpp would read {text[:60]!r} as other tokens than this model's; {REMEDY}"
            )

    return phrase


def open_llama_cpp(path: Path) -> "Callable[[str], list[int]]":
    """Return how llama.cpp itself encodes a text with the vocabulary of a GGUF file.

    Raises:
        ImportError: llama-cpp-python is not installed.
    """
    from llama_cpp import Llama  # pyright: ignore[reportMissingImports]

    llama = Llama(str(path), vocab_only=True, verbose=False)
    return lambda text: llama.tokenize(text.encode(), add_bos=False, special=False)


def run_transformers(folder: Path, tokens: "torch.Tensor") -> "torch.Tensor":
    """Return the logits that transformers computes from a Hugging Face folder."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, dtype=torch.float32
    ).eval()
    with torch.inference_mode():
        return model(tokens).logits
