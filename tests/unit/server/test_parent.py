"""What the server is told, and which worker stays on which core."""

import pytest

from proxy.config.settings import Settings
from proxy.server.parent import CONNECTIONS, SharedPhase, cores_of_workers, new_server


def test_as_many_workers_as_cores_have_one_each() -> None:
    """Those that we may run on, which need not be the first of the machine."""
    assert cores_of_workers(3, {6, 2, 4}, 3) == [2, 4, 6]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_more_or_fewer_workers_move_as_the_system_likes(workers: int) -> None:
    """Two on one core would leave another idle."""
    assert cores_of_workers(workers, {0, 1, 2}, 3) == []


@pytest.mark.parametrize("workers", [2, 8])
def test_workers_under_a_quota_move_as_the_system_likes(workers: int) -> None:
    """Or every container with two of eight cores would be on the first two."""
    assert cores_of_workers(workers, range(8), 2) == []


def test_where_the_system_does_not_say_they_move_as_it_likes() -> None:
    """There, one core counts as usable."""
    assert cores_of_workers(1, (), 1) == []


def test_granian_is_told_what_the_operator_has_decided() -> None:
    """Where many wait, it would else make too few threads, or hold too many back."""
    env = {"PAGE_TOKEN": "EAATESTTOKEN", "WORKERS": "3", "THREADS": "97"}
    env |= {"LISTEN": "127.0.0.7:8099"}
    settings = Settings.from_env({f"PROXY_{k}": value for k, value in env.items()})

    server = new_server(settings, SharedPhase())

    assert (server.bind_addr, server.bind_port) == ("127.0.0.7", 8099)
    assert (server.workers, server.blocking_threads) == (3, 97)
    assert (server.runtime_threads, server.backpressure) == (1, CONNECTIONS)
