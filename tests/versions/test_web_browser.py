"""The page of the web export in a browser: it asks no other server, and writes what the model does.

Wants npm, Chromium and Playwright for Python: `make web-test`.
"""

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lightlm.data.tokenization.tokenizer import load_tokenizer
from lightlm.generation.sampling import check_sampling
from lightlm.generation.text import Generator
from lightlm.model.hugging_face import load_model
from lightlm.versions.text import check_request
from tests.command_line import Trained

pytestmark = pytest.mark.web

NEW_TOKENS = 20
PROMPT = "The quiet river"


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """Serve a folder's files; yield the address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Be quiet."""

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def page() -> Iterator[Any]:
    """Return a page of headless Chromium; `page.asked` are the addresses it asked for."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page()
        opened.asked = []
        opened.on("request", lambda request: opened.asked.append(request.url))
        yield opened
        browser.close()


def write_greedily(folder: Path) -> str:
    """Return the network's own continuation of the prompt."""
    asked = {"temperature": 0.0, "max_new_tokens": NEW_TOKENS}
    sampling = check_sampling(check_request(PROMPT, asked))
    generator = Generator(load_model(folder), load_tokenizer(folder))
    return generator.generate([PROMPT], sampling)[0].text


def test_the_page_continues_a_text_as_the_network_does_and_asks_no_other_server(
    trained: Trained, tmp_path: Path, page: Any
) -> None:
    for kind in ("hf", "web"):
        ended = trained.lightlm("export", tmp_path / kind, "--to", kind)
        assert ended.code == 0, ended.err
    assert "python -m http.server" in ended.out
    expected = write_greedily(tmp_path / "hf")

    with serve_folder(tmp_path / "web") as address:
        page.goto(address)
        page.wait_for_selector("#write:enabled")
        assert page.text_content("#status") == "Ready."
        page.fill("#prompt", PROMPT)
        page.fill("#tokens", str(NEW_TOKENS))
        page.fill("#temperature", "0")
        page.keyboard.press("Enter")
        page.wait_for_selector("#write:enabled")
        if (pictures := os.environ.get("LIGHTLM_SCREENSHOTS")) is not None:
            page.screenshot(path=f"{pictures}/web-desktop.png")
            page.emulate_media(color_scheme="dark")
            page.set_viewport_size({"width": 390, "height": 844})
            page.screenshot(path=f"{pictures}/web-phone-dark.png")
        assert page.text_content("#text") == PROMPT + expected
        assert "per second" in page.text_content("#status")
        asked = [url for url in page.asked if not url.startswith((address, "blob:", "data:"))]
        assert asked == []
