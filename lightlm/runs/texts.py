"""The texts of a run: what is recorded of each, the share that training reads, and the scores."""

from collections.abc import Iterator, Sequence

from lightlm.budget.plan import Plan
from lightlm.data.others import add_others
from lightlm.data.shards import TokenShards
from lightlm.data.subset import OtherSubset, TextSubset, materialize_subset
from lightlm.evaluation.score import Evaluated, TextScore
from lightlm.json_object import JsonObject
from lightlm.params import DatasetParams
from lightlm.runs.session import Session
from lightlm.runs.summary import describe_others
from lightlm.runs.values import Outcome, Trained
from lightlm.training.messages import SharedText


def read_texts(
    session: Session,
    dataset: DatasetParams,
    needed_bytes: Sequence[int],
    seconds: float,
    fraction: float | None,
) -> TextSubset:
    """Return the documents that this budget can use, of the first text and of the others."""
    subset = materialize_subset(
        session.home,
        dataset,
        needed_bytes=needed_bytes,
        max_seconds=seconds,
        fraction=fraction,
        report=session.log,
    )
    subset = add_others(session.home, subset, dataset, needed_bytes, seconds, report=session.log)
    # A first download from the network is the one thing that the hours do not cover.
    downloads = [subset, *(one.subset for one in subset.others)]
    session.ledger.exclude(sum(one.download_seconds for one in downloads))
    return subset


def describe_dataset(subset: TextSubset) -> JsonObject:
    """Return name, digest and counts of the data, for MLflow and the summary."""
    return {
        "name": subset.name,
        "source": subset.source,
        "digest": subset.fingerprint,
        "source_digest": subset.source_digest,
        "num_documents": subset.num_documents,
        "total_documents": subset.total_documents,
        "num_bytes": subset.num_bytes,
        "num_validation_documents": subset.num_validation_documents,
        "num_validation_bytes": subset.num_validation_bytes,
        "validation_sha256": subset.validation_sha256,
        "record": subset.record.model_dump(mode="json"),
        "notice": subset.notice,
    } | ({"others": [describe_other(one) for one in subset.others]} if subset.others else {})


def describe_other(other: OtherSubset) -> JsonObject:
    """Return the same of a further text, with its weight and what a byte of it is worth."""
    return describe_dataset(other.subset) | {"weight": other.weight, "worth": other.worth}


def list_others(outcome: Outcome) -> list[str]:
    """Return a clause for each further text that the model was trained on."""
    evaluated = outcome.evaluated
    tokens = outcome.trained.result.total_tokens
    return describe_others(outcome.plan, evaluated.others, evaluated.together, tokens)


def list_other_shards(plan: Plan, shards: TokenShards) -> tuple[SharedText, ...]:
    """Return the shards of the further texts that training reads, with their shares."""
    return tuple(
        SharedText(folder=other.shards.folder, share=text.share)
        for text, other in zip(plan.texts[1:], shards.others, strict=True)
        if text.share
    )


def score_others(
    session: Session, plan: Plan, trained: Trained, shards: TokenShards, kept_seconds: float
) -> Iterator[TextScore]:
    """Yield the score of each further text, on about as many held-out bytes as the first has; of
    none whose first document is longer, or for which no time is left but `kept_seconds`.
    """
    most = min(
        session.params.evaluation.max_bytes or shards.num_validation_bytes,
        shards.num_validation_bytes,
    )
    for index, (text, other) in enumerate(shards.others):
        left = session.ledger.remaining_seconds - kept_seconds
        if left <= 0 or int(other.validation_offsets()[1, 1]) > most:
            session.log(f"{text.subset.name} is not scored: it would take more time than there is")
            continue
        answer = session.worker.call(
            "evaluate",
            folder=str(trained.result.folder),
            shards_folder=str(other.folder),
            trainer=plan.trainer.model_dump(),
            max_bytes=most,
            deadline=session.ledger.clock() + left / (len(shards.others) - index),
        )
        yield TextScore(name=text.subset.name, score=Evaluated.model_validate(answer).score)
