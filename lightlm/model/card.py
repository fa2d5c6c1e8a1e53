"""The model card, README.md: what a model is, its data, its score and its limits."""

from collections.abc import Mapping

from lightlm.counting import count
from lightlm.model.config import ModelConfig

LIMITS = """It learned from this text alone, in the time above: it writes in the manner of the text,
and what it says may be wrong. It has not been taught to answer questions or to follow
instructions, and nothing was done about what the text itself holds that is offensive or
private. Do not use it where a wrong sentence does harm."""


def write_card(
    name: str, version: str, config: ModelConfig, tags: Mapping[str, str], kind: str
) -> str:
    """Return the card in the Hub's Markdown; `tags` are the version's, `kind` hf, gguf or onnx."""
    data = tags.get("dataset", "unknown")
    bits = tags.get("bits_per_byte", "unknown")
    layers = count(config.num_layers, "layer")
    heads = count(config.num_heads, "head")
    rows = {
        "trained on": f"{data} (digest `{tags.get('dataset_digest', 'unknown')}`)",
        "budget": f"{tags.get('hours', '?')} h of wall clock, all included",
        "tokens read": _count(tags.get("tokens")),
        "score": f"{bits} bits per byte on the held-out text (SHA-256 "
        f"`{tags.get('text_sha256', 'unknown')[:16]}...`)",
        "parameters": _count(tags.get("num_parameters")),
        "shape": f"{layers} x {config.model_dim}, {heads}, Qwen3 layout",
        "vocabulary": f"{config.vocab_size:,} (byte-level BPE: any text can be written)",
        "context": f"{config.context_length:,} tokens",
        "trained at": tags.get("trained_at", "unknown"),
        "code": tags.get("git_commit", "unknown"),
    }

    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    taken = "".join(f"{line}\n" for line in tags.get("data", "").splitlines()).replace("`", "'")
    section = f"## Data\n\n```text\n{taken}```\n\n" if taken else ""
    header = (
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- "
        f"lightlm\ndatasets:\n- {data}\n---\n"
    )

    return (
        f"{header}\n# {name}, version {version}\n\nA small language model, trained from scratch "
        "by LightLM.\n\n"
        f"| | |\n|---|---|\n{table}\n\n{section}## Use\n\n{USES[kind]}\n\n## Limits\n\n{LIMITS}\n"
    )


USES = {
    "hf": """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
inputs = tokenizer("The", return_tensors="pt", return_token_type_ids=False)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=60)[0]))
```""",
    "gguf": """```sh
llama-cli -m model.gguf -p "The" -n 60 -no-cnv     # llama.cpp
ollama create my-model -f Modelfile && ollama run my-model "The"
```""",
    "onnx": """```python
import numpy, onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
session = onnxruntime.InferenceSession("model.onnx")
tokens = tokenizer.encode("The").ids
for _ in range(60):
    logits = session.run(None, {"tokens": numpy.array([tokens[-128:]], dtype=numpy.int64)})[0]
    tokens.append(int(logits[0, -1].argmax()))
print(tokenizer.decode(tokens))
```""",
}


def _count(text: str | None) -> str:
    try:
        return f"{int(float(text or '')):,}"
    except ValueError:
        return "unknown"
