"""The studio in a real browser: text in, 0.005 hours trained, text out; and every view on a phone.

`make studio-test` runs it. It wants Playwright for Python and Debian's chromium.
"""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.studio.conftest import KEY, SECONDS

pytestmark = pytest.mark.studio

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
PHONE = {"width": 390, "height": 844}
VIEWS = ("text", "plan", "train", "write", "versions")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a studio whose home is empty."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    folder = tmp_path_factory.mktemp("studio")
    own = {"LIGHTLM_HOME": str(folder / "home"), "LIGHTLM_API_KEY": KEY}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "lightlm_flows.cli", "studio", "--no-open", "--port", str(port)],
        env=os.environ | own, cwd=folder, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert "The studio is on" in process.stderr.readline()
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.communicate(timeout=SECONDS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return Debian's chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def open_studio(browser: Any, studio: str, troubles: list[str], **options: object) -> Any:
    """Return a page that has logged in; what its console says is a trouble."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(1000 * SECONDS)
    page.on(
        "console",
        lambda said: troubles.append(said.text) if said.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(studio)
    page.get_by_label("Key", exact=True).fill(KEY)
    page.keyboard.press("Enter")
    page.wait_for_selector("#studio:not([hidden])")
    return page


def test_a_text_becomes_a_model_that_writes(browser: Any, studio: str, text: Path) -> None:
    troubles: list[str] = []
    page = open_studio(browser, studio, troubles)

    page.set_input_files("#pick-files", text)
    page.wait_for_selector("#look .tile")
    assert "Documents" in page.inner_text("#look")
    page.get_by_role("link", name="Plan with this text").click()
    page.get_by_label("Exactly").fill("0.005")
    page.get_by_label("Exactly").press("Tab")
    page.get_by_role("link", name="Train", exact=True).click()
    assert page.inner_text("#view-train .shown-text") == text.name
    page.get_by_role("button", name="Train", exact=True).click()

    page.wait_for_selector("progress")
    page.wait_for_selector("#live .chart polyline")
    result = page.wait_for_selector("section[aria-label=Result]")
    assert "bits per byte" in result.inner_text()

    page.get_by_role("link", name="Write with it").click()
    page.wait_for_selector("#version-a option", state="attached")
    page.get_by_label("Next to it").select_option(index=1)
    page.get_by_label("Text to continue").fill("The old river")
    page.get_by_label("Tokens").fill("24")
    page.get_by_role("button", name="Write", exact=True).click()
    page.wait_for_selector("#write-stop", state="hidden")
    papers = [one.inner_text() for one in page.query_selector_all(".paper")]
    assert len(papers) == 2
    assert papers[0] == papers[1], "the same version and seed write the same text"
    assert papers[0].startswith("The old river")
    assert len(papers[0]) > len("The old river") + 10

    page.locator(".paper").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "token 2" in page.inner_text(".inspect >> nth=0")
    assert "%" in page.inner_text(".inspect >> nth=0")

    page.get_by_role("link", name="Versions").click()
    page.wait_for_selector(".badge.champion")
    page.get_by_label("Format of the export of version 1").select_option("gguf/q8_0")
    page.get_by_role("button", name="Export", exact=True).click()
    page.get_by_text("Exported as q8_0").first.wait_for()
    page.get_by_role("link", name="model.gguf").wait_for()
    assert troubles == []


def test_further_texts_are_mixed_in_with_their_weights_and_personal_data_is_masked(
    browser: Any, studio: str, text: Path, documents: Path, tmp_path: Path
) -> None:
    troubles: list[str] = []
    page = open_studio(browser, studio, troubles)
    page.get_by_label("Or a data set").fill(str(text))
    page.get_by_role("button", name="Add a text").click()
    page.get_by_label("Data set", exact=True).fill(str(documents))
    page.get_by_label("Weight").fill("0.3")
    page.get_by_role("button", name="Add a text").click()
    upload = tmp_path / "letters.txt"
    upload.write_text(text.read_text()[:20_000])
    page.get_by_label("Replace mail addresses").check()
    page.set_input_files("#pick-files", upload)  # it goes where a text is missing
    page.wait_for_selector("#look table")
    looked = page.inner_text("#look")
    assert "Further texts" in looked
    assert "0.3" in looked
    assert page.get_by_label("Or a data set").input_value() == str(text)

    page.get_by_role("button", name="Remove").last.click()
    page.reload()
    page.wait_for_selector("#studio:not([hidden])")
    assert page.get_by_label("Data set", exact=True).input_value() == str(documents)
    page.get_by_role("link", name="Train", exact=True).click()
    shown = page.inner_text("#view-train .shown-text")
    assert shown == f"{text.name}, {documents.name} (0.3); personal data masked"
    assert troubles == []


def test_a_run_whose_page_was_closed_at_once_can_be_continued(
    browser: Any, studio: str, documents: Path
) -> None:
    page = open_studio(browser, studio, [])
    page.get_by_label("Or a data set").fill(str(documents))
    page.get_by_label("Or a data set").press("Tab")
    page.get_by_role("link", name="Train", exact=True).click()
    with page.expect_response(
        lambda one: one.url.endswith("/api/runs") and one.request.method == "POST"
    ):
        page.get_by_role("button", name="Train", exact=True).click()
    page.close()

    page = open_studio(browser, studio, [])
    page.get_by_role("link", name="Train", exact=True).click()
    page.locator("#runs button", has_text="running").click()
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("button", name="Continue", exact=True).wait_for()


def test_a_run_is_stopped_and_continued(browser: Any, studio: str, text: Path) -> None:
    page = open_studio(browser, studio, [])
    page.get_by_label("Or a data set").fill(str(text))
    page.get_by_label("Or a data set").press("Tab")
    page.get_by_role("link", name="Plan", exact=True).click()
    page.get_by_label("Exactly").fill("0.02")
    page.get_by_label("Exactly").press("Tab")
    page.get_by_role("link", name="Train", exact=True).click()
    page.get_by_role("button", name="Train", exact=True).click()
    for _ in range(2):
        page.get_by_role("button", name="Stop", exact=True).click()
        page.get_by_role("button", name="Stopping", exact=True).wait_for()
        page.get_by_role("button", name="Continue", exact=True).click()
        page.get_by_role("button", name="Stop", exact=True).wait_for()
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("button", name="Continue", exact=True).wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_view_is_wider_than_a_phone(browser: Any, studio: str, scheme: str) -> None:
    troubles: list[str] = []
    page = open_studio(browser, studio, troubles, viewport=PHONE, color_scheme=scheme)
    for view in VIEWS:
        page.goto(f"{studio}/#{view}")
        page.wait_for_selector(f"#view-{view}:not([hidden])")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert page.evaluate("document.activeElement.id") == f"{view}-title" or view == "text"
    assert troubles == []


def test_the_keyboard_alone_leads_through_the_views(browser: Any, studio: str) -> None:
    page = open_studio(browser, studio, [])
    page.keyboard.press("Tab")
    seen = []
    for _ in range(len(VIEWS) + 1):
        seen.append(page.evaluate("document.activeElement.innerText"))
        page.keyboard.press("Tab")
    assert {"Text", "Plan", "Train", "Write", "Versions"} <= set(seen), seen
