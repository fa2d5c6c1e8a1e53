"""The first signal is an exception, and what is handled by others stays theirs."""

import signal

import pytest

from lightlm.first_signal import FirstSignal


@pytest.fixture
def former() -> "object":
    handler = signal.getsignal(signal.SIGTERM)
    yield handler
    signal.signal(signal.SIGTERM, handler)


def test_the_first_signal_is_marked_then_raised_and_its_number_kept(former: object) -> None:
    marked: list[bool] = []
    first = FirstSignal(mark=lambda: marked.append(True))
    assert first.listen("SIGTERM", "SIGNOSUCH") == {signal.SIGTERM: former}
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert (first.number, marked) == (signal.SIGTERM, [True])


def test_what_is_ignored_already_stays_so(former: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    first = FirstSignal()
    assert first.listen("SIGTERM", unless_handled=True) == {}
    signal.raise_signal(signal.SIGTERM)
    assert first.number is None
