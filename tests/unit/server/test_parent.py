"""The options that granian gets."""

from tempfile import gettempdir

from proxy.config.settings import Settings
from proxy.server.parent import CONNECTIONS, new_server, writable_folder
from proxy.server.phase import SharedPhase


def test_granian_gets_the_operators_settings() -> None:
    """By default it would make too few threads, or hold too many requests back."""
    env = {"PAGE_TOKEN": "EAATESTTOKEN", "WORKERS": "3", "THREADS": "97"}
    env |= {"LISTEN": "127.0.0.7:8099"}
    settings = Settings.from_env({f"PROXY_{k}": value for k, value in env.items()})

    server = new_server(settings, SharedPhase())

    assert (server.bind_addr, server.bind_port) == ("127.0.0.7", 8099)
    assert (server.workers, server.blocking_threads) == (3, 97)
    assert (server.runtime_threads, server.backpressure) == (1, CONNECTIONS)
    assert server.http1_settings.header_read_timeout == 75_000


def test_workers_share_a_folder_in_memory_where_there_is_one(tmp_path) -> None:
    """Otherwise the folder for temporary files."""
    assert writable_folder(str(tmp_path)) == str(tmp_path)
    assert writable_folder(str(tmp_path / "missing")) == gettempdir()
