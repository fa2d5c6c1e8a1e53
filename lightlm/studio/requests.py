"""What the page may ask for: each request is checked, and stands for a command of `lightlm`."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

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
Format = Literal["hf", "gguf", "onnx"]


class StudioRequest(BaseModel):
    """What all requests have: no unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class TextRequest(StudioRequest):
    """A data set as commands take it."""

    dataset: Word = None
    text_column: Word = None

    def list_options(self) -> list[str]:
        """Return the options that name the text."""
        return list_given(dataset=self.dataset, text_column=self.text_column)


class LookRequest(TextRequest):
    """`lightlm look`."""

    kind: Literal["look"]

    def list_words(self) -> list[str]:
        """Return the command's words."""
        options = list_given(text_column=self.text_column)
        return ["look", "--json", *options, *(["--", self.dataset] if self.dataset else [])]


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

    @property
    def folder(self) -> str:
        """The name of the folder for it."""
        return f"{self.name}-{self.version}-{self.to}"

    def list_words(self) -> list[str]:
        """Return the command's words, without the folder."""
        return [
            "export",
            f"--to={self.to}",
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
