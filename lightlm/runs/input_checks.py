"""Checks before anything slow starts: hours, data set, tokenizer and shape."""

from lightlm.params import Params


def check_sources(params: Params) -> None:
    """Refuse hours, a data set, a tokenizer or a shape that cannot be used.

    Raises:
        InputError: hours that nothing can keep; a path that does not exist, or is empty; heads that
            divide no width; too long a context.
    """
    from lightlm.budget.shapes import check_shape
    from lightlm.data.subset import check_dataset
    from lightlm.data.tokenization.tokenizer import check_tokenizer_source

    check_hours(params)
    check_shape(params)
    check_dataset(params.dataset, params.model.context_length)
    check_tokenizer_source(params.tokenizer)


def check_hours(params: Params) -> None:
    """Refuse a budget that this machine cannot keep; one of steps is as long as it gets.

    Raises:
        ParameterError: naming the smallest hours that work here.
    """
    from lightlm.budget.reserve import FixedTimes
    from lightlm.store.home import find_home

    if params.budget.max_steps is None:
        FixedTimes(find_home()).check(params.budget.hours)
