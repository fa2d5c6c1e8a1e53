"""The model card, README.md: what a model is, its data, its score and its limits."""

import re
from collections.abc import Mapping
from typing import Any

from lightlm.model.config import ModelConfig
from lightlm.quantities import count

LICENSE = r"[a-z0-9][a-z0-9.-]{0,40}"
"""Ids of licenses on the Hub, such as apache-2.0."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")

LIMITS = """It learned from the text above alone, in the time above: it writes in the manner of the
text, and what it says may be wrong. It has not been taught to answer questions or to follow
instructions, and nothing was done about what the text itself holds that is offensive or
private. Do not use it where a wrong sentence does harm."""


BASE_LIMITS = """It was trained on from the base above, on this text: what the base learned before,
right or wrong, is still in it, and the base's license and terms of use hold for it too. Nothing
was done about what the text itself holds that is offensive or private. Do not use it where a wrong
sentence does harm."""

LIBRARIES = {
    "hf": "transformers",
    "gguf": "gguf",
    "onnx": "transformers.js",
    "web": "transformers.js",
}
"""The Hub's names of what opens each kind of export."""

LAYOUTS = {"qwen3": "Qwen3", "llama": "Llama", "qwen2": "Qwen2"}


def write_card(
    name: str,
    version: str,
    config: ModelConfig,
    tags: Mapping[str, str],
    kind: str,
    hub_dataset: str | None = None,
    rounded: str = "",
    license_name: str | None = None,
    uses: str | None = None,
) -> str:
    """Return the card in the Hub's Markdown; `tags` are the version's, `kind` hf, gguf, onnx or
    web.

    `hub_dataset` is the data set's id on the Hub; None of a text that is not there, which the
    card's metadata then does not name: the Hub would take it for somebody's data set. `rounded`
    says what a smaller type of the weights costs. `license_name` is the Hub's id of a license; None
    takes the base's. `uses` replaces what the kind's card shows.
    """
    data = tags.get("dataset", "unknown")
    together = tags.get("bits_per_byte", "unknown")
    bits = tags.get("network_bits_per_byte", together)
    layers = count(config.num_layers, "layer")
    heads = count(config.num_heads, "head")
    rows = {
        "trained on": f"{data} (digest `{tags.get('dataset_digest', 'unknown')}`)",
        "mixed with": tags.get("mixed_with", ""),
        "budget": f"{tags.get('hours', '?')} h of wall clock, all included",
        "tokens read": _count(tags.get("tokens")),
        "score": f"{bits} bits per byte on the held-out text (SHA-256 "
        f"`{tags.get('text_sha256', 'unknown')[:16]}...`)",
        "with count tables": f"{together} bits per byte in LightLM; this export has none"
        if bits != together
        else "",
        "smaller weights": rounded,
        "parameters": _count(tags.get("num_parameters")),
        "shape": f"{layers} x {config.model_dim}, {heads}, {LAYOUTS[config.family]} layout",
        "vocabulary": f"{config.vocab_size:,} (byte-level BPE: any text can be written)",
        "context": f"{config.context_length:,} tokens",
        "trained at": tags.get("trained_at", "unknown"),
        "code": tags.get("git_commit", "unknown"),
    }

    base = tags.get("base_model")
    if base:
        rows |= describe_base(tags)
        rows["vocabulary"] = f"{config.vocab_size:,}, the base's own tokenizer"

    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items() if value)
    taken = "".join(f"{line}\n" for line in tags.get("data", "").splitlines()).replace("`", "'")
    section = f"## Data\n\n```text\n{taken}```\n\n" if taken else ""
    found = tags.get("audit", "").replace("`", "'")
    audit = f"## What it repeats and knows\n\n```text\n{found}\n```\n\n" if found else ""
    story = f"trained on from {base}" if base else "trained from scratch"
    limits = BASE_LIMITS if base else LIMITS

    return (
        f"---\n{write_metadata(name, tags, kind, hub_dataset, license_name)}\n---\n\n"
        f"# {name}, version {version}\n\nA small language model, {story} by LightLM.\n\n"
        f"| | |\n|---|---|\n{table}\n\n{section}{audit}## Use\n\n{uses or USES[kind]}\n\n"
        f"## Limits\n\n{limits}\n"
    )


def write_metadata(
    name: str,
    tags: Mapping[str, str],
    kind: str,
    hub_dataset: str | None,
    license_name: str | None,
) -> str:
    """Return the card's header as the Hub reads it, in YAML: origin, license, score."""
    from huggingface_hub import EvalResult, ModelCardData

    base = tags.get("base_model", "")
    values: dict[str, Any] = {
        "library_name": LIBRARIES[kind],
        "pipeline_tag": "text-generation",
        "tags": ["lightlm"],
        "license": license_name or find_license(tags),
        "base_model": base if HUB_ID.fullmatch(base) else None,
        "datasets": None if hub_dataset is None else [hub_dataset],
    }

    # Exports hold the network alone, without count tables.
    bits = _number(tags.get("network_bits_per_byte", tags.get("bits_per_byte")))
    if bits is not None:
        values["model_name"] = name
        values["eval_results"] = [
            EvalResult(
                task_type="text-generation",
                task_name="Text generation",
                dataset_type=hub_dataset or "text",
                dataset_name=f"held-out text of {tags.get('dataset', name)}",
                dataset_args={"sha256": tags.get("text_sha256", "unknown")},
                metric_type="bits_per_byte",
                metric_name="Bits per byte of the raw text",
                metric_value=bits,
            )
        ]

    return ModelCardData(**values).to_yaml().strip()


def describe_base(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the rows about the model that training started from."""
    rows = {
        "base": tags["base_model"],
        "revision of the base": tags.get("base_revision", ""),
        "digest of the base": tags.get("base_digest", ""),
        "license of the base": tags.get("base_license", "unknown"),
        "trained weights": tags.get("tuned", "unknown"),
    }
    before = tags.get("base_bits_per_byte")
    after = tags.get("trained_bits_per_byte")
    if before and after:
        rows["score before and after, on one sample"] = f"{before} and {after} bits per byte"
    return {name: value for name, value in rows.items() if value}


def find_license(tags: Mapping[str, str]) -> str | None:
    """Return the Hub's id of the license of the model that training started from; None without."""
    license_name = tags.get("base_license", "")
    is_id = re.fullmatch(LICENSE, license_name) and license_name != "unknown"
    return license_name if tags.get("base_model") and is_id else None


USES = {
    "hf": """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
inputs = tokenizer("The", return_tensors="pt", return_token_type_ids=False)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=60)[0]))
```

```sh
vllm serve .    # an HTTP server for OpenAI's clients
```""",
    "gguf": """```sh
llama-completion -m model.gguf -p "The" -n 60 -no-cnv     # llama.cpp
ollama create my-model -f Modelfile && ollama run my-model "The"
```""",
    "onnx": """```python
import numpy, onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
session = onnxruntime.InferenceSession("onnx/model.onnx")
past = {one.name: numpy.zeros((1, one.shape[1], 0, one.shape[3]), numpy.float32)
        for one in session.get_inputs() if one.name.startswith("past")}
tokens, read = tokenizer.encode("The").ids, 0
for _ in range(60):
    new = numpy.array([tokens[read:]], dtype=numpy.int64)
    inputs = {"input_ids": new, "attention_mask": numpy.ones((1, len(tokens)), numpy.int64),
              "position_ids": numpy.arange(read, len(tokens))[None]}
    read = len(tokens)
    logits, *present = session.run(None, inputs | past)
    past = dict(zip(past, present))
    tokens.append(int(logits[0, -1].argmax()))
print(tokenizer.decode(tokens))
```

transformers.js, optimum and onnxruntime-genai open the folder, too.""",
    "web": """```sh
python -m http.server --bind 127.0.0.1 8080    # then open http://127.0.0.1:8080
```

The folder works on any server for static files. The page asks no other server.""",
}


def describe_hub_uses(repository: str, gguf_file: str | None) -> str:
    """Return how a model of the Hub is used: with transformers and vLLM, and where the repository
    has a GGUF file, with llama.cpp and Ollama.
    """
    text = USES["hf"].replace('"."', f'"{repository}"').replace("serve .", f"serve {repository}")
    if gguf_file is None:
        return text
    return (
        f"{text}\n\nWith llama.cpp and Ollama, which read `{gguf_file}`:\n\n```sh\n"
        f'llama-completion -hf {repository} -p "The" -n 60 -no-cnv\n'
        f'ollama run hf.co/{repository} "The"\n```'
    )


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _count(text: str | None) -> str:
    try:
        return f"{int(float(text or '')):,}"
    except ValueError:
        return "unknown"
