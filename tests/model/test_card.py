import pytest

from lightlm.model.card import write_card
from lightlm.model.config import ModelConfig

CONFIG = ModelConfig(
    vocab_size=512,
    num_layers=2,
    model_dim=64,
    num_heads=1,
    num_kv_heads=1,
    head_dim=64,
    ffn_dim=128,
    context_length=128,
)


@pytest.mark.parametrize("kind", ["hf", "gguf", "onnx"])
def test_a_card_tells_data_budget_score_and_limits(kind):
    tags = {
        "dataset": "novel",
        "hours": "0.1",
        "bits_per_byte": "1.5",
        "num_parameters": "1234567",
        "tokens": "9000000",
    }

    card = write_card("lightlm", "7", CONFIG, tags, kind)
    assert card.startswith("---\n")
    for told in (
        "novel",
        "0.1 h",
        "1.5 bits per byte",
        "1,234,567",
        "9,000,000",
        "2 layers x 64",
        "## Limits",
    ):
        assert told in card, told


def test_a_card_tells_what_the_data_stage_took():
    taken = (
        "Text from 2 files (csv), column body; held out: 5.0% of the bytes\n3 exact copies left out"
    )
    card = write_card("lightlm", "7", CONFIG, {"data": taken}, "hf")
    assert f"## Data\n\n```text\n{taken}\n```\n\n## Use" in card
    assert "## Data" not in write_card("lightlm", "7", CONFIG, {}, "hf")


def test_a_version_without_tags_has_a_card_that_says_unknown():
    assert "unknown" in write_card("lightlm", "1", CONFIG, {}, "hf")
