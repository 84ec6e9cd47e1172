"""Settings that do not fit what others know, or the files that they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config.settings import Settings, SettingsError
from proxy.live_files import read_settings


def settings(**env: str) -> Settings:
    """As the service reads them, with a token and *env*, without ``PROXY_``."""
    given = {f"PROXY_{name}": value for name, value in env.items()}
    return read_settings({"PROXY_PAGE_TOKEN": "EAATESTTOKEN"} | given)


def mistakes(**env: str) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        settings(**env)
    return raised.value.mistakes


def test_a_bad_file_of_pages_is_told_with_all_other_mistakes(tmp_path: Path) -> None:
    """Each of its own mistakes too, by Page and key, and no value."""
    file = tmp_path / "pages.toml"
    file.write_text('[pages.shop]\ntoken = "two words"\n[pages.outlet]\n')

    told = mistakes(PAGES_FILE=str(file), THREADS="1")

    assert told == [
        "PROXY_PAGES_FILE: pages.shop.token must be printable ASCII without spaces,"
        " and not empty",
        "PROXY_PAGES_FILE: pages.outlet: token or token_file must be set",
        "PROXY_THREADS must be a whole number between 96 and 4096",
    ]
    file.unlink()
    assert mistakes(PAGES_FILE=str(file)) == [
        "PROXY_PAGES_FILE cannot be read: No such file or directory"
    ]


def test_with_several_pages_none_has_to_be_the_default_one(tmp_path: Path) -> None:
    """The token of PROXY_PAGE_TOKEN may be left out, and only then."""
    file = tmp_path / "pages.toml"
    file.write_text('[pages.shop]\ntoken = "EAASHOP"\n')

    assert read_settings({"PROXY_PAGES_FILE": str(file)}).page_token is None
    with pytest.raises(SettingsError) as raised:
        read_settings({})
    assert "PROXY_PAGES_FILE for several Pages" in str(raised.value)


def test_there_is_one_page_at_least(tmp_path: Path) -> None:
    """None by the file, and none by the token: nobody could be asked for."""
    file = tmp_path / "pages.toml"
    file.write_text("[pages]")

    assert settings(PAGES_FILE=str(file)).page_token
    with pytest.raises(SettingsError) as raised:
        read_settings({"PROXY_PAGES_FILE": str(file)})
    assert raised.value.mistakes == [
        "PROXY_PAGES_FILE holds no Page, and PROXY_PAGE_TOKEN is not set"
    ]


@pytest.mark.parametrize("of", ["", 'app_secret = "shopsecret"'])
def test_webhooks_need_a_secret_which_can_be_a_pages(tmp_path: Path, of: str) -> None:
    """Without any, nobody could ever sign one."""
    file = tmp_path / "pages.toml"
    file.write_text(f'[pages.shop]\ntoken = "EAASHOP"\n{of}\n')
    given = {"PAGES_FILE": str(file), "WEBHOOK_VERIFY_TOKEN": "word"}

    if of:
        assert settings(**given).webhook_verify_token is not None
    else:
        [told] = mistakes(**given)
        assert "a Page's app_secret must be" in told


@pytest.mark.parametrize("codes", ["551", "9010", "100/33,803", "12345", ","])
def test_codes_that_may_be_about_a_person_may_mean_blocked(codes: str) -> None:
    """An operator who has seen one can say so."""
    assert settings(BLOCKED_CODES=codes).blocked_codes is not None


def test_codes_that_are_not_about_a_person_may_not_mean_blocked() -> None:
    """They are told with all other mistakes, and the good ones are not."""
    told = mistakes(BLOCKED_CODES="551,190/463,4,100,100/33", THREADS="1")

    assert told == [
        "PROXY_THREADS must be a whole number between 96 and 4096",
        "PROXY_BLOCKED_CODES must not list 4, 100, 190: known to be about the token,"
        " the app, the quota or consent",
    ]


def test_a_file_of_keys_is_read_with_the_settings(tmp_path: Path) -> None:
    """One that is good is no mistake."""
    file = tmp_path / "api_keys"
    file.write_text(f"inbox read {'0' * 64}\n")

    assert settings(API_KEYS_FILE=str(file)).api_keys_file == file


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        (None, "cannot be read: No such file or directory"),
        ("", "holds no key: put in a line that `profile-proxy key new NAME` prints"),
        ("\nwhat is\n", "line 2: not 'name scopes sha256-of-key'"),
    ],
)
def test_a_bad_file_of_keys_is_told_with_all_other_mistakes(
    tmp_path: Path, content: str | None, mistake: str
) -> None:
    """One restart should be enough."""
    file = tmp_path / "api_keys"
    if content is not None:
        file.write_text(content)

    told = mistakes(API_KEYS_FILE=str(file), THREADS="1", ALLOW_ANONYMOUS="1")

    assert told == [
        "PROXY_THREADS must be a whole number between 96 and 4096",
        f"PROXY_API_KEYS_FILE {mistake}",
        "PROXY_ALLOW_ANONYMOUS=1 and PROXY_API_KEYS_FILE contradict each other:"
        " with keys, nobody is anonymous",
    ]
