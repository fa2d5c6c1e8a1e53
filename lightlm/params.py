"""Params: what a person may choose, with types, bounds and meaning.

The command line, YAML, Python and Prefect share this one model, so that all give the same message.
Values are in params/*.yaml: base, overlays, single overrides.
"""

import difflib
import functools
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

import lightlm_params
from lightlm.errors import ParameterError
from lightlm.hours import parse_hours
from lightlm.safe_yaml import holds_text, keep_text, read_yaml

PARAMS_FOLDER = Path(lightlm_params.__file__).resolve().parent

LONGEST_QUOTE = 80
"""Characters of a value in an error message."""

MAX_PRESET_BYTES = 100_000
"""params/base.yaml with all of its comments has a quarter of it."""

LISTED = 12
"""Names that an error message lists at most."""

LONGEST_REASON = 160
"""Characters of a library's own reason in an error message."""

MAX_HOURS = 8760.0
"""Hours; a year. A larger budget is a typing error."""

Hours = Annotated[
    float,
    # Before the validator: then Prefect's schema of the flows' parameters has the bounds.
    Field(gt=0, le=MAX_HOURS, description="Wall clock of the whole run, in hours."),
    BeforeValidator(lambda value: parse_hours(value) if isinstance(value, str) else value),
]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
DEVICE = r"^(auto|cpu|mps|cuda(:\d{1,3})?)$"
URL = r"^(file:///([A-Z]:)?|(memory|s3|gs|az|abfs)://)[\w.~@+=%/-]+$"
URL_SCHEMES = ("file://", "memory://", "s3://", "gs://", "az://", "abfs://")
"""How the names of folders begin that are read by fsspec."""

PATTERN_WORDS = {
    NAME: "give letters, digits, '.', '_' and '-', at most 100, such as my-model",
    DEVICE: "give auto, cpu, mps, cuda or cuda:1",
    URL: "give a URL such as s3://bucket/folder or file:///mnt/shared",
}
"""Patterns of values -> what an error message says instead of them."""

Name = Annotated[str, Field(pattern=NAME)]
Temperature = Annotated[float, Field(ge=0, le=100)]
SharedUrl = Annotated[str, Field(pattern=URL)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Weight = float | Literal["auto", "once"]
"""A text's share of the tokens that training reads; once: all of it, one time; auto: planned."""

MOST_OTHERS = 0.99
"""Fraction of training that the texts after the first get together at most."""

Overrides = dict[str, Any]
"""Values by dotted name, as options, Prefect and files give them; `load_params` checks them."""


class Section(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A frozen group of params: unknown keys and non-finite numbers are refused."""

    @model_validator(mode="before")
    @classmethod
    def keep_texts(cls, values: Any) -> Any:
        """Take a number or a boolean for the text that was typed where a text is wanted: `config:
        2018`.
        """
        if not isinstance(values, Mapping):
            return values
        fields = cls.model_fields
        return {
            name: keep_text(value, value)
            if name in fields and holds_text(fields[name].annotation)
            else value
            for name, value in values.items()
        }


class BudgetParams(Section, frozen=True):
    """The time, and what chooses the shape."""

    hours: Hours
    planner: Literal["measured", "tiers", "manual"]
    max_steps: Count | None


class OtherText(Section, frozen=True):
    """A further text to train on, and its weight. Written in short as "SOURCE:WEIGHT"."""

    source: Annotated[str, Field(min_length=1, max_length=4096)]
    weight: Weight = "auto"
    config: str | None = None
    revision: str | None = None
    text_column: str | None = None
    encoding: str | None = None
    train_split: str = "train"
    validation_split: str | None = None
    max_bytes: Annotated[int, Field(ge=1_000)] | None = None

    @model_validator(mode="before")
    @classmethod
    def take_short(cls, values: Any) -> Any:
        """Take "Salesforce/wikitext:0.3" for its source and weight; the data set of
        params/base.yaml with the configuration that it has there.
        """
        if not isinstance(values, str):
            return values
        source, weight = split_weight(values)
        base = _read_base()["dataset"]
        config = base["config"] if source == base["source"] else None
        return {"source": source, "config": config, "weight": "auto" if weight is None else weight}

    @field_validator("weight", mode="before")
    @classmethod
    def check_weight(cls, weight: Any) -> Any:
        """Refuse what is no share, before types are compared one by one."""
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if weight in ("auto", "once") or (is_number and 0 < weight < 1):
            return weight
        raise ValueError(
            f"the weight {quote(weight)} is no share of the training; give a number between 0 and "
            "1 such as 0.3, or once, or auto"
        )


class DatasetParams(Section, frozen=True):
    """Which text, and how much of it."""

    source: Annotated[str, Field(min_length=1, max_length=4096)]
    config: str | None
    revision: str | None
    text_column: str | None
    encoding: str | None
    duplicates: Literal["drop", "keep"]
    mask: bool
    train_split: str
    validation_split: str | None
    validation_fraction: Annotated[float, Field(gt=0, le=0.5)]
    max_validation_bytes: Annotated[int, Field(ge=1_000)]
    max_documents: Count | None
    max_bytes: Annotated[int, Field(ge=1_000)] | None
    offline: Literal["fallback", "no-fallback"] | None
    hub_timeout_seconds: Annotated[float, Field(gt=0, le=600)]
    others: tuple[OtherText, ...]

    @field_validator("source")
    @classmethod
    def check_url(cls, source: str) -> str:
        """Refuse a URL that no folder has, or that may hold a key, which the message leaves out."""
        if source.startswith(URL_SCHEMES) and not is_folder_url(source):
            raise ValueError(f"{PATTERN_WORDS[URL]}; credentials belong in the environment")
        return source

    @model_validator(mode="after")
    def check_shares(self) -> Self:
        """Refuse shares that leave the first text nothing, and a text that is named twice."""
        shares = [one.weight for one in self.others if isinstance(one.weight, float)]
        if sum(shares) > MOST_OTHERS:
            raise ValueError(
                f"others take {sum(shares):.0%} of the training; leave some to {self.source}, "
                "which the model is judged by"
            )

        names = [(one.source, one.config) for one in (self, *self.others)]
        twice = next((name for name, _ in names if names.count((name, None)) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is named twice; name each text once")
        return self

    def list_others(self) -> list["DatasetParams"]:
        """Return the params of each further text: a person named it, so it is never replaced."""
        own = {"others": (), "max_documents": None, "offline": "no-fallback"}
        return [
            self.model_copy(update=own | one.model_dump(exclude={"weight"})) for one in self.others
        ]


class StartParams(Section, frozen=True):
    """What training begins with: new weights, or those of a model that exists."""

    source: Annotated[str, Field(min_length=1, max_length=4096)]
    revision: str | None
    tuned: Literal["auto", "all", "lora", "last"]
    lora_rank: Annotated[int, Field(ge=1, le=1024)]
    num_tuned_layers: Annotated[int, Field(ge=1, le=512)] | None
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None


class TokenizerParams(Section, frozen=True):
    """Trained on the subset, or loaded."""

    source: Annotated[str, Field(min_length=1, max_length=4096)]
    vocab_size: Annotated[int, Field(ge=257, le=1_048_576)] | None
    max_training_bytes: Annotated[int, Field(ge=1_000)]


class ModelParams(Section, frozen=True):
    """The parts of a model's shape that a person fixes; None leaves the choice to the plan."""

    num_layers: Annotated[int, Field(ge=1, le=512)] | None
    model_dim: Annotated[int, Field(ge=8, le=65_536)] | None
    num_heads: Annotated[int, Field(ge=1, le=1024)] | None
    num_kv_heads: Annotated[int, Field(ge=1, le=1024)] | None
    ffn_dim: Annotated[int, Field(ge=8, le=262_144)] | None
    context_length: Annotated[int, Field(ge=8, le=1_048_576)] | None
    tie_embeddings: bool | None
    flash_attention: bool
    mixture_of_experts: bool
    num_experts: Annotated[int, Field(ge=2, le=1024)]
    num_active_experts: Annotated[int, Field(ge=1, le=1024)]
    ngram: Literal["auto", "off"]

    @model_validator(mode="after")
    def check_shape(self) -> Self:
        """Refuse heads that do not divide, before anything is built."""
        dim = self.model_dim
        heads = self.num_heads
        kv_heads = self.num_kv_heads

        if dim is not None and heads is not None and dim % heads:
            raise ValueError(
                f"model_dim {dim} is not a multiple of num_heads {heads}; give num_heads a "
                f"divisor of {dim}"
            )

        if dim is not None and heads is not None and (dim // heads) % 2:
            raise ValueError(
                f"model_dim {dim} / num_heads {heads} = {dim // heads} is odd; rotary positions "
                "turn pairs of dimensions, so give an even number of dimensions per head"
            )

        if heads is not None and kv_heads is not None and heads % kv_heads:
            raise ValueError(
                f"num_heads {heads} is not a multiple of num_kv_heads {kv_heads}; "
                f"give num_kv_heads a divisor of {heads}"
            )

        if self.num_active_experts > self.num_experts:
            raise ValueError(
                f"num_active_experts {self.num_active_experts} is more than num_experts "
                f"{self.num_experts}; give at most as many"
            )

        return self


class TrainingParams(Section, frozen=True):
    """How the model is trained; None leaves the choice to the plan."""

    optimizer: Literal["muon", "adamw"]
    seed: Seed
    batch_tokens: Annotated[int, Field(ge=8, le=2**31)] | None
    micro_batch_size: Annotated[int, Field(ge=1, le=65_536)] | None
    learning_rate_scale: Annotated[float, Field(gt=0, le=1000)]
    weight_decay: Annotated[float, Field(ge=0, le=100)] | None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None
    warmup_fraction: Annotated[float, Field(ge=0, le=0.5)]
    cooldown_fraction: Annotated[float, Field(gt=0, le=1)]
    context_ramp_fraction: Annotated[float, Field(ge=0, le=1)] | None
    gradient_clip_norm: Annotated[float, Field(gt=0, le=1e6)]
    dtype: Literal["auto", "float32", "float16", "bfloat16"]
    compile: Literal["auto", "on", "off"]
    gradient_checkpointing: Literal["auto", "on", "off"]
    sharding: Literal["auto", "off", "fsdp"]
    device: Annotated[str, Field(pattern=DEVICE)]
    devices: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"]
    num_nodes: Annotated[int, Field(ge=1, le=1024)]
    num_threads: Annotated[int, Field(ge=1, le=1024)] | None
    num_validations: Annotated[int, Field(ge=1, le=10_000)]
    num_checkpoints: Annotated[int, Field(ge=1, le=10_000)]
    sample_prompt: Annotated[str, Field(min_length=1, max_length=1000)]


class EvaluationParams(Section, frozen=True):
    """How much held-out text the final score reads."""

    max_bytes: Annotated[int, Field(ge=1_000)] | None


class GenerationParams(Section, frozen=True):
    """How text is sampled."""

    max_new_tokens: Annotated[int, Field(ge=1, le=1_000_000)]
    temperature: Temperature
    top_k: Annotated[int, Field(ge=0, le=1_048_576)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    repetition_penalty: Annotated[float, Field(gt=0, le=100)]
    seed: Seed | None


class TrackingParams(Section, frozen=True):
    """Where the run and its model are recorded in MLflow."""

    experiment: Name
    model_name: Name | None
    promote: Literal["better", "always", "never"]
    system_metrics: bool
    tensorboard: Annotated[str, Field(min_length=1)] | None
    trackio: Name | None
    wandb: Name | None
    grams_co2_per_kwh: Annotated[float, Field(ge=0, le=10_000)] | None


class StoreParams(Section, frozen=True):
    """Where token shards lie that several machines share."""

    shared: SharedUrl | None
    shared_fraction: Annotated[float, Field(gt=0, le=1)]
    block_cache_bytes: Annotated[int, Field(ge=1 << 20)]


class SystemParams(Section, frozen=True):
    """Requirements of the machine."""

    min_free_disk_bytes: Annotated[int, Field(ge=0)]
    min_available_memory_bytes: Annotated[int, Field(ge=0)]


class Params(Section, frozen=True):
    """All that a person chooses, complete and valid."""

    budget: BudgetParams
    dataset: DatasetParams
    start: StartParams
    tokenizer: TokenizerParams
    model: ModelParams
    training: TrainingParams
    evaluation: EvaluationParams
    generation: GenerationParams
    tracking: TrackingParams
    store: StoreParams
    system: SystemParams

    def flatten(self) -> Overrides:
        """Return every value under its dotted name, as MLflow logs it."""
        return dict(_flatten(self.model_dump()))


def is_folder_url(text: str) -> bool:
    """Return whether a text is the URL of a folder, without what may be a user or a key."""
    place = text.partition("://")[2].partition("/")[0]
    return "@" not in place and re.match(URL, text) is not None


def list_presets() -> list[str]:
    """Return the names that `--preset` takes."""
    return sorted(path.stem for path in PARAMS_FOLDER.glob("*.yaml"))


def load_params(
    preset: str = "base",
    overrides: Mapping[str, Any] | None = None,
    *,
    dataset: str | None = None,
    hours: float | str | None = None,
) -> Params:
    """Return params/base.yaml under the preset's overlay, `dataset`, `hours` and dotted overrides.

    `preset` names an overlay of params/, or is the path of a YAML file of one's own.

    `overrides` maps dotted names ("model.num_layers") to values; strings are read as YAML scalars,
    except where the param is a text: `dataset.config=2018` is the text "2018". Naming a `dataset`
    clears `dataset.config`, which belongs to the data set that base.yaml names, and the texts that
    go with it, and forbids to replace it by the built-in text.

    Raises:
        ParameterError: an unknown preset or key, a wrong type, a value out of bounds.
    """
    values = {name: dict(section) for name, section in _read_base().items()}
    if preset != "base":
        _merge(values, _read_preset(preset), _find_preset(preset)[1])
    if dataset is not None and dataset != values["dataset"]["source"]:
        values["dataset"] |= {"source": dataset, "config": None, "revision": None, "others": []}
    if dataset is not None and values["dataset"]["offline"] is None:
        values["dataset"]["offline"] = "no-fallback"

    if hours is not None:
        values["budget"]["hours"] = hours

    for name, value in (overrides or {}).items():
        _override(values, name, value)
    return build_params(values)


def is_default_dataset(params: DatasetParams) -> bool:
    """Return whether the data set is the one of params/base.yaml, which no person named."""
    base = _read_base()["dataset"]
    return (params.source, params.config) == (base["source"], base["config"])


def build_params(values: Mapping[str, Any]) -> Params:
    """Return the params of nested values, as a saved configuration holds them.

    Raises:
        ParameterError: naming every value that is wrong, what was wanted and what was got.
    """
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise ParameterError(describe_validation(error)) from None


def describe_validation(error: ValidationError) -> str:
    """Return one line: each wrong value with its name, what was wanted and what was got."""
    lines = []
    for detail in error.errors(include_url=False):
        name = ".".join(str(part) for part in detail["loc"]) or "params"
        wanted = describe_wanted(detail)
        if detail["type"] == "value_error":
            lines.append(f"{name}: {wanted}")
        else:
            lines.append(f"{name} is {quote(detail.get('input'))}; {wanted[0].lower()}{wanted[1:]}")
    return "; ".join(lines)


def describe_wanted(detail: Mapping[str, Any]) -> str:
    """Return what was wanted where pydantic has refused a value, in words instead of a pattern."""
    pattern = str(detail.get("ctx", {}).get("pattern"))
    return PATTERN_WORDS.get(pattern) or str(detail["msg"]).removeprefix("Value error, ")


def quote(value: Any) -> str:
    """Return a value as an error message quotes it: on one line, cut before it is written out."""
    brief = reprlib.Repr()
    brief.maxlevel = 4
    brief.maxstring = 2 * LONGEST_QUOTE
    brief.maxlong = LONGEST_QUOTE
    brief.maxother = LONGEST_QUOTE
    try:
        text = brief.repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) < LONGEST_QUOTE else f"{text[: LONGEST_QUOTE - 3]}..."


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """Return {dotted name: text} of `section.key=value` strings, as `--set` takes them.

    Raises:
        ParameterError: no `=`, or nothing before it.
    """
    parsed = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.strip():
            raise ParameterError(
                f"--set wants section.key=value, got {quote(assignment)}; such as --set "
                "model.num_layers=4"
            )
        parsed[name.strip()] = value
    return parsed


def split_weight(word: str) -> tuple[str, float | str | None]:
    """Return source and weight of "notes/:0.3"; a weight of None where the word is all source."""
    source, colon, weight = word.rpartition(":")
    if not (colon and source) or Path(word).expanduser().exists():
        return word, None
    if weight in ("auto", "once"):
        return source, weight
    try:
        return source, float(weight)
    except ValueError:
        return word, None


def name_texts(datasets: Sequence[str] | None) -> tuple[str | None, Overrides]:
    """Return the first of the texts that a person named, and overrides that name the others.

    Raises:
        ParameterError: the first has a weight.
    """
    if not datasets:
        return None, {}
    first, *others = datasets
    source, weight = split_weight(first)
    if weight is not None:
        raise ParameterError(
            f"{source} is the first text, which the model is judged by, and gets what the others "
            f"leave; give weights to the others alone, not {first}"
        )
    return first, {"dataset.others": list(others)} if others else {}


def _find_preset(preset: str) -> tuple[Path, str]:
    """Return a preset's file, and how messages name it: `mine.yaml` and `folder/mine.yaml` are a
    person's own file.
    """
    if preset in list_presets():
        return PARAMS_FOLDER / f"{preset}.yaml", f"params/{preset}.yaml"

    path = Path(preset).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return path, preset

    own = next(
        (
            path.with_suffix(ending)
            for ending in (".yaml", ".yml")
            if path.with_suffix(ending).is_file()
        ),
        None,
    )

    advice = f"; for the file here give --preset {own}" if own else _suggest(preset, list_presets())
    raise ParameterError(
        f"unknown preset {preset!r}{advice}; or give a YAML file of your own: --preset ./mine.yaml"
    )


def _read_preset(preset: str) -> Overrides:
    path, name = _find_preset(preset)
    try:
        if path.is_file() and path.stat().st_size > MAX_PRESET_BYTES:
            raise ParameterError(
                f"--preset {name} is larger than {MAX_PRESET_BYTES:,} bytes: it is no file of "
                "params"
            )
        values = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(list_presets())
        raise ParameterError(
            f"--preset {name} cannot be read ({error.strerror}); wanted a YAML file, or one of "
            f"{known}"
        ) from None
    except UnicodeDecodeError:
        raise ParameterError(f"--preset {name} is no UTF-8; save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise ParameterError(f"{name} is not valid YAML: {error}") from None

    if not isinstance(values, dict):
        raise ParameterError(
            f"{name} holds no sections; compare params/base.yaml, such as model: {{num_layers: 4}}"
        )

    return values


@functools.cache  # reading takes fifty times as long as checking
def _read_base() -> Overrides:
    return _read_preset("base")


def _merge(values: Overrides, overlay: Mapping[str, Any], origin: str) -> None:
    for section, entries in overlay.items():
        if not isinstance(entries, Mapping):
            raise ParameterError(f"{origin}: {section} must hold keys, got {quote(entries)}")
        for key, value in entries.items():
            try:
                _set(values, f"{section}.{key}", value)
            except ParameterError as error:
                raise ParameterError(f"{origin}: {error}") from None


def _override(values: Overrides, name: str, value: Any) -> None:
    typed = value
    if isinstance(value, str):
        try:
            value = read_yaml(value) if value.strip() else value
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())[:LONGEST_REASON]
            raise ParameterError(
                f"{name}={quote(value)} is not a value that YAML can read: {reason}"
            ) from None

    if is_text(name):
        value = keep_text(typed, value)
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _override(values, f"{name}.{key}", entry)
    else:
        _set(values, name, value)


@functools.cache
def is_text(name: str) -> bool:
    """Return whether a param holds text and nothing else: what looks like a number there is text,
    too.
    """
    section, _, key = name.partition(".")
    try:
        kind: Any = Params.model_fields[section].annotation
        return holds_text(kind.model_fields[key].annotation)
    except KeyError:
        return False


def _set(values: Overrides, name: str, value: Any) -> None:
    section, _, key = name.partition(".")
    if section not in values or key not in values[section]:
        known = [f"{outer}.{inner}" for outer in values for inner in values[outer]]
        raise ParameterError(f"unknown parameter {quote(name)}{_suggest(name, known)}")
    values[section][key] = value


def _suggest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    if len(known) > LISTED:
        return "; params/base.yaml lists all with their meaning"
    return f"; known are {', '.join(known)}"


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
