"""Progress in a notebook: escaped, the newest lines alone, and only where there is a notebook."""

import sys
from types import SimpleNamespace

import pytest

from lightlm.console.notebook import NEWEST_LINES, NotebookProgress, find_shell


class Display:
    """Keeps what a notebook would show."""

    shown: "list[tuple[str, dict[str, str]]]" = []  # noqa: RUF012

    def display(self, values: dict[str, str], raw: bool) -> None:
        self.shown.append(("new", values))

    def update(self, values: dict[str, str], raw: bool) -> None:
        self.shown.append(("same", values))


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> type[Display]:
    """IPython's display, which is no dependency of ours."""
    monkeypatch.setattr(Display, "shown", [])
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(DisplayHandle=Display))
    return Display


def test_a_further_line_replaces_what_is_shown(display: type[Display]) -> None:
    progress = NotebookProgress(72.0)
    for number in range(20):
        progress(f"line {number} <b>")
    progress("  ")
    assert [kind for kind, _ in display.shown] == ["new"] + ["same"] * 19
    last = display.shown[-1][1]
    assert last["text/plain"].count("\n") == NEWEST_LINES - 1
    assert "line 19 &lt;b&gt;" in last["text/html"]
    assert "<b>" not in last["text/html"]


def test_the_bar_ends_with_the_budget(display: type[Display]) -> None:
    assert 'value="0.500"' in NotebookProgress(72.0).render(36.0)
    assert 'value="1.000"' in NotebookProgress(72.0).render(100.0)
    assert "progress" not in NotebookProgress().render(3.0)


def test_a_notebook_is_a_shell_with_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert find_shell() is None
    for shell in (None, SimpleNamespace()):
        ipython = SimpleNamespace(get_ipython=lambda found=shell: found)
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        assert find_shell() is None
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert find_shell() is shell
