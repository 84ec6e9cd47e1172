"""What the caches of callers are allowed to keep, by the headers they read."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.helpers.processes import ADA, Service, wait_until
from tests.helpers.stack import Stack

WARNING = "PROXY_PROFILE_TTL is above PROXY_PICTURE_MARGIN"


@pytest.fixture(scope="module")
def short_lived(running: Stack) -> Iterator[Service]:
    """A service of two workers, whose profiles are fresh for two seconds."""
    service = Service(
        **running.settings
        | {"PROFILE_TTL": "2s", "PICTURE_MARGIN": "1s", "WORKERS": "2"}
    )
    yield service
    service.stop()


def test_caches_may_keep_a_fresh_answer_but_no_stale_one(stack, short_lived) -> None:
    """Profile, node and redirect alike; a stale one is refreshed without being kept."""
    paths = (f"/profiles/{ADA}", f"/v25.0/{ADA}", f"/profiles/{ADA}/picture")

    def kept_for() -> set[str]:
        answers = [short_lived.get(path, allow_redirects=False) for path in paths]
        return {answer.headers["Cache-Control"] for answer in answers}

    started = time.monotonic()
    fresh = kept_for()
    assert time.monotonic() - started < 1.5
    stack.meta.order("token", alive=False)  # So the refresh fails.
    wait_until(lambda: kept_for() == {"private, max-age=0"}, 5, "the answer is stale")

    assert fresh <= {"private, max-age=1", "private, max-age=2"}


def test_lifetime_above_the_margin_is_one_warning_per_start(short_lived) -> None:
    """Not one for each process."""
    lines = [line for line in short_lived.log().splitlines() if WARNING in line]

    assert len(lines) == 1
    assert '"level": "warning"' in lines[0]
