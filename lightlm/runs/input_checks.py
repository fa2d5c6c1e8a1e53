"""Checks before anything slow starts: hours, data set, tokenizer and shape."""

from pathlib import Path

from lightlm.errors import ParameterError
from lightlm.params import Params, StartParams
from lightlm.tracking.mirrors import check_mirrors
from lightlm.tracking.tensorboard import check_tensorboard


def check_sources(home: Path, params: Params) -> None:
    """Refuse hours, a data set, a tokenizer or a shape that cannot be used.

    Raises:
        InputError: hours that nothing can keep; a path that does not exist, or is empty; heads that
            divide no width; too long a context.
    """
    from lightlm.budget.shapes import check_shape
    from lightlm.data.subset import check_dataset
    from lightlm.data.tokenization.tokenizer import check_tokenizer_source

    check_hours(home, params)
    check_shape(params)
    check_dataset(params.dataset, params.model.context_length)
    check_tokenizer_source(home, params.tokenizer)
    check_start(home, params.start)
    check_corpus_start(params)
    check_tensorboard(params.tracking.tensorboard)
    check_mirrors(params.tracking)


def check_start(home: Path, start: StartParams) -> None:
    """Refuse what training cannot start from; a model of the Hub when it is needed.

    Raises:
        ModelVersionError: there is no such file, folder or version, or it is of another family.
    """
    from lightlm.bases.source import SCRATCH, check_source, kind_of

    if start.source == SCRATCH:
        return
    if kind_of(start.source) == "version":
        from lightlm.tracking.catalog import resolve

        resolve(home, start.source)
    else:
        check_source(start.source)


def check_corpus_start(params: Params) -> None:
    """Refuse a base for a corpus, whose token ids are not the base's.

    Raises:
        ParameterError: with what to do.
    """
    from lightlm.bases.source import SCRATCH
    from lightlm.data.corpus import find_corpus_url

    if params.start.source != SCRATCH and find_corpus_url(params.dataset.source) is not None:
        raise ParameterError(
            f"{params.dataset.source} is tokenized already, so training on it begins from scratch; "
            "leave start.source, or give the text itself"
        )


def check_hours(home: Path, params: Params) -> None:
    """Refuse a budget that this machine cannot keep; one of steps is as long as it gets.

    Raises:
        ParameterError: naming the smallest hours that work here.
    """
    from lightlm.budget.reserve import FixedTimes

    if params.budget.max_steps is None:
        FixedTimes(home).check(params.budget.hours)
