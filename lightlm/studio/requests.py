"""What the page may ask for: each request is checked, and stands for a command of `lightlm`."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from lightlm.params import NAME


def drop_blanks(value: object) -> object:
    """Return an empty field of a form as one that is not given.

    Raises:
        ValueError: it holds NUL, which no command line can.
    """
    if not isinstance(value, str):
        return value
    if "\0" in value:
        raise ValueError("it holds a NUL character; leave it out")
    return value.strip() or None


Blank = BeforeValidator(drop_blanks)
Word = Annotated[str | None, Field(max_length=4000), Blank]
ShortWord = Annotated[str | None, Field(max_length=200), Blank]
Name = Annotated[str, Field(pattern=NAME)]
NewName = Annotated[str | None, Field(pattern=NAME), Blank]
Number = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$")]
RunName = Annotated[str, Field(pattern=r"^[0-9]{8}-[0-9]{6}-[0-9a-f]{6}$")]
JobNumber = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Format = Literal["hf", "gguf", "onnx", "web"]
Quantized = Literal["f16", "q8_0", "q5_0", "q4_0"]

MOST_OTHERS = 20
"""Further texts of a run."""


class StudioRequest(BaseModel):
    """What all requests have: no unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class OtherText(StudioRequest):
    """A further text to mix in, with its weight."""

    dataset: Annotated[str, Field(min_length=1, max_length=4000), BeforeValidator(drop_blanks)]
    weight: Annotated[str, Field(pattern=r"^(auto|once|0?\.[0-9]{1,6})$")] = "auto"

    def name(self) -> str:
        """Return the text as commands take it; a weight is always given, because a name may look
        like one.
        """
        return f"{self.dataset}:{self.weight}"


class TextRequest(StudioRequest):
    """Data sets as commands take them."""

    dataset: Word = None
    text_column: Word = None
    others: Annotated[tuple[OtherText, ...], Field(max_length=MOST_OTHERS)] = ()
    mask: bool = False

    @model_validator(mode="after")
    def check_first(self) -> Self:
        """Refuse further texts without a first one.

        Raises:
            ValueError: there is none.
        """
        if self.others and not self.dataset:
            raise ValueError("further texts are mixed into a first one; give the first, too")
        return self

    def list_texts(self) -> list[str]:
        """Return the texts, the first one first."""
        return [*([self.dataset] if self.dataset else []), *(one.name() for one in self.others)]

    def list_reading(self) -> list[str]:
        """Return the options for how texts are read."""
        masked = ["--set=dataset.mask=true"] if self.mask else []
        return list_given(text_column=self.text_column) + masked

    def list_options(self) -> list[str]:
        """Return the options that name the texts."""
        return [*(f"--dataset={text}" for text in self.list_texts()), *self.list_reading()]


class LookRequest(TextRequest):
    """`lightlm look`."""

    kind: Literal["look"]

    def list_words(self) -> list[str]:
        """Return the command's words."""
        texts = self.list_texts()
        return ["look", "--json", *self.list_reading(), *(["--", *texts] if texts else [])]


class RecipeRequest(TextRequest):
    """What planning and training share."""

    hours: ShortWord = None
    name: NewName = None
    start: Word = None

    def list_options(self) -> list[str]:
        """Return the options of the text, the time and the start."""
        own = list_given(hours=self.hours, name=self.name, start=self.start)
        return super().list_options() + own


class PlanRequest(RecipeRequest):
    """`lightlm plan --quick`. `measured` is an earlier plan, whose measurements are used again."""

    kind: Literal["plan"]
    measured: JobNumber | None = None

    def list_words(self) -> list[str]:
        """Return the command's words."""
        return ["plan", "--json", "--quick", *self.list_options()]


class CompareRequest(RecipeRequest):
    """`lightlm plan --compare`."""

    kind: Literal["compare"]
    measured: JobNumber | None = None

    def list_words(self) -> list[str]:
        """Return the command's words."""
        return ["plan", "--json", "--compare", *self.list_options()]


class TrainRequest(RecipeRequest):
    """`lightlm train`."""

    kind: Literal["train"] = "train"
    sample_prompt: Word = None
    is_fresh: bool = False

    def list_words(self) -> list[str]:
        """Return the command's words."""
        options = self.list_options() + list_given(sample_prompt=self.sample_prompt)
        return ["train", "--quiet", "--json", *options, *(["--fresh"] if self.is_fresh else [])]


class BasesRequest(StudioRequest):
    """`lightlm bases`."""

    kind: Literal["bases"]

    def list_words(self) -> list[str]:
        """Return the command's words."""
        return ["bases", "--json"]


class VersionRequest(StudioRequest):
    """What is done with a version."""

    name: Name
    version: Number


class PromoteRequest(VersionRequest):
    """`lightlm promote`."""

    kind: Literal["promote"]

    def list_words(self) -> list[str]:
        """Return the command's words."""
        return ["promote", f"models:/{self.name}/{self.version}", "--json"]


class RollbackRequest(StudioRequest):
    """`lightlm rollback`."""

    kind: Literal["rollback"]
    name: Name

    def list_words(self) -> list[str]:
        """Return the command's words."""
        return ["rollback", f"--name={self.name}", "--json"]


class ExportRequest(VersionRequest):
    """`lightlm export`, into a folder of the studio."""

    kind: Literal["export"]
    to: Format
    quantize: Quantized | None = None

    @model_validator(mode="after")
    def check_format(self) -> Self:
        """Refuse smaller weights in a format that has none.

        Raises:
            ValueError: it is another than gguf.
        """
        if self.quantize is not None and self.to != "gguf":
            raise ValueError("smaller weights are for gguf; leave them out")
        return self

    @property
    def folder(self) -> str:
        """The name of the folder for it."""
        smaller = "" if self.quantize is None else f"-{self.quantize}"
        return f"{self.name}-{self.version}-{self.to}{smaller}"

    def list_words(self) -> list[str]:
        """Return the command's words, without the folder."""
        return [
            "export",
            f"--to={self.to}",
            *list_given(quantize=self.quantize),
            f"--model=models:/{self.name}/{self.version}",
            "--json",
        ]


class ReportRequest(StudioRequest):
    """`lightlm report`; the page is not sent to MLflow."""

    kind: Literal["report"]
    run: RunName

    def list_words(self) -> list[str]:
        """Return the command's words."""
        return ["report", self.run, "--no-send"]


CommandRequest = Annotated[
    LookRequest
    | PlanRequest
    | CompareRequest
    | BasesRequest
    | PromoteRequest
    | RollbackRequest
    | ExportRequest
    | ReportRequest,
    Field(discriminator="kind"),
]
"""What runs as a job and answers with JSON."""


class LoginRequest(StudioRequest):
    """A link's ticket, or the key."""

    ticket: ShortWord = None
    key: Word = None


class UploadRequest(StudioRequest):
    """A new folder for uploaded files; `label` is its name."""

    label: ShortWord = None


def list_given(**options: str | None) -> list[str]:
    """Return --option=value of each that is given; a value that begins with a dash stays one."""
    return [
        f"--{name.replace('_', '-')}={value}"
        for name, value in options.items()
        if value is not None
    ]
