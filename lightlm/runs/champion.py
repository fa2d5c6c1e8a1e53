"""The champion in a run: asked for in the registry, scored on the held-out text, compared."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from lightlm.budget.memory import MATMUL_CONTEXT
from lightlm.budget.probe import MachineRate
from lightlm.counting import count
from lightlm.data.origin import describe_origin
from lightlm.data.overlap import find_learnt
from lightlm.data.subset import TextSubset
from lightlm.errors import LightLMError
from lightlm.evaluation.comparison import Comparison, compare
from lightlm.evaluation.score import DocumentScores
from lightlm.model.config import ModelConfig
from lightlm.runs.naming import MODEL_NAME, list_model_names, settle_model_name, text_tags
from lightlm.runs.session import Session
from lightlm.runs.values import Champion, Material
from lightlm.store.stage import find_stage, open_stage
from lightlm.tracking.outbox import ChampionAnswer
from lightlm.tracking.registration import format_other_text
from lightlm.tracking.registry import ModelVersion, download, is_local
from lightlm.tracking.tags import LEARNT_TAG, MANIFEST_TAG, is_other_text
from lightlm.training.config import TrainerConfig

ANSWER_FRACTION = 0.1
"""Fraction of the budget that MLflow may take to name the champion; mostly it is done earlier."""

LEAST_ANSWER_SECONDS = 3.0
"""Seconds that MLflow gets at least, however short the run: half of them import MLflow."""

SCORING_FRACTION = 0.05
"""Fraction of the budget that scoring the champion may take; it then covers fewer documents."""

KIND = "scores"
FORMAT = 1


class VersionScores(BaseModel):
    """A registered version on the documents of a held-out text. `is_whole`: on all of them."""

    model_config = ConfigDict(frozen=True)

    documents: DocumentScores
    is_whole: bool
    model: ModelConfig
    network_bits_per_byte: float | None = None


@dataclass(frozen=True)
class ChampionQuestion:
    """What a run asks the registry: which version is champion of one of these model names.

    `is_asked` is False where no answer matters, or none can come. `answer` is there where the
    caller had it before the run began.
    """

    names: list[str]
    is_asked: bool
    answer: ChampionAnswer | None = None


def ask_for_champion(session: Session, learned: str | None = None) -> ChampionQuestion:
    """Ask MLflow for the champion; naming it and fetching its files overlap with the first stages.

    `learned` is the name of the text, where it is another than the one that was asked for.
    """
    params = session.params
    names = list_possible_names(session, learned)
    matters = params.tracking.promote == "better" or len(names) > 1
    question = ChampionQuestion(names, matters and has_registry(session))
    if question.is_asked:
        session.recorder.ask_champion(names, describe_origin(params.dataset, learned))
    return question


def ask_again(session: Session, question: ChampionQuestion, material: Material) -> ChampionQuestion:
    """Return the question, asked anew where the text that was read gives the model other names."""
    learned = material.subset.name
    if list_possible_names(session, learned) == question.names:
        return question
    return ask_for_champion(session, learned)


def list_possible_names(session: Session, learned: str | None) -> list[str]:
    """Return the names that the run's model may get; after a restart only the one it has."""
    settled = session.run.decided(MODEL_NAME)
    return [settled] if settled else list_model_names(session.params, learned)


def know_champion(session: Session, champion: ModelVersion | None) -> ChampionQuestion:
    """Return the question with the champion that the caller has found already as its answer."""
    names = list_model_names(session.params)
    answer = ChampionAnswer(champion, None, names[0])
    return ChampionQuestion(names, session.params.tracking.promote == "better", answer)


def has_registry(session: Session) -> bool:
    """Return whether a version can exist: a home without a database has none."""
    return not is_local(session.home) or (session.home / "mlflow.db").exists()


def score_champion(
    session: Session, question: ChampionQuestion, material: Material, machine: MachineRate
) -> Champion:
    """Return the champion with its loss on each of this run's held-out documents."""
    was_compared = session.run.decided("registration") is not None  # before a restart
    if was_compared or not question.is_asked:
        return Champion(settle_model_name(session, question.names[0], material.origin))

    with session.stage("champion"):
        seconds = max(LEAST_ANSWER_SECONDS, ANSWER_FRACTION * session.ledger.budget_seconds)
        answer = question.answer or session.outbox.wait_for_champion(question.names, seconds)
        name = settle_model_name(session, answer.name, material.origin)
        text = text_tags(material)
        if session.params.tracking.promote != "better":
            champion = Champion(name)
        elif answer.version is None or answer.error:
            champion = Champion(name, answer.version, reason=answer.error or "")
        elif is_other_text(answer.version.tags, text):
            reason = format_other_text(answer.version, text)
            champion = Champion(name, answer.version, reason=reason)
        else:
            champion = read_scores(session, name, answer.version, material.subset, machine)

    if champion.scores is not None and champion.version is not None:
        session.log(
            f"Champion: version {champion.version.version}, "
            f"{champion.scores.bits_per_byte:.4f} bits per byte on "
            f"{count(len(champion.scores.nats), 'held-out document')}"
        )
    elif champion.reason:
        session.log(f"The champion is not compared: {champion.reason}")

    return champion


def read_scores(
    session: Session, name: str, version: ModelVersion, subset: TextSubset, machine: MachineRate
) -> Champion:
    """Return the champion with its scores; from the store, if an earlier run scored this text."""
    key = {
        "format": FORMAT,
        "model": version.tags.get(MANIFEST_TAG, ""),
        "subset": subset.fingerprint,
        "dtype": machine.dtype,
        "device": machine.device.partition(":")[0],
    }

    try:
        found = find_stage(session.home, KIND, key)
        if found is not None:
            scores = VersionScores.model_validate(found.meta)
        else:
            scores = compute_scores(session, version, subset, machine)
            if scores.is_whole:
                open_stage(session.home, KIND, key, lambda _: scores.model_dump())
    except LightLMError as error:
        return Champion(name, version, reason=str(error))

    learned = find_learnt(session.home, subset, version.tags.get(LEARNT_TAG, "").split(","))
    alone = scores.network_bits_per_byte or scores.documents.bits_per_byte
    return Champion(name, version, scores.documents, scores.model, learned, alone)


def compute_scores(
    session: Session, version: ModelVersion, subset: TextSubset, machine: MachineRate
) -> VersionScores:
    """Return the scores that the worker computes for a version on the subset's held-out text."""
    trainer = TrainerConfig(
        batch_tokens=8,
        micro_batch_size=1,
        dtype=machine.dtype,
        device=machine.device,
        num_threads=machine.num_threads,
    )

    answer = session.worker.call(
        "score_version",
        folder=str(download(session.home, version)),
        subset_folder=str(subset.folder),
        trainer=trainer.model_dump(),
        matmul_context=MATMUL_CONTEXT,
        max_seconds=SCORING_FRACTION * session.ledger.budget_seconds,
    )
    return VersionScores.model_validate(answer)


def compare_with_champion(
    champion: Champion, challenger: DocumentScores, seed: int
) -> tuple[Comparison | None, str]:
    """Return the paired comparison, or why there is none."""
    if champion.version is None or champion.scores is None:
        return None, champion.reason
    number = champion.version.version
    comparison = compare(number, champion.scores, challenger, seed, champion.learned)
    return (
        comparison,
        "" if comparison else f"version {number} has learned from every held-out document",
    )
