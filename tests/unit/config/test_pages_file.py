"""The file of Pages: what it may say, and what is told of what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config.pages_file import MOST_PAGES, BadPages, PageSettings, read_pages
from proxy.config.readers import Secret

TOKEN = "EAASHOPTOKEN0123456789"
SECRET = "shopsecret0123456789"


def mistakes(text: str) -> list[str]:
    with pytest.raises(BadPages) as raised:
        read_pages(text)
    return raised.value.mistakes


def test_a_page_has_a_token_and_may_have_more(tmp_path: Path) -> None:
    """What it leaves out is None, or nothing."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")

    pages = read_pages(
        f"""
        [pages.shop]
        token_file = "{file}"
        app_secret = "{SECRET}"
        url = "https://graph.instagram.com/"
        ids = ["17841400000000001", "27841400000000001", "17841400000000001"]

        [pages.outlet-2]
        token = "{TOKEN}"
        """
    )

    assert pages == {
        "shop": PageSettings(
            Secret(TOKEN, file),
            Secret(SECRET, None),
            "https://graph.instagram.com",
            ("17841400000000001", "27841400000000001"),
        ),
        "outlet-2": PageSettings(Secret(TOKEN, None), None, None, ()),
    }


def test_no_secret_is_in_the_repr() -> None:
    """Of what ends up in a traceback, say."""
    pages = read_pages(f'[pages.a]\ntoken = "{TOKEN}"\napp_secret = "{SECRET}"')

    assert TOKEN not in repr(pages)
    assert SECRET not in repr(pages)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    """By the names of the Page and the key; one look at the file should be enough."""
    told = mistakes(
        f"""
        page = 1
        [pages.shop]
        tokn = "{TOKEN}"
        url = "http://graph.facebook.com"
        [pages.outlet]
        token = "two words"
        token_file = "x"
        app_secret = 17
        ids = [17841400000000001]
        [pages.cafe]
        token_file = "{tmp_path}/none"
        """
    )

    assert told == [
        "page is not a key; did you mean pages?",
        "pages.shop: tokn is not a key; did you mean token?",
        "pages.shop: token or token_file must be set",
        "pages.shop.url must be https for Meta's own hosts: the token must not go in"
        " clear",
        "pages.outlet: token and token_file are both set; keep one",
        "pages.outlet.app_secret must be a string",
        'pages.outlet.ids must be a list of digits in quotes: ["17841400000000000"]',
        "pages.cafe.token_file cannot be read: No such file or directory",
    ]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (
            "",
            "holds no Page: put in a table [pages.NAME], or [pages] if there is none",
        ),
        ("pages = 1", "pages must be tables: [pages.NAME]"),
        ("[pages]\nshop = 1", "pages.shop: must be a table: [pages.shop]"),
        ('[pages.Shop]\ntoken="x"', "pages.'Shop': a name is 1 to 32 of a-z 0-9 -"),
        ('[pages."a:b"]\ntoken="x"', "pages.'a:b': a name is 1 to 32 of a-z 0-9 -"),
        (
            '[pages.default]\ntoken="x"',
            "pages.default: this is the name of PROXY_PAGE_TOKEN's; choose another",
        ),
        (
            '[pages.a]\ntoken="x"\nids=["1"]\n[pages.b]\ntoken="y"\nids=["1"]',
            "pages.b.ids: 1 is one of pages.a too",
        ),
        ('[pages.a]\ntoken=""', None),
        ("[pages.a]\ntoken=x", "is not TOML: look at line 2, column 7"),
    ],
)
def test_a_mistake_is_told_by_its_place(text: str, mistake: str | None) -> None:
    """With what to do about it."""
    rule = "pages.a.token must be printable ASCII without spaces, and not empty"

    assert mistakes(text) == [mistake or rule]


def test_that_there_is_no_page_is_said_with_a_word() -> None:
    """A file that is empty can be one that was cut off."""
    assert read_pages("[pages]") == {}


@pytest.mark.parametrize(
    "text",
    [
        f'[pages.a]\ntoken = "{TOKEN} {SECRET}"',
        f'[pages.a]\ntoken = {{x = "{TOKEN}"}}',
        f"[pages.a]\ntoken = {TOKEN}",
        f'[pages.a]\ntoken = "{TOKEN}\n"',
        f'[pages.a]\ntoken = "x"\nurl = "https://{TOKEN}@host"',
        f'[pages.a]\ntoken = "x"\nids = ["{TOKEN}"]',
    ],
)
def test_no_value_is_told(text: str) -> None:
    """Whatever stands in the wrong place may be a secret."""
    told = "\n".join(mistakes(text))

    assert told
    assert TOKEN not in told


def test_what_is_too_deep_to_be_read_is_a_mistake() -> None:
    told = mistakes("a = " + "[" * 100_000)

    assert told == ["has brackets within brackets, too deep to be read"]


def test_there_are_only_so_many() -> None:
    """Each costs something at each scrape."""
    tables = [f'[pages.p{n}]\ntoken = "x"' for n in range(MOST_PAGES + 1)]

    assert len(read_pages("\n".join(tables[:-1]))) == MOST_PAGES
    assert mistakes("\n".join(tables)) == [f"holds {MOST_PAGES + 1} Pages; 100 at most"]


@pytest.mark.parametrize(
    ("url", "is_in_clear"),
    [
        ("http://meta.test:9100", True),
        ("http://127.0.0.1:9100", False),
        ("https://graph.instagram.com", False),
        (None, False),
    ],
)
def test_a_token_that_goes_in_clear_is_known(
    url: str | None, is_in_clear: bool
) -> None:
    """On this machine nobody listens in."""
    assert PageSettings(Secret("x", None), None, url, ()).is_in_clear is is_in_clear
