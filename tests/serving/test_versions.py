"""The pool of loaded versions, where the server's requests show it no more than by their time."""

import asyncio

from lightlm.serving.choices import Postman
from lightlm.serving.versions import Limits, VersionPool
from tests.serving.conftest import SECONDS, Registered


def test_a_loaded_version_is_found_while_another_one_loads(registered: Registered) -> None:
    async def find_twice() -> bool:
        postman = Postman(asyncio.get_running_loop())
        pool = VersionPool(registered.home, None, None, Limits(4, 8, 2), postman)
        try:
            first = await pool.find("notes/1")
            async with pool._loading:  # as while the weights of another version are read
                return await asyncio.wait_for(pool.find("notes/1"), SECONDS) is first
        finally:
            pool.close()

    assert asyncio.run(find_twice())
