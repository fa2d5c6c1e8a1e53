"""What a run asks of the champion: its score on the new held-out text, and the comparison with the
challenger.
"""

from dataclasses import dataclass
from typing import Any

from lightlm.budget.memory import MATMUL_CONTEXT
from lightlm.budget.probe import MachineRate
from lightlm.counting import count
from lightlm.data.origin import describe_origin
from lightlm.data.overlap import find_learnt
from lightlm.data.subset import TextSubset
from lightlm.errors import LightLMError
from lightlm.evaluation.comparison import Comparison, DocumentScores, compare
from lightlm.model.config import ModelConfig
from lightlm.runs.naming import MODEL_NAME, describe_text, list_model_names, settle_model_name
from lightlm.runs.session import Session
from lightlm.store.stage import find_stage, open_stage
from lightlm.tracking.outbox import ChampionAnswer
from lightlm.tracking.registration import format_other_text
from lightlm.tracking.registry import ModelVersion, download, is_local
from lightlm.tracking.tags import LEARNT_TAG, MANIFEST_TAG, is_other_text
from lightlm.training.config import TrainerConfig

ANSWER_FRACTION = 0.1
"""Of the budget; what MLflow gets to name the champion. Usually it has done so before the text is
read.
"""

LEAST_ANSWER_SECONDS = 3.0
"""What it gets however short the run is: half of it is importing MLflow."""

SCORING_FRACTION = 0.05
"""Of the budget; a champion that was trained for longer is scored on as many documents as this
allows.
"""

KIND = "scores"
FORMAT = 1


@dataclass(frozen=True)
class Champion:
    """The champion as this run met it: scored on this held-out text, or with the reason why not."""

    version: ModelVersion | None
    scores: DocumentScores | None = None
    model: ModelConfig | None = None
    learnt: frozenset[int] = frozenset()
    """Indexes of held-out documents that it has learnt from: on these it is not compared."""
    reason: str = ""

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte on the documents that were scored."""
        import math

        assert self.scores is not None
        return sum(self.scores.nats) / math.log(2) / sum(self.scores.num_bytes)


def ask_for_champion(session: Session, learnt: str | None = None) -> None:
    """Ask MLflow for the champion, early: naming it and fetching its files go on beside the first
    stages.

    `learnt` is the text where it is another than the one that was asked for.
    """
    params = session.params
    settled = session.run.decided(MODEL_NAME)
    names = [settled] if settled else list_model_names(params, learnt)
    matters = params.tracking.promote == "better" or len(names) > 1
    session.facts["names"] = names
    session.facts["asks"] = matters and has_registry(session)
    if session.facts["asks"]:
        session.recorder.ask_champion(names, describe_origin(params.dataset, learnt))


def know_champion(session: Session, champion: ModelVersion | None) -> None:
    """Take the champion that the caller has found in the registry already; the params name the
    model.
    """
    names = list_model_names(session.params)
    session.facts["names"] = names
    session.facts["asks"] = session.params.tracking.promote == "better"
    session.facts["champion"] = ChampionAnswer(champion, None, names[0])


def has_registry(session: Session) -> bool:
    """Return whether there can be a version: a home without a database has none, and making one
    takes seconds.
    """
    return not is_local(session.home) or (session.home / "mlflow.db").exists()


def score_champion(session: Session, subset: TextSubset, machine: MachineRate) -> Champion:
    """Return the champion with its score on this subset's held-out text, document by document."""
    was_compared = session.run.decided("registration") is not None  # before a death
    if was_compared or not session.facts["asks"]:
        settle_model_name(session, session.facts["names"][0])
        return Champion(None)

    with session.stage("champion", "Scoring the champion on this held-out text"):
        patience = max(LEAST_ANSWER_SECONDS, ANSWER_FRACTION * session.ledger.budget_seconds)
        answer = session.facts.get("champion") or session.outbox.wait_for_champion(
            session.facts["names"], patience
        )
        settle_model_name(session, answer.name)
        text = describe_text(session, subset)
        if session.params.tracking.promote != "better":
            champion = Champion(None)
        elif answer.version is None or answer.error:
            champion = Champion(answer.version, reason=answer.error or "")
        elif is_other_text(answer.version.tags, text):
            champion = Champion(answer.version, reason=format_other_text(answer.version, text))
        else:
            champion = read_scores(session, answer.version, subset, machine)

    if champion.scores is not None and champion.version is not None:
        session.log(
            f"Champion: version {champion.version.version}, {champion.bits_per_byte:.4f} bits per "
            "byte on "
            f"{count(len(champion.scores.nats), 'held-out document')}"
        )
    elif champion.reason:
        session.log(f"The champion is not compared: {champion.reason}")

    return champion


def read_scores(
    session: Session, version: ModelVersion, subset: TextSubset, machine: MachineRate
) -> Champion:
    """Return the champion with its scores, from the store where an earlier run scored it on the
    same text.
    """
    key = {
        "format": FORMAT,
        "model": version.tags.get(MANIFEST_TAG, ""),
        "subset": subset.fingerprint,
        "dtype": machine.dtype,
        "device": machine.device.partition(":")[0],
    }

    try:
        found = find_stage(KIND, key)
        if found is not None:
            values = found.meta
        else:
            values = compute_scores(session, version, subset, machine)
            if values["is_whole"]:
                open_stage(KIND, key, lambda _: values)
    except LightLMError as error:
        return Champion(version, reason=str(error))

    scores = DocumentScores.model_validate(values["documents"])
    learnt = find_learnt(subset, version.tags.get(LEARNT_TAG, "").split(","))
    return Champion(version, scores, ModelConfig.model_validate(values["model"]), learnt)


def compute_scores(
    session: Session, version: ModelVersion, subset: TextSubset, machine: MachineRate
) -> dict[str, Any]:
    """Return what the worker says of the version on the subset's held-out text."""
    trainer = TrainerConfig(
        batch_tokens=8,
        micro_batch_size=1,
        dtype=machine.dtype,
        device=machine.device,
        num_threads=machine.num_threads,
    )

    return session.worker.call(
        "score_version",
        folder=str(download(version)),
        subset_folder=str(subset.folder),
        trainer=trainer.model_dump(),
        matmul_context=MATMUL_CONTEXT,
        max_seconds=SCORING_FRACTION * session.ledger.budget_seconds,
    )


def compare_with_champion(
    champion: Champion, challenger: DocumentScores, seed: int
) -> tuple[Comparison | None, str]:
    """Return the paired comparison, or why there is none."""
    if champion.version is None or champion.scores is None:
        return None, champion.reason
    number = champion.version.version
    comparison = compare(number, champion.scores, challenger, seed, champion.learnt)
    return (
        comparison,
        "" if comparison else f"version {number} has learnt from every held-out document",
    )
