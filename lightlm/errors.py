"""Every error that LightLM shows to a person: what was wanted, what was got, what to do.

Owns the tree of exceptions and their exit codes. A `LightLMError` reaching the command line becomes
one line and its exit code; anything else that reaches it is a bug.
"""

from typing import ClassVar


class LightLMError(Exception):
    """The root: a failure that LightLM understands and can explain in one message."""

    exit_code: ClassVar[int] = 1


class InputError(LightLMError):
    """What a person gave (a parameter, a text, a model name) cannot be used."""

    exit_code: ClassVar[int] = 2


class ParameterError(InputError):
    """A parameter is unknown, of the wrong type, or out of bounds."""


class DatasetError(InputError):
    """A data set cannot be found, read, or is too small to train on."""


class TokenizerError(InputError):
    """A tokenizer cannot be found or would lose text."""


class ModelVersionError(InputError):
    """A registered model version or alias does not exist, or its files cannot be trusted."""


class PromptError(InputError):
    """A prompt or a sampling setting cannot be used for generation."""


class SystemCheckError(InputError):
    """This machine cannot run the job: a check of the system failed."""


class StoreError(LightLMError):
    """The disk refused a write or a read: full, read-only, or failing."""

    exit_code: ClassVar[int] = 74


class CorruptError(StoreError):
    """A stored file does not have the digest that its manifest gives. `damage` is the message
    without its remedy.
    """

    def __init__(self, damage: str, remedy: str = "") -> None:
        super().__init__(f"{damage}; {remedy}" if remedy else damage)
        self.damage = damage


class BusyError(LightLMError):
    """Another process holds the lock that is needed."""

    exit_code: ClassVar[int] = 75


class TrainingError(LightLMError):
    """Training could not go on: the loss stayed non-finite, or memory does not hold one
    sequence.
    """


class TaskError(LightLMError):
    """lm-evaluation-harness could not score a task: unknown, without data, or failed."""


class WorkerError(LightLMError):
    """The child process that computes died or answered with an error."""


class WorkerBug(WorkerError):
    """A bug in the child process that computes; its traceback is in the worker's log."""

    exit_code: ClassVar[int] = 70


class TrackingError(LightLMError):
    """MLflow could not be reached or refused a record that cannot wait."""


class HubError(LightLMError):
    """The Hugging Face Hub could not be reached, or refused an upload."""


class Interrupted(LightLMError):
    """A person or the orchestrator asked to stop; what was reached is on disk."""

    exit_code: ClassVar[int] = 130


class Terminated(Interrupted):
    """The system or the orchestrator ended the command by a signal; what was reached is on disk."""

    exit_code: ClassVar[int] = 143


class UnexpectedError(LightLMError):
    """A bug: what LightLM did not foresee. Its traceback is kept, and the message says where."""

    exit_code: ClassVar[int] = 70
