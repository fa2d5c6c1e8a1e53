"""A version's tags: the few that a person reads in MLflow's pages, and one that keeps the rest as
JSON.
"""

import json
from collections.abc import Mapping

from lightlm.data.origin import Origin, is_same_text, read_origin
from lightlm.store.remembered import parse_json

RECORD_TAG = "lightlm.record"
"""One JSON object: digests, counts, ids. Versions before it had a tag for each; both are read
alike.
"""

ORIGIN_TAG = "lightlm.dataset"
"""The dataset params that the version learnt from, as JSON: what is retrained, and compared, by
default.
"""

DATASET_TAG = "dataset"
"""The text's name, for people."""

DATA_TAG = "data"
"""What the data stage took, a sentence a line; the model card tells it."""

DIGEST_TAG = "source_digest"
"""The digest of the data set that the version learnt, whatever part of it the time
allowed to read.
"""

MANIFEST_TAG = "lightlm.manifest_sha256"
"""The digest of the version's files; they are opened only if they have it."""

LEARNT_TAG = "learnt_subsets"
"""The fingerprints of the subsets that a version and those it was continued from have learnt."""

SHOWN = frozenset((
    "bits_per_byte", DATASET_TAG, DATA_TAG, "num_parameters", "hours", "started_from",
    "lightlm.promotion", ORIGIN_TAG,
    RECORD_TAG,
))  # fmt: skip
"""Tags that stay tags of their own."""

MOST_CHARACTERS = 4900
"""Of the record; MLflow takes 5,000 in a tag on every database."""


def pack_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that are set in MLflow: those that a person reads, and the record of the
    others.
    """
    shown = {name: value for name, value in tags.items() if name in SHOWN}
    kept = {name: value for name, value in tags.items() if name not in SHOWN}
    learnt = kept.get(LEARNT_TAG, "").split(",")
    while len(record := json.dumps(kept)) > MOST_CHARACTERS and len(learnt) > 1:
        learnt = learnt[len(learnt) // 2 :]
        kept[LEARNT_TAG] = ",".join(learnt)
    return shown | ({RECORD_TAG: record} if kept else {})


def unpack_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return all tags of a version under their own names, of old versions and new ones alike."""
    record = parse_json(tags.get(RECORD_TAG, "{}"))
    kept = record.items() if isinstance(record, dict) else ()
    own = {name: value for name, value in tags.items() if name != RECORD_TAG}
    return {str(name): value for name, value in kept if isinstance(value, str)} | own


def is_other_text(champion: Mapping[str, str], challenger: Mapping[str, str]) -> bool:
    """Return whether two versions learnt different texts: by their recorded origin, else by the
    text's name.

    The same content is the same text, wherever it lies; a text that has grown is the same one.
    """
    digests = champion.get(DIGEST_TAG), challenger.get(DIGEST_TAG)
    has_same_content = bool(digests[0]) and digests[0] == digests[1]
    one = read_origin(champion.get(ORIGIN_TAG))
    other = read_origin(challenger.get(ORIGIN_TAG))

    if one is not None and other is not None:
        elsewhere = {"source": ""} if has_same_content else {}
        return not is_same_text(one | elsewhere, other | elsewhere)

    if has_same_content:
        return False

    names = champion.get(DATASET_TAG), challenger.get(DATASET_TAG)
    return bool(names[0] and names[1] and names[0] != names[1])


def owns_name(tags: Mapping[str, str], origin: Origin) -> bool:
    """Return whether a name whose champion has these tags may be another version's of this origin.

    A champion of a version before origins were recorded does not say; its name is then shared.
    """
    recorded = read_origin(tags.get(ORIGIN_TAG))
    return recorded is None or is_same_text(recorded, origin)
