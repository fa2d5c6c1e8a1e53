import pytest
import yaml

from lightlm.model.card import describe_hub_uses, write_card
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


@pytest.mark.parametrize("kind", ["hf", "gguf", "onnx", "web"])
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
    audited = write_card("lightlm", "7", CONFIG, {"audit": "Of 9 beginnings\nNo copy `x`"}, "hf")
    assert "## What it repeats and knows\n\n```text\nOf 9 beginnings\nNo copy 'x'\n```" in audited
    assert "## What it repeats" not in card
    assert "## Data" not in write_card("lightlm", "7", CONFIG, {}, "hf")


def test_the_metadata_names_a_data_set_only_where_the_hub_has_it():
    def metadata(hub_dataset: str | None) -> dict[str, object]:
        card = write_card("lightlm", "7", CONFIG, {"dataset": "input"}, "hf", hub_dataset)
        return yaml.safe_load(card.split("---")[1])

    assert "datasets" not in metadata(None)
    assert metadata("owner/name")["datasets"] == ["owner/name"]
    assert metadata(None)["tags"] == ["lightlm"]


def test_a_version_without_tags_has_a_card_that_says_unknown():
    assert "unknown" in write_card("lightlm", "1", CONFIG, {}, "hf")


def test_the_metadata_has_the_networks_score_as_an_evaluation_result():
    from huggingface_hub import ModelCard

    tags = {"dataset": "novel", "bits_per_byte": "1.4", "network_bits_per_byte": "1.5"}
    (result,) = ModelCard(write_card("notes", "7", CONFIG, tags, "hf")).data.eval_results
    assert (result.metric_type, result.metric_value) == ("bits_per_byte", 1.5)
    assert result.dataset_name == "held-out text of novel"
    assert ModelCard(write_card("notes", "7", CONFIG, {}, "hf")).data.eval_results is None


def test_the_license_is_the_one_given_else_the_bases():
    def license_of(tags: dict[str, str], given: str | None = None) -> object:
        card = write_card("notes", "7", CONFIG, tags, "hf", license_name=given)
        return yaml.safe_load(card.split("---")[1]).get("license")

    based = {"base_model": "Qwen/Qwen3-0.6B", "base_license": "apache-2.0"}
    assert license_of({}) is None
    assert license_of(based) == "apache-2.0"
    assert license_of(based, "mit") == "mit"
    assert license_of(based | {"base_license": "unknown"}) is None


def test_the_commands_of_a_repository_with_a_gguf_file_name_it():
    alone = describe_hub_uses("jane/notes", None)
    assert "vllm serve jane/notes" in alone
    assert "llama" not in alone
    both = describe_hub_uses("jane/notes", "notes-Q8_0.gguf")
    assert "ollama run hf.co/jane/notes" in both
    assert "notes-Q8_0.gguf" in both
