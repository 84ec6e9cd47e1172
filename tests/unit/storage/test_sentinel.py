"""Sentinels: which master they name, and that none is lost; no server is needed."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, cast

import pytest
import redis

from proxy.storage.sentinel import Sentinels


def test_sentinels_are_all_kept_however_many_threads_ask() -> None:
    """Each names the same master, in whatever order they are asked."""

    class FakeSentinel:
        def __init__(self) -> None:
            self.asked = 0

        def sentinel_masters(self) -> dict[str, Any]:
            self.asked += 1
            if self.asked % 3:
                raise redis.ConnectionError
            here = {"ip": "::1", "port": 6379, "is_master": True, "is_sdown": False}
            return {"people": here}

    fakes = [FakeSentinel() for _ in range(3)]
    sentinels = Sentinels(cast(Any, fakes))

    def ask(_: int) -> None:
        with suppress(redis.TimeoutError):
            assert sentinels.discover_master("people") == ("::1", 6379)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(2000)))

    assert cast(Any, sentinels.sentinels) == fakes


def test_master_that_is_down_is_not_the_master() -> None:
    """Nor is a master of another name. It fails at once, without a second attempt."""
    down = {"ip": "::1", "port": 6379, "is_master": True, "is_sdown": True}

    class FakeSentinel:
        def sentinel_masters(self) -> dict[str, Any]:
            return {"people": down, "others": down | {"is_sdown": False}}

    with pytest.raises(redis.TimeoutError):
        Sentinels(cast(Any, [FakeSentinel()])).discover_master("people")
