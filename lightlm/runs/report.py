"""The report of a finished run: one page, and two pictures, for its folder and for MLflow."""

import platform
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter

from lightlm.console.panel import predict_curve
from lightlm.data.files.record import DataRecord
from lightlm.data.subset import KIND as SUBSETS
from lightlm.data.subset import TextSubset, open_subset
from lightlm.data.tokenization.tokenizer import load_tokenizer
from lightlm.errors import LightLMError, StoreError, TrackingError
from lightlm.evaluation.baselines import COUNTING, score_compressors, score_counting
from lightlm.evaluation.score import bits_per_byte
from lightlm.json_object import JsonObject
from lightlm.quantities import format_count, format_seconds
from lightlm.rendering.page import Block, Heading, Page, Picture, Quote, Table
from lightlm.rendering.svg import Line, Points, render_bars, render_lines
from lightlm.runs.audit import Audit, audit_model, describe_audit, record_audit
from lightlm.runs.finished import SUMMARY, FinishedRun, read_finished_run
from lightlm.runs.summary import RunSummary, describe_parts
from lightlm.store.commit import write_file
from lightlm.store.remembered import read_checked

SHOWN_FRACTIONS = (0.01, 0.1, 0.5, 1.0)
"""Fractions of the training time at which a sample is shown; the nearest that the run wrote."""

THIS_MODEL = "this model"
NETWORK_ALONE = "its network alone"
TIME_AXIS = "fraction of the training time"
SCORE_AXIS = "bits per held-out byte"
"""Names in the plots."""

AUDIT = "audit.json"
"""Name of the file with what the model repeats and knows of other text."""

SHOWN_DOCUMENTS = 3
SHOWN_LEFT_OUT = 10
EXCERPT_CHARACTERS = 400


def make_report(home: Path, folder: Path, into: Path | None = None) -> Path:
    """Write report.html, curve.png and scores.png into a finished run's folder; return the page.

    `into` names another folder.

    Raises:
        InputError: the folder holds no finished run.
        StoreError: the disk refused.
    """
    run = read_finished_run(folder)
    subset, *others = (find_subset(home, digest) for digest in list_digests(run.summary))
    baselines = score_baselines(run, subset) if subset else {}
    audit = audit_model(home, run, [one for one in (subset, *others) if one is not None])
    into = into or folder
    into.mkdir(parents=True, exist_ok=True)
    page = Page(
        f"{run.summary.model_name} version {run.summary.model_version}",
        list(render_blocks(run, baselines, subset, audit)),
    )

    write_file(into / "report.html", page.to_html().encode())
    write_file(into / AUDIT, audit.model_dump_json(indent=2).encode())
    from lightlm.rendering import png

    png.render_lines(into / "curve.png", score_lines(run), TIME_AXIS, "held-out bits per byte")
    png.render_bars(into / "scores.png", scores_of(run, baselines), SCORE_AXIS, THIS_MODEL)
    return into / "report.html"


def score_baselines(run: FinishedRun, subset: TextSubset) -> dict[str, float]:
    """Return bits per held-out byte of compressors, and of counting over the model's own tokens."""
    scores = score_compressors(subset)
    with suppress(LightLMError):  # the run's model may be gone, and its tokenizer with it
        scores[COUNTING] = score_counting(subset, load_tokenizer(Path(run.summary.folder)))
    return scores


def send_report(home: Path, folder: Path, page: Path) -> str:
    """Add a report to the run's artifacts in MLflow; return the outcome as a sentence."""
    from lightlm.tracking.reports import FOLDER, add_to_run

    summary = read_finished_run(folder).summary
    run_id = summary.run_id
    if not run_id:
        return "MLflow does not know the run yet: `lightlm sync` uploads it"
    try:
        files = [page.parent / name for name in ("curve.png", "scores.png", AUDIT)]
        add_to_run(home, run_id, [page, *filter(Path.is_file, files)])
        if (audit := read_checked(page.parent / AUDIT, TypeAdapter(Audit))) is not None:
            record_audit(home, summary, audit)
    except TrackingError as error:
        return f"not in MLflow: {error}"
    return f"also in MLflow, under {FOLDER}/ of the run's artifacts"


def render_blocks(
    run: FinishedRun,
    baselines: dict[str, float],
    subset: TextSubset | None,
    audit: Audit | None = None,
) -> Iterator[Block]:
    """Yield the page's blocks, the result first."""
    summary = run.summary
    plan = run.summary.plan
    bits = summary.bits_per_byte
    part = "the whole" if summary.score.is_whole else "a prefix of the"
    yield (
        f"{bits:.4f} bits per byte on {part} held-out text of {summary.dataset['name']} "
        f"({summary.score.num_bytes:,} bytes){describe_parts(summary.score)}, after "
        f"{format_seconds(summary.elapsed_seconds)} of {format_seconds(summary.budget_seconds)}. "
        f"Predicted: {plan.format_prediction()}. {summary.promotion.capitalize()}."
    )

    if baselines:
        yield Heading("Against other predictors of the same held-out bytes")
        picture = render_bars(scores_of(run, baselines), "{:.3f} bits".format, THIS_MODEL)
        yield Picture(
            picture,
            "Bits per held-out byte; less is better. All have seen the training text; counting "
            "reads the model's own tokens, at most 4 million of them.",
        )

    yield from render_tasks(run)
    if audit is not None:
        yield Heading("What it repeats, and what it knows of other text")
        yield from describe_audit(audit, summary.started_from, is_private=True)

    yield Heading("Score and loss over the run")
    yield Picture(
        render_lines(score_lines(run), TIME_AXIS, "bits per byte"),
        "Held-out score, and the plan's prediction.",
    )

    loss = render_lines([Line("training", run.losses, "#1c7ed6")], TIME_AXIS, "nats per token")
    yield Picture(loss, "Training loss.")
    yield Heading("Where each second went")
    seconds = (
        f"{format_seconds(sum(summary.ledger.values()))} of "
        f"{format_seconds(summary.budget_seconds)}."
    )

    yield Picture(render_bars(dict(summary.ledger), format_seconds), seconds)
    if summary.joules:
        yield f"{bits:.4f} bits per byte for {summary.energy.format()}."
    yield from render_start(summary)
    yield Heading("The plan and its reasons")
    size = format_count(plan.num_parameters)
    read = format_count(summary.tokens)
    yield f"{summary.shape}; {size} parameters, {read} tokens read."
    yield Table(("why",), [(reason,) for reason in plan.reasons])
    yield from render_texts(summary)
    yield from render_samples(run)
    yield from render_documents(run, subset)
    yield Heading("Provenance")
    yield Table(
        ("what", "from where"), [(name, str(value)) for name, value in provenance(run).items()]
    )


def render_tasks(run: FinishedRun) -> Iterator[Block]:
    """Yield the scores on tasks of lm-evaluation-harness; nothing where none was measured."""
    if not run.tasks:
        return
    rows = [
        (one.task, one.metric, one.format(), one.num_documents or "", one.num_fewshot or 0)
        for one in run.tasks
    ]
    yield Heading("On tasks of lm-evaluation-harness, by the network alone")
    yield Table(("task", "metric", "score", "documents", "examples shown"), rows)


def render_texts(summary: RunSummary) -> Iterator[Block]:
    """Yield a table of the texts that were mixed, with the score on each; nothing of one text."""
    plan = summary.plan
    if not plan.texts:
        return
    scores = {one.name: f"{one.score.bits_per_byte:.4f}" for one in summary.others}
    scores[plan.texts[0].name] = f"{summary.bits_per_byte:.4f}"
    rows = [
        (
            one.name,
            f"{one.share:.1%}",
            f"{one.epochs * summary.tokens / max(1, plan.expected_tokens):.1f}",
            scores.get(one.name, "not scored"),
        )
        for one in plan.texts
    ]
    if summary.together_bits_per_byte is not None:
        rows.append(("together", "", "", f"{summary.together_bits_per_byte:.4f}"))
    yield Heading("The texts")
    yield Table(("text", "of the tokens read", "epochs", "bits per held-out byte"), rows)


def render_start(summary: RunSummary) -> Iterator[Block]:
    """Yield what the base had before and what the hours added; nothing of a run from scratch."""
    if summary.start_bits_per_byte is None:
        return
    before = summary.start_bits_per_byte
    after = summary.final_bits_per_byte or before
    yield Heading("What the base had, and what the hours added")
    if summary.kept_start:
        yield (
            f"Training did not improve on {summary.started_from} ({before:.4f} bits per byte on a "
            "sample of the held-out text), so that its weights are the result."
        )
        return
    yield (
        f"On the same sample of the held-out text {summary.started_from} had {before:.4f} bits per "
        f"byte before training and {after:.4f} after it: {1 - after / before:.1%} less."
    )


def score_lines(run: FinishedRun) -> list[Line]:
    """Return the held-out score over the run, and its prediction."""
    reached = [*run.scores, (1.0, run.summary.score.network_alone)]
    return [
        Line("predicted", predict_scores(run), "#8c959f", is_dashed=True),
        Line("held out", reached, "#d9480f", has_marks=True),
    ]


def predict_scores(run: FinishedRun) -> Points:
    """Return the predicted curve: bits per byte at fractions of the training time."""
    predict = predict_curve(run.summary.plan)
    return [] if predict is None else [(x / 40, predict(x / 40)) for x in range(2, 41)]


def scores_of(run: FinishedRun, baselines: dict[str, float]) -> dict[str, float]:
    """Return this model's score and those it is compared with, the best first."""
    scores = baselines | {THIS_MODEL: run.summary.bits_per_byte}
    if run.summary.score.network_bits_per_byte is not None:
        scores[NETWORK_ALONE] = run.summary.score.network_bits_per_byte
    return dict(sorted(scores.items(), key=lambda entry: entry[1]))


def render_samples(run: FinishedRun) -> Iterator[Block]:
    """Yield the samples nearest to the shown fractions, all from the same prompt and seed."""
    if run.samples:
        yield Heading("What it wrote, from the same prompt and seed")

    shown: list[int] = []
    for wanted in SHOWN_FRACTIONS:
        nearest = min(
            range(len(run.samples)),
            key=lambda index: abs(run.samples[index][0] - wanted),
            default=None,
        )
        if nearest is not None and nearest not in shown:
            shown.append(nearest)

    for index in shown:
        done, text = run.samples[index]
        yield f"At {done:.{0 if done >= 0.01 else 1}%} of the training time:"
        yield Quote(text)


def render_documents(run: FinishedRun, subset: TextSubset | None) -> Iterator[Block]:
    """Yield the held-out documents that the model predicted best and worst."""
    if run.documents is None or subset is None:
        return

    sizes = run.documents.num_bytes
    bits = [
        bits_per_byte(nats, max(1, size))
        for nats, size in zip(run.documents.nats, sizes, strict=True)
    ]
    order = sorted((index for index, size in enumerate(sizes) if size >= 100), key=bits.__getitem__)
    few = min(SHOWN_DOCUMENTS, len(order) // 2)
    wanted = {
        **dict.fromkeys(order[:few], "best"),
        **dict.fromkeys(order[len(order) - few :], "worst"),
    }

    texts = {
        index: document.decode("utf-8", "replace")[:EXCERPT_CHARACTERS]
        for index, document in enumerate(subset.read_documents("validation"))
        if index in wanted
    }
    if wanted:
        yield Heading("Held-out documents that it predicted best and worst")

    for index, kind in wanted.items():
        yield f"{kind.capitalize()}: {bits[index]:.3f} bits per byte, {sizes[index]:,} bytes."
        yield Quote(texts.get(index, ""))


def provenance(run: FinishedRun) -> JsonObject:
    """Return where the model comes from."""
    summary = run.summary
    data = run.summary.dataset
    return {
        "registered version": f"{summary.model_name} {summary.model_version} "
        f"({', '.join(summary.aliases)})",
        "MLflow run": summary.run_id,
        "run folder": run.folder.name,
        "ended": f"{datetime.fromtimestamp((run.folder / SUMMARY).stat().st_mtime).astimezone():%Y-%m-%d %H:%M %z}",  # noqa: E501
        "machine": platform.node(),
        "data set": f"{data['name']} from {data['source']}",
        "subset's digest": data["digest"],
        **{
            f"with {one['name']}": f"from {one['source']}, subset's digest {one['digest']}"
            for one in data.get("others", [])
        },
        "held-out text's SHA-256": data["validation_sha256"],
        **describe_data(data),
        "device": f"{run.summary.plan.trainer.device}, {run.summary.plan.trainer.dtype}, "
        f"{run.summary.plan.trainer.num_threads} threads",
        "matrix rate": f"{run.summary.plan.matrix_flops_per_second / 1e9:,.0f} GFLOP/s measured, "
        f"{summary.mfu:.0%} reached",
    }


def describe_data(data: JsonObject) -> dict[str, str]:
    """Return what was taken of the data set; of a run of an earlier version, what that one kept."""
    if "record" not in data:
        return {
            "documents": f"{data['num_documents']:,} to train on, "
            f"{data['num_validation_documents']:,} held out",
            "copies left out": f"{data['num_duplicates_removed']:,}",
        }

    record = DataRecord.model_validate(data["record"])
    phrase = {
        "documents": f"{record.documents:,}; {record.train_bytes:,} bytes to train on",
        "held out": f"{record.validation_bytes:,} bytes: {record.split}",
        "encodings": ", ".join(
            f"{name} ({number:,} files)" for name, number in record.encodings.items()
        ),
        "column": record.column or "",
        "copies left out": f"{record.exact_duplicates:,} exact, {record.near_duplicates:,} near",
        "bytes replaced": f"{record.replaced_bytes:,}",
        "empty rows": f"{record.empty_rows:,}",
        "files left out": "; ".join(
            f"{one.path} ({one.reason})" for one in record.left_out[:SHOWN_LEFT_OUT]
        )
        + (f"; {record.num_left_out:,} in all" if record.num_left_out > SHOWN_LEFT_OUT else ""),
        "notes": "; ".join([*record.notes, *record.warnings]),
    }

    return {name: value for name, value in phrase.items() if value}


def list_digests(summary: RunSummary) -> list[str]:
    """Return the names in the store of the run's first text and of those mixed with it."""
    others = summary.dataset.get("others", [])
    return [summary.dataset["digest"], *(one["digest"] for one in others)]


def find_subset(home: Path, digest: str) -> TextSubset | None:
    """Return a run's subset where the store still has it."""
    try:
        return open_subset(home / "store" / SUBSETS / digest)
    except StoreError:
        return None
