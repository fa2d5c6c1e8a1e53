"""The champion in a run: asked for in the registry, scored on the held-out text, compared."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from lightlm.budget.ledger import SECONDS_PER_HOUR
from lightlm.budget.memory import MATMUL_CONTEXT
from lightlm.budget.plan import Plan
from lightlm.budget.probe import MachineRate
from lightlm.budget.ranking import EVALUATION_FRACTION
from lightlm.data.origin import describe_origin
from lightlm.data.overlap import find_learned
from lightlm.data.subset import TextSubset
from lightlm.errors import LightLMError
from lightlm.evaluation.comparison import FEWEST_DOCUMENTS, Comparison, compare
from lightlm.evaluation.score import DocumentScores
from lightlm.json_object import JsonObject
from lightlm.model.config import ModelConfig
from lightlm.quantities import count
from lightlm.runs.naming import MODEL_NAME, list_model_names, settle_model_name, text_tags
from lightlm.runs.session import Session
from lightlm.runs.values import Champion, Material, Outcome
from lightlm.store.stage import find_stage, open_stage
from lightlm.tracking.catalog import choose_name
from lightlm.tracking.outbox import ChampionAnswer
from lightlm.tracking.registration import format_other_text
from lightlm.tracking.registry import ModelVersion, download, is_local, read_locally
from lightlm.tracking.tags import LEARNED_TAG, MANIFEST_TAG, is_other_text
from lightlm.training.config import TrainerConfig

ANSWER_FRACTION = 0.1
"""Fraction of the budget that MLflow may take to name the champion; mostly it is done earlier."""

LEAST_ANSWER_SECONDS = 3.0
"""Seconds that MLflow gets at least, however short the run: half of them import MLflow."""

SCORING_FRACTION = 0.05
"""Fraction of the budget that scoring the champion may take; it then covers fewer documents."""

KIND = "scores"
FORMAT = 2


class VersionScores(BaseModel, frozen=True):
    """A registered version on the documents of a held-out text. `is_whole`: on all of them."""

    documents: DocumentScores
    is_whole: bool
    model: ModelConfig
    network_bits_per_byte: float | None = None


@dataclass(frozen=True)
class ChampionQuestion:
    """What a run asks the registry: which version is champion of one of these model names.

    `is_asked` is False where no answer matters, or none can come. `learned` is the name of the text
    where it is not the one asked for. `answer` is there where the caller had it before the run.
    """

    names: list[str]
    is_asked: bool
    learned: str | None = None
    answer: ChampionAnswer | None = None


def ask_for_champion(session: Session, learned: str | None = None) -> ChampionQuestion:
    """Ask MLflow for the champion; naming it and fetching its files overlap with the first stages.

    `learned` is the name of the text, where it is another than the one that was asked for.
    """
    params = session.params
    names = list_possible_names(session, learned)
    matters = params.tracking.promote == "better" or len(names) > 1
    question = ChampionQuestion(names, matters and has_registry(session), learned)
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
    return ChampionQuestion(names, session.params.tracking.promote == "better", answer=answer)


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
        answer = question.answer or read_answer(session, question) or wait(session, question)
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
            champion = read_scores(session, question, answer.version, material.subset, machine)

    if champion.scores is not None and champion.version is not None:
        session.log(
            f"Champion: version {champion.version.version}, {champion.scores.bits_per_byte:.4f} "
            f"bits per byte on {count(len(champion.scores.nats), 'held-out document')}"
        )
    elif champion.reason:
        session.log(f"The champion is not compared: {champion.reason}")

    return champion


def read_answer(session: Session, question: ChampionQuestion) -> ChampionAnswer | None:
    """Return what the database of this home says; None where the registry is elsewhere.

    The files may not be in the cache yet.
    """
    reader = read_locally(session.home)
    if reader is None:
        return None
    origin = describe_origin(session.params.dataset, question.learned)
    name, champion = choose_name(session.home, reader, question.names, origin)
    return ChampionAnswer(champion, None, name)


def wait(session: Session, question: ChampionQuestion) -> ChampionAnswer:
    """Return MLflow's answer, the champion's files in the cache."""
    seconds = max(LEAST_ANSWER_SECONDS, ANSWER_FRACTION * session.ledger.budget_seconds)
    return session.outbox.wait_for_champion(question.names, seconds)


def read_scores(
    session: Session,
    question: ChampionQuestion,
    version: ModelVersion,
    subset: TextSubset,
    machine: MachineRate,
) -> Champion:
    """Return the champion with its scores; from the store, if a run scored it on this text."""
    model = version.tags.get(MANIFEST_TAG, "")
    key = describe_scores(model, subset, machine.dtype, machine.device)
    try:
        found = find_stage(session.home, KIND, key)
        if found is not None:
            scores = VersionScores.model_validate(found.meta)
        else:
            if question.answer is None and (error := wait(session, question).error):
                return Champion(version.name, version, reason=error)
            scores = compute_scores(session, version, subset, machine)
            keep_scores(session.home, key, scores)
    except LightLMError as error:
        return Champion(version.name, version, reason=str(error))

    learned = find_learned(session.home, subset, version.tags.get(LEARNED_TAG, "").split(","))
    alone = scores.network_bits_per_byte or scores.documents.bits_per_byte
    return Champion(version.name, version, scores.documents, scores.model, learned, alone)


def describe_scores(model: str, text: TextSubset, dtype: str, device: str) -> JsonObject:
    """Return the key of a model's scores in the store: its folder's digest, the held-out documents,
    and how it computes.
    """
    return {
        "format": FORMAT,
        "model": model,
        "text": text.validation_sha256,
        "documents": text.num_validation_documents,
        "dtype": dtype,
        "device": device.partition(":")[0],
    }


def keep_scores(home: Path, key: JsonObject, scores: VersionScores) -> None:
    """Keep scores in the store, if they are whole."""
    if scores.is_whole:
        open_stage(home, KIND, key, lambda _: scores.model_dump())


def keep_own_scores(session: Session, outcome: Outcome) -> None:
    """Keep a new model's scores for the run in which it is the champion, on the same text.

    A store that cannot take them costs that run the time to score it, and this one nothing.
    """
    plan, score = outcome.plan, outcome.evaluated.score
    digest = session.run.decided("score")["model"]
    key = describe_scores(digest, outcome.material.subset, plan.trainer.dtype, plan.trainer.device)
    scores = VersionScores(
        documents=outcome.evaluated.documents,
        is_whole=score.is_whole,
        model=plan.model,
        network_bits_per_byte=score.network_alone,
    )
    with suppress(LightLMError):
        keep_scores(session.home, key, scores)


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


def advise_hours(
    hours: float, sizes: Sequence[int], num_bytes: int, seconds: float, plan: Plan
) -> str:
    """Return in how many hours enough documents would have been scored, where in `hours` time ended
    the score of a challenger after `num_bytes` and `seconds`; `sizes` are the documents' bytes.
    """
    needed = sum(sizes[:FEWEST_DOCUMENTS]) * seconds / num_bytes
    spare = plan.training_seconds + plan.reserve_seconds
    more = max(0.0, needed / EVALUATION_FRACTION - spare) / SECONDS_PER_HOUR
    return (
        f"time ended the score after {num_bytes:,} bytes; give --hours "
        f"{math.ceil(100 * (hours + more)) / 100:g} or more, or a smaller base"
    )


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
