"""What a run and its model are called: after the text that is learnt, or as `--name` says."""

import json
from typing import TYPE_CHECKING, Any

from lightlm.data.origin import describe_origin, list_names
from lightlm.params import Params
from lightlm.tracking.tags import DATASET_TAG, DIGEST_TAG, ORIGIN_TAG

if TYPE_CHECKING:
    from lightlm.data.subset import TextSubset
    from lightlm.runs.session import Session
    from lightlm.tracking.registry import ModelVersion

ORIGIN = "origin"
MODEL_NAME = "model_name"
"""Under which a session's facts hold what is learnt, and a run its decision on the model's name."""


def name_run(params: Params, learnt: str | None = None) -> str:
    """Return "train-0.1h-notes", after the text that is asked for, or `learnt`."""
    return (
        f"train-{params.budget.hours:g}h-{list_names(describe_origin(params.dataset, learnt))[0]}"
    )


def list_model_names(params: Params, learnt: str | None = None) -> list[str]:
    """Return the names that the run's model may get, the best first; the one that was
    given alone.
    """
    given = params.tracking.model_name
    return [given] if given else list_names(describe_origin(params.dataset, learnt))


def format_model_name(params: Params, learnt: str | None = None) -> str:
    """Return which name the model gets, and why."""
    given = params.tracking.model_name
    if given:
        return f"Model {given}"
    return (
        f"Model {list_model_names(params, learnt)[0]}, named after the data set; --name sets "
        "another"
    )


def learn_origin(session: "Session", subset: "TextSubset") -> None:
    """Note what is learnt; where it is not what was asked for, the run's name says so, and the
    champion is another.
    """
    from lightlm.runs.champion import ask_for_champion

    params = session.params
    session.facts[ORIGIN] = describe_origin(params.dataset, subset.name)

    name = session.run.name.replace(name_run(params), name_run(params, subset.name))
    if name != session.run.name:
        session.run.name = name
        session.recorder.rename(name)
        session.page.rename(name)

    settled = session.run.decided(MODEL_NAME)
    names = [settled] if settled else list_model_names(params, subset.name)
    if names != session.facts["names"]:
        ask_for_champion(session, subset.name)


def name_text(session: "Session") -> str:
    """Return what the text is called, in names of runs and tables."""
    return list_names(session.facts[ORIGIN])[0]


def settle_model_name(session: "Session", name: str) -> None:
    """Give the run's model its name: recorded with the params, said, and kept if the run is
    continued.
    """
    params = session.params
    given = params.tracking.model_name
    chosen = session.run.decide_once(MODEL_NAME, lambda: name)
    session.params = params.model_copy(
        update={"tracking": params.tracking.model_copy(update={"model_name": chosen})}
    )

    best = name_text(session)
    why = "as it was asked for" if given else "named after the data set"
    session.recorder.set_tags({"lightlm.model_name": chosen, "lightlm.named": why})
    if given:
        return

    other = "" if chosen == best else f" ({best} is another text's)"
    session.log(f"Model {chosen}, named after the data set{other}; --name sets another")


def find_model_name(session: "Session") -> str:
    """Return the name that the run's model was given."""
    name = session.params.tracking.model_name
    assert name is not None, "settle_model_name comes first"
    return name


def describe_text(session: "Session", subset: "TextSubset") -> dict[str, str]:
    """Return the tags that say what text a version of this run learns."""
    return {
        DATASET_TAG: subset.name,
        DIGEST_TAG: subset.source_digest,
        ORIGIN_TAG: json.dumps(session.facts[ORIGIN]),
    }


def format_version(version: "ModelVersion") -> str:
    """Return "model notes, version 3 (champion)"."""
    aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
    return f"model {version.name}, version {version.version}{aliases}"


def add_name(overrides: dict[str, Any] | None, name: str | None) -> dict[str, Any]:
    """Return the overrides with the model's name, where one is given."""
    return dict(overrides or {}) | ({} if name is None else {"tracking.model_name": name})
