"""The choices of a request whose client does not read them."""

import asyncio

import pytest

from lightlm.serving import choices
from lightlm.serving.choices import Postman
from lightlm.serving.errors import ApiError
from lightlm.serving.requests import CompletionRequest
from lightlm.serving.texts import prepare_completion
from lightlm.serving.versions import Limits, VersionPool
from tests.serving.conftest import Registered


def test_a_client_that_does_not_read_its_stream_ends_its_texts(
    registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "MOST_UNREAD", 3)
    request = CompletionRequest(prompt="the", n=2, max_tokens=1_000_000, stream=True)

    async def write() -> int:
        postman = Postman(asyncio.get_running_loop())
        pool = VersionPool(registered.home, None, None, Limits(4, 8, 2), postman)
        loaded = await pool.find("notes/1")
        texts = prepare_completion(loaded, request)
        texts.submit()
        try:
            while not texts.is_overrun or loaded.engine.num_running:
                await asyncio.sleep(0.01)
            return len([piece async for piece in texts.read()])
        finally:
            pool.close()

    with pytest.raises(ApiError, match="was not read for too long"):
        asyncio.run(asyncio.wait_for(write(), 60))
