"""train-flow: text in, a registered, evaluated model version out, within the hours given."""

from prefect import flow
from prefect.runtime import flow_run

from lightlm.params import Hours, Name, Overrides, load_params
from lightlm.runs.base_start import take_tokenizer
from lightlm.runs.champion import ask_again, ask_for_champion
from lightlm.runs.input_checks import check_sources
from lightlm.runs.naming import add_name, name_run
from lightlm.runs.results import summarize
from lightlm.runs.summary import RunSummary
from lightlm.runs.values import Outcome, begin_training
from lightlm.store.home import find_home
from lightlm_flows import tasks
from lightlm_flows.prefect_api.artifacts import show_logs
from lightlm_flows.prefect_api.flow_session import cancel_when_stopped, open_flow_session


def name_flow_run() -> str:
    """Return "train-0.1h-wikitext": what Prefect's pages show."""
    values = flow_run.parameters
    overrides = add_name(values.get("overrides"), values.get("name"))
    params = load_params(
        values.get("preset", "base"),
        overrides,
        dataset=values.get("dataset"),
        hours=values.get("hours"),
    )
    return name_run(params)


@flow(name="train-flow", flow_run_name=name_flow_run, persist_result=False)
@cancel_when_stopped
def train_flow(
    hours: Hours | None = None,
    dataset: str | None = None,
    preset: str = "base",
    overrides: Overrides | None = None,
    name: Name | None = None,
) -> RunSummary:
    """Train the best language model that `hours` allow on `dataset`, and register it in MLflow.

    Args:
        hours: Wall clock of the whole run, in hours; empty: the preset's.
        dataset: Hub id, path on the worker's machine, or python-docs; empty: the preset's.
        preset: NAME of params/NAME.yaml, or a path of a YAML file; laid over params/base.yaml.
        overrides: Single values, as {"model.num_layers": 4}.
        name: The registered model's name; empty: one after the data set.
    """
    home = find_home()
    params = load_params(preset, add_name(overrides, name), dataset=dataset, hours=hours)
    check_sources(home, params)
    show_logs()

    with open_flow_session(home, params, name_run(params)) as session:
        question = ask_for_champion(session)
        system = tasks.check_system(session)
        machine = tasks.measure_matrix_rate(session, system)
        material = tasks.materialize_subset(session, machine)
        question = ask_again(session, question, material)
        machine = tasks.measure_training_rate(session, machine)
        base = tasks.choose_base(session, material, machine, system)
        own = take_tokenizer(params, base)
        tokenizer = tasks.prepare_tokenizer(session, own, material, machine)
        shards = tasks.tokenize_subset(session, material, tokenizer)
        counted = tasks.count_tokens(session, own, base, shards)
        champion = tasks.score_champion(session, question, material, machine)
        start = begin_training(own, champion, base)
        plan = tasks.plan_budget(session, start, system, machine, material, shards, counted)
        trained = tasks.train_model(session, start, plan, tokenizer, shards)
        evaluated = tasks.evaluate_model(session, plan, trained, shards)
        outcome = Outcome(system, material, champion, start, plan, trained, evaluated)
        registered = tasks.register_model(session, outcome)
        return summarize(session, outcome, registered)
