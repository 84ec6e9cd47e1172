"""Settings, checked against the files and the codes that they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config.settings import Settings, SettingsError
from proxy.live_files import read_settings


def settings(**env: str) -> Settings:
    """The settings as the service reads them, from a token and *env*.

    The names in *env* are without ``PROXY_``.
    """
    given = {f"PROXY_{name}": value for name, value in env.items()}
    return read_settings({"PROXY_PAGE_TOKEN": "EAATESTTOKEN"} | given)


def mistakes(**env: str) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        settings(**env)
    return raised.value.mistakes


def test_mistakes_in_the_pages_file_are_reported_with_all_others(
    tmp_path: Path,
) -> None:
    """Each by Page and key, without a value."""
    file = tmp_path / "pages.toml"
    file.write_text('[pages.shop]\ntoken = "two words"\n[pages.outlet]\n')

    found = mistakes(PAGES_FILE=str(file), THREADS="1")

    assert found == [
        "PROXY_PAGES_FILE: pages.shop.token must be a secret without blanks, and there"
        " is one in it",
        "PROXY_PAGES_FILE: pages.outlet: token or token_file must be set",
        "PROXY_THREADS must be a whole number between 96 and 4096, not '1'",
    ]
    file.unlink()
    assert mistakes(PAGES_FILE=str(file)) == [
        f"PROXY_PAGES_FILE={file} cannot be read: No such file or directory"
    ]


def test_page_token_may_be_left_out_with_a_pages_file(tmp_path: Path) -> None:
    """And only then."""
    file = tmp_path / "pages.toml"
    file.write_text('[pages.shop]\ntoken = "EAASHOP"\n')

    assert read_settings({"PROXY_PAGES_FILE": str(file)}).page_token is None
    with pytest.raises(SettingsError) as raised:
        read_settings({})
    assert "PROXY_PAGES_FILE for several Pages" in str(raised.value)


def test_settings_without_any_page_are_refused(tmp_path: Path) -> None:
    """With an empty file and no token, no request could be answered."""
    file = tmp_path / "pages.toml"
    file.write_text("[pages]")

    assert settings(PAGES_FILE=str(file)).page_token
    with pytest.raises(SettingsError) as raised:
        read_settings({"PROXY_PAGES_FILE": str(file)})
    assert raised.value.mistakes == [
        "PROXY_PAGES_FILE holds no Page, and PROXY_PAGE_TOKEN is not set"
    ]


@pytest.mark.parametrize("line", ["", 'app_secret = "shopsecret"'])
def test_webhooks_need_an_app_secret_which_may_be_a_pages(
    tmp_path: Path, line: str
) -> None:
    """Without any, no signature would be valid."""
    file = tmp_path / "pages.toml"
    file.write_text(f'[pages.shop]\ntoken = "EAASHOP"\n{line}\n')
    given = {"PAGES_FILE": str(file), "WEBHOOK_VERIFY_TOKEN": "word"}

    if line:
        assert settings(**given).webhook_verify_token is not None
    else:
        [found] = mistakes(**given)
        assert "a Page's app_secret must be" in found


@pytest.mark.parametrize(
    "codes",
    ["551", "551,200/1545041", "100/33", "9010/7,230/7", "2/7", "12345", ","],
)
def test_blocked_codes_may_list_an_unknown_code_or_a_subcode(codes: str) -> None:
    """An operator who has seen one can list it."""
    assert settings(BLOCKED_CODES=codes).blocked_codes is not None


def test_blocked_codes_must_not_list_codes_with_another_meaning() -> None:
    """They are reported with all other mistakes, without the valid codes."""
    found = mistakes(BLOCKED_CODES="551,190/463,4/1,9010,100/33", THREADS="1")

    assert found == [
        "PROXY_THREADS must be a whole number between 96 and 4096, not '1'",
        "PROXY_BLOCKED_CODES must not list 190/463, 4/1, 9010: a code of the token or"
        " the quota never means blocked, and a code that has another meaning here may"
        " only be listed with a subcode, as code/subcode",
    ]


def test_keys_file_is_read_with_the_settings(tmp_path: Path) -> None:
    """A valid one is not a mistake."""
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
def test_mistake_in_the_keys_file_is_reported_with_all_others(
    tmp_path: Path, content: str | None, mistake: str
) -> None:
    """One restart should be enough."""
    file = tmp_path / "api_keys"
    if content is not None:
        file.write_text(content)

    found = mistakes(API_KEYS_FILE=str(file), THREADS="1", ALLOW_ANONYMOUS="1")

    assert found == [
        "PROXY_THREADS must be a whole number between 96 and 4096, not '1'",
        f"PROXY_API_KEYS_FILE={file} {mistake}",
        "PROXY_ALLOW_ANONYMOUS=1 and PROXY_API_KEYS_FILE contradict each other:"
        " with keys, no caller is anonymous",
    ]
