"""Names of a run and its model: after the text, or as given by --name."""

import json
from typing import TYPE_CHECKING

from lightlm.data.origin import Origin, describe_origin, list_names
from lightlm.params import Overrides, Params
from lightlm.tracking.tags import DATASET_TAG, DIGEST_TAG, ORIGIN_TAG, OTHERS_DIGEST_TAG

if TYPE_CHECKING:
    from lightlm.data.subset import TextSubset
    from lightlm.runs.session import Session
    from lightlm.runs.values import Material
    from lightlm.tracking.registry import ModelVersion

MODEL_NAME = "model_name"
"""Name of a run's decision on the name of its model."""


def name_run(params: Params, learned: str | None = None) -> str:
    """Return "train-0.1h-notes", after the text that was asked for, or `learned`."""
    return (
        f"train-{params.budget.hours:g}h-{list_names(describe_origin(params.dataset, learned))[0]}"
    )


def list_model_names(params: Params, learned: str | None = None) -> list[str]:
    """Return the names that the run's model may get, the best first; or only the given one."""
    given = params.tracking.model_name
    return [given] if given else list_names(describe_origin(params.dataset, learned))


def format_model_name(params: Params, learned: str | None = None) -> str:
    """Return which name the model gets, and why."""
    given = params.tracking.model_name
    if given:
        return f"Model {given}"
    return (
        f"Model {list_model_names(params, learned)[0]}, named after the data set; --name sets "
        "another"
    )


def learn_origin(session: "Session", subset: "TextSubset") -> Origin:
    """Return where the text is from; rename the run if it is not the text that was asked for."""
    params = session.params
    name = session.run.name.replace(name_run(params), name_run(params, subset.name))
    if name != session.run.name:
        session.run.name = name
        session.recorder.rename(name)
        session.page.rename(name)

    return describe_origin(params.dataset, subset.name)


def settle_model_name(session: "Session", name: str, origin: Origin) -> str:
    """Return the name of the run's model; record and log it. A continued run keeps its own."""
    given = session.params.tracking.model_name
    chosen: str = session.run.decide_once(MODEL_NAME, lambda: name)
    why = "as it was asked for" if given else "named after the data set"
    session.recorder.set_tags({"lightlm.model_name": chosen, "lightlm.named": why})
    if given:
        return chosen

    best = list_names(origin)[0]
    other = "" if chosen == best else f" ({best} is the name of another text's model)"
    session.log(f"Model {chosen}, named after the data set{other}; --name sets another")
    return chosen


def text_tags(material: "Material") -> dict[str, str]:
    """Return the tags that name the text which a version of this run was trained on."""
    others = "+".join(one.subset.source_digest for one in material.subset.others)
    return {
        DATASET_TAG: material.subset.name,
        DIGEST_TAG: material.subset.source_digest,
        ORIGIN_TAG: json.dumps(material.origin),
    } | ({OTHERS_DIGEST_TAG: others} if others else {})


def format_version(version: "ModelVersion") -> str:
    """Return "model notes, version 3 (champion)"."""
    aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
    return f"model {version.name}, version {version.version}{aliases}"


def add_name(overrides: Overrides | None, name: str | None) -> Overrides:
    """Return the overrides with the model's name, where one is given."""
    return dict(overrides or {}) | ({} if name is None else {"tracking.model_name": name})
