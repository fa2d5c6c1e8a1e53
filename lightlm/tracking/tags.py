"""Tags of a version: a few that a person reads in MLflow, and one JSON tag with the rest."""

import json
from collections.abc import Mapping

from lightlm.data.origin import Origin, is_same_text, read_origin
from lightlm.store.remembered import parse_json

RECORD_TAG = "lightlm.record"
"""One JSON object: digests, counts, ids. Older versions have a tag for each; both are read alike.
"""

ORIGIN_TAG = "lightlm.dataset"
"""The version's dataset params as JSON, the default for retraining and comparing."""

DATASET_TAG = "dataset"
"""The text's name, for people."""

DATA_TAG = "data"
"""Sentences about the data that was read, one a line; the model card shows them."""

DIGEST_TAG = "source_digest"
"""Digest of the whole data set, whatever part of it the time allowed to read."""

OTHERS_DIGEST_TAG = "other_digests"
"""Digests of the further texts of a version, joined by plus signs."""

OTHERS_TAG = "mixed_with"
"""The further texts of a version with their shares and scores, for people."""

MANIFEST_TAG = "lightlm.manifest_sha256"
"""Digest of the version's files, without which they are not opened."""

AUDIT_TAG = "audit"
"""Sentences about what a version repeats and has forgotten, one a line; `lightlm report` sets it.
"""

LEARNED_TAG = "learnt_subsets"
"""Fingerprints of the subsets that a version and its ancestors were trained on."""

SHOWN = frozenset((
    "bits_per_byte", DATASET_TAG, DATA_TAG, "num_parameters", "hours", "started_from",
    "lightlm.promotion", ORIGIN_TAG,
    RECORD_TAG,
))  # fmt: skip
"""Tags that are not packed into the record."""

MOST_CHARACTERS = 4900
"""Characters of the record's tag; MLflow takes 5,000 on every database."""


def pack_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that are set in MLflow: those that a person reads, and the record of the
    others.
    """
    shown = {name: value for name, value in tags.items() if name in SHOWN}
    kept = {name: value for name, value in tags.items() if name not in SHOWN}
    learned = kept.get(LEARNED_TAG, "").split(",")
    while len(record := json.dumps(kept)) > MOST_CHARACTERS and len(learned) > 1:
        learned = learned[len(learned) // 2 :]
        kept[LEARNED_TAG] = ",".join(learned)
    return shown | ({RECORD_TAG: record} if kept else {})


def unpack_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return all tags of a version under their own names, of old versions and new ones alike."""
    record = parse_json(tags.get(RECORD_TAG, "{}"))
    kept = record.items() if isinstance(record, dict) else ()
    own = {name: value for name, value in tags.items() if name != RECORD_TAG}
    return {str(name): value for name, value in kept if isinstance(value, str)} | own


def is_other_text(champion: Mapping[str, str], challenger: Mapping[str, str]) -> bool:
    """Return whether two versions learned different texts: by their recorded origin, else by the
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

    A champion from before origins were recorded has none; its name is then shared.
    """
    recorded = read_origin(tags.get(ORIGIN_TAG))
    return recorded is None or is_same_text(recorded, origin)
