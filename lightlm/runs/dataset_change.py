"""The change of a data set since a version was trained on it, by the digest of its content."""

from pathlib import Path

from pydantic import BaseModel

from lightlm.params import Params
from lightlm.tracking.registry import ModelVersion, find_champion, list_versions
from lightlm.tracking.tags import DIGEST_TAG, OTHERS_DIGEST_TAG


class DatasetChange(BaseModel, frozen=True):
    """A data set's change, and the sentence that explains it. Digests in hex; "" is unknown."""

    is_changed: bool
    dataset: str
    digest: str
    learnt_digest: str
    learnt_by: str | None
    reason: str


def read_change(home: Path, params: Params) -> tuple[DatasetChange, ModelVersion | None]:
    """Return the change of the data set since the newest version of the model; and the champion.

    Raises:
        DatasetError: it cannot be read.
        TrackingError: MLflow cannot be asked.
    """
    from lightlm.data.source import open_source

    source = open_source(params.dataset)
    others = [open_source(one).short_digest for one in params.dataset.list_others()]
    versions = list_versions(home, params.tracking.model_name or "")
    champion = find_champion(versions)
    return compare_digests(
        source.name,
        "+".join([source.short_digest, *others]),
        versions[0] if versions else None,
    ), champion


def compare_digests(dataset: str, digest: str, newest: ModelVersion | None) -> DatasetChange:
    """Return whether `digest` differs from that of the newest version's data set."""
    tags = {} if newest is None else newest.tags
    learned = "+".join(filter(None, (tags.get(DIGEST_TAG), tags.get(OTHERS_DIGEST_TAG))))
    if newest is None:
        reason = f"{dataset} is new: no version is registered yet"
    elif not learned:
        reason = (
            f"{dataset} counts as changed: version {newest.version} does not say what it learned"
        )
    elif learned != digest:
        reason = (
            f"{dataset} has changed since version {newest.version}: digest {digest}, was {learned}"
        )
    else:
        moment = f"{newest.created_at:%Y-%m-%d %H:%M} UTC"
        reason = (
            f"{dataset} is unchanged (digest {digest}) since version {newest.version} learned "
            f"it on {moment}"
        )

    return DatasetChange(
        is_changed=not learned or learned != digest,
        dataset=dataset,
        digest=digest,
        learnt_digest=learned,
        learnt_by=None if newest is None else newest.version,
        reason=reason,
    )
