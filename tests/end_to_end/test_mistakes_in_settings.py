"""Mistakes in the settings: all told at the start, and none takes effect later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.commands import log_lines, run_command
from tests.helpers.processes import Service, free_port, wait_until

TOKEN = "EAATESTTOKEN"
IN_CLEAR = "url is http, so the token is sent unencrypted"


def test_every_mistake_is_told_at_the_start(tmp_path: Path) -> None:
    """With the value or the path, but nothing of a secret; and then it ends."""
    token, keys = tmp_path / "token", tmp_path / "missing"
    token.write_text('"EAAHUNTER2"\n')
    env = {
        "PROXY_PAGE_TOKEN_FILE": str(token),
        "PROXY_API_KEYS_FILE": str(keys),
        "PROXY_GRAPH_URL": "https://graph.facebook.com/v25.0",
        "PROXY_PROFILE_TTL": "soon",
        "PROXY_STORE_URL": "redis://:hunter2@h:99999",
        "PROXY_APP_SECRET": "undefined",
    }

    result = run_command("run", env=env)

    assert result.returncode == 2
    for told in (
        f"PROXY_PAGE_TOKEN_FILE={token} must hold a secret without quotes around it",
        f"PROXY_API_KEYS_FILE={keys} cannot be read: No such file or directory",
        "PROXY_GRAPH_URL must be without a version (PROXY_GRAPH_VERSION has it), not"
        " 'https://graph.facebook.com/v25.0'",
        "PROXY_PROFILE_TTL must be a number of seconds, or one with a unit: 90s, 15m,"
        " 1h, 2d, not 'soon'",
        "PROXY_STORE_URL must be a URL whose port is a number from 1 to 65535",
        "PROXY_APP_SECRET must be a secret, and not undefined",
    ):
        assert told in result.stderr
    assert len(result.stderr.splitlines()) == 6
    assert "hunter2" not in result.stderr.lower()


@pytest.mark.parametrize("from_file", [False, True])
def test_token_of_an_instagram_login_is_told_its_host(
    tmp_path: Path, from_file: bool
) -> None:
    """Of the default Page, or of a Page that uses the same host."""
    pages = tmp_path / "pages.toml"
    pages.write_text('[pages.shop]\ntoken = "IGAAHUNTER2"\n')
    env = {"PROXY_PAGE_TOKEN": "IGAAHUNTER2"}
    if from_file:
        env = {"PROXY_PAGE_TOKEN": TOKEN, "PROXY_PAGES_FILE": str(pages)}

    result = run_command("config", env=env)

    [told] = result.stderr.splitlines()
    assert result.returncode == 2
    assert ("pages.shop" in told) is from_file
    assert "works at https://graph.instagram.com only" in told
    assert "HUNTER2" not in result.stdout + result.stderr


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """The file of the token, and that of the Pages."""
    token, pages = tmp_path / "page_token", tmp_path / "pages.toml"
    token.write_text(TOKEN)
    pages.write_text(f'[pages.shop]\ntoken = "{TOKEN}"\nurl = "http://meta.internal"\n')
    return token, pages


@pytest.fixture
def in_clear(files: tuple[Path, Path]) -> Iterator[Service]:
    """A service with two workers, whose tokens would be sent unencrypted."""
    service = Service(
        PAGE_TOKEN_FILE=str(files[0]),
        PAGES_FILE=str(files[1]),
        GRAPH_URL="http://meta.internal",
        STORE_URL=f"redis://127.0.0.1:{free_port()}",
        WORKERS="2",
    )
    yield service
    service.stop()


def test_mistakes_in_live_files_are_told_and_the_last_good_stay(
    in_clear: Service, files: tuple[Path, Path]
) -> None:
    """By the same checks as at the start. The warnings of a start come once for all."""
    token, pages = files

    def degraded_by() -> set[str]:
        return set(in_clear.get("/readyz").json()["reasons"])

    bad = {"page_token_file_bad", "pages_file_bad"}
    assert not bad & degraded_by()

    token.write_text("undefined")
    pages.write_text(
        '[pages.shop]\ntoken = "IGAAHUNTER2"\nurl = "https://graph.facebook.com"\n'
    )
    wait_until(lambda: bad <= degraded_by(), 10, "both are told")

    told = log_lines(in_clear.log(), "file is invalid, the last valid content stays")
    problems = {line["problem"] for line in told}
    assert any("must be a secret, and not undefined" in each for each in problems)
    assert any("https://graph.instagram.com only" in each for each in problems)
    assert "HUNTER2" not in in_clear.log()
    assert in_clear.get("/pages/shop/profiles/1").json()["code"] == "invalid_igsid"
    warnings = [
        line for line in log_lines(in_clear.log(), IN_CLEAR) if line["page"] == "shop"
    ]
    assert len(warnings) == 1
    of_default = "PROXY_GRAPH_URL is http, so the token is sent unencrypted"
    assert len(log_lines(in_clear.log(), of_default)) == 1
