"""Export of a registered version to another format, verified against ours."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import BaseModel

from lightlm.data.origin import find_hub_id, read_origin
from lightlm.errors import CorruptError, InputError
from lightlm.ngram.mixture import FOLDER as TABLES
from lightlm.store.commit import MANIFEST, commit_folder
from lightlm.tracking.registry import ModelVersion, download
from lightlm.tracking.tags import ORIGIN_TAG
from lightlm.versions.gguf_export import Rounded, check_tokens, make_gguf, measure_rounding

if TYPE_CHECKING:
    import torch

    from lightlm.model.quantization import Quantization
    from lightlm.model.transformer import Transformer

Format = Literal["hf", "gguf", "onnx", "web"]

CHECKED_TOKENS = 48
"""Tokens over which logits are compared; the greedy continuation is as long."""

TOLERANCE = 1e-3
"""Largest difference of a logit that is rounding; fp32 sums in another order give about 1e-5."""


class Export(BaseModel, frozen=True):
    """An export and its check: largest difference of a logit, and whether greedy text agrees."""

    folder: str
    format: Format
    model_name: str
    model_version: str
    num_bytes: int
    checked_tokens: int
    largest_difference: float
    is_same_text: bool
    checked_with: str
    note: str = ""
    """What the export leaves out: the version's count tables."""
    rounded: Rounded | None = None
    """What the smaller type of its weights costs; None of fp32."""


@dataclass(frozen=True)
class Options:
    """What a format takes: gguf the type of the weights, and documents to measure its cost on; web
    the folder of npm's archives, where npm itself is not to be asked.
    """

    quantization: "Quantization" = "f32"
    documents: Sequence[bytes] = ()
    libraries: Path | None = None


def export_version(
    home: Path,
    version: ModelVersion,
    kind: Format,
    folder: Path,
    options: Options = Options(),
) -> Export:
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
        found["export"] = fill(home, version, kind, scratch, options).model_copy(
            update={"folder": str(folder)}
        )
        return {"model": version.name, "version": version.version, "format": kind}

    if folder.exists():
        folder.rmdir()
    commit_folder(folder, f"export-{kind}", write)
    return found["export"]


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something already.

    Raises:
        InputError: it does, or is a file or a link.
    """
    if folder.is_symlink():
        raise InputError(f"{folder} is a link; give a new folder, or what the link names")
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise InputError(f"{folder} is there already and not empty; give a new folder")


def fill(home: Path, version: ModelVersion, kind: Format, folder: Path, options: Options) -> Export:
    """Write and check; return the figures."""
    import torch

    from lightlm.model.card import write_card
    from lightlm.model.hugging_face import load_model

    source = download(home, version)
    ours = load_model(source)
    generator = torch.Generator().manual_seed(0)
    length = min(CHECKED_TOKENS, ours.config.context_length)
    tokens = torch.randint(0, ours.config.vocab_size, (1, length), generator=generator)
    with torch.inference_mode():
        expected = ours(tokens)

    written = FORMATS[kind](Job(home, version, source, ours, folder, tokens, options))
    difference = float((written.logits - expected).abs().max())
    if written.rounded is None and not difference <= TOLERANCE:
        raise CorruptError(
            f"the {kind} export of {version.name} {version.version} is off by {difference:.2g}; "
            "not kept"
        )

    hub_dataset = find_hub_id(read_origin(version.tags.get(ORIGIN_TAG)))
    card = write_card(
        version.name,
        version.version,
        ours.config,
        version.tags,
        kind,
        hub_dataset,
        "" if written.rounded is None else written.rounded.format(),
    )
    (folder / "README.md").write_text(card, "utf-8")
    return Export(
        folder="",
        format=kind,
        model_name=version.name,
        model_version=version.version,
        num_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        checked_tokens=length,
        largest_difference=difference,
        is_same_text=bool((written.logits.argmax(-1) == expected.argmax(-1)).all()),
        checked_with=written.phrase,
        note=describe_left_out(version),
        rounded=written.rounded,
    )


class Job(NamedTuple):
    """An export to write: `source` is the version's Hugging Face folder, `ours` its model, `folder`
    where to write, `tokens` (1, T) what it is checked with.
    """

    home: Path
    version: ModelVersion
    source: Path
    ours: "Transformer"
    folder: Path
    tokens: "torch.Tensor"
    options: Options


class Written(NamedTuple):
    """What an export computes for the tokens it is checked with, (1, T, V), and by which code."""

    logits: "torch.Tensor"
    phrase: str
    rounded: Rounded | None = None


def write_hugging_face(job: Job) -> Written:
    """Copy the version's Hugging Face folder, without its count tables."""
    for path in job.source.iterdir():
        if path.is_dir() and path.name != TABLES:
            shutil.copytree(path, job.folder / path.name)
        elif path.is_file() and path.name != MANIFEST:
            shutil.copyfile(path, job.folder / path.name)
    return Written(run_transformers(job.folder, job.tokens), "transformers.AutoModelForCausalLM")


def write_gguf(job: Job) -> Written:
    """Write the GGUF file, and measure what a smaller type of its weights costs."""
    from lightlm.model.gguf import FILE

    quantization = job.options.quantization
    name = f"{job.version.name}-{job.version.version}"
    again = make_gguf(name, job.source, job.folder, quantization)
    phrase = f"gguf read back, in transformers; tokens by {check_tokens(job.source, job.folder)}"
    logits = run_transformers(again, job.tokens)
    rounded = None
    if quantization != "f32":
        rounded = measure_rounding(
            job.ours, job.source, again, job.folder / FILE, quantization, job.options.documents
        )

    shutil.rmtree(again)
    return Written(logits, phrase, rounded)


def write_onnx(job: Job) -> Written:
    """Write the ONNX graph, next to tokenizer, config and what onnxruntime-genai reads."""
    from lightlm.model.hugging_face import TOKENIZER_FILES
    from lightlm.model.onnx import FILE, GENAI_FILE, describe_genai
    from lightlm.model.onnx import write_onnx as write_graph

    (job.folder / FILE).parent.mkdir(parents=True)
    write_graph(job.ours, job.folder / FILE)
    for name in (*TOKENIZER_FILES, "config.json", "generation_config.json", "chat_template.jinja"):
        if (job.source / name).is_file():
            shutil.copyfile(job.source / name, job.folder / name)

    described = describe_genai(
        *(
            json.loads((job.source / name).read_text(encoding="utf-8"))
            for name in ("config.json", "generation_config.json")
        )
    )
    (job.folder / GENAI_FILE).write_text(json.dumps(described, indent=2) + "\n", "utf-8")
    return Written(run_graph(job), "onnxruntime, first half and second half through its cache")


def write_web(job: Job) -> Written:
    """Write a page that runs the ONNX graph in the browser."""
    from lightlm.model.onnx import GENAI_FILE
    from lightlm.versions.web_export import provide_libraries, read_temperature, write_page

    libraries = provide_libraries(job.home, job.options.libraries)
    (job.folder / "model").mkdir()
    written = write_onnx(job._replace(folder=job.folder / "model"))
    (job.folder / "model" / GENAI_FILE).unlink()
    write_page(
        job.folder,
        libraries,
        f"{job.version.name}, version {job.version.version}",
        f"A small language model, trained on {job.version.tags.get('dataset', 'a text')}.",
        job.ours.config.context_length,
        read_temperature(job.source),
    )
    return written


def run_graph(job: Job) -> "torch.Tensor":
    """Return the graph's logits of the tokens: the first half read at once, the rest after it."""
    import numpy as np
    import torch

    from lightlm.model.onnx import FILE, OnnxModel

    graph = OnnxModel(job.folder / FILE, job.ours.config)
    tokens = job.tokens.numpy()
    half = tokens.shape[1] // 2
    parts = [graph.read(tokens[:, :half]), graph.read(tokens[:, half:-1])]
    parts.append(graph.read(tokens[:, -1:]))
    return torch.from_numpy(np.concatenate(parts, axis=1))


FORMATS = {"hf": write_hugging_face, "gguf": write_gguf, "onnx": write_onnx, "web": write_web}


def describe_left_out(version: ModelVersion) -> str:
    """Return that an export holds the network alone, and its own score; "" of one that is alone."""
    alone = version.tags.get("network_bits_per_byte")
    if not alone:
        return ""
    return (
        f"the network alone, {float(alone):.3f} bits per byte; with its count tables, which stay "
        f"in LightLM, the version has {float(version.tags.get('bits_per_byte', 'nan')):.3f}"
    )


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
