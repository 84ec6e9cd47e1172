"""The file of Pages: what it may hold, and the mistakes that are reported."""

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


def test_page_needs_a_token_and_may_have_more(tmp_path: Path) -> None:
    """Keys that are left out are None or empty."""
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


def test_repr_of_pages_shows_no_secret() -> None:
    """It may end up in a traceback."""
    pages = read_pages(f'[pages.a]\ntoken = "{TOKEN}"\napp_secret = "{SECRET}"')

    assert TOKEN not in repr(pages)
    assert SECRET not in repr(pages)


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    """By the names of the Page and the key; one edit of the file should be enough."""
    found = mistakes(
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

    assert found == [
        "page is not a key; did you mean pages?",
        "pages.shop: tokn is not a key; did you mean token?",
        "pages.shop: token or token_file must be set",
        "pages.shop.url must be https for Meta's own hosts: no token may be sent"
        " unencrypted",
        "pages.outlet: token and token_file are both set; keep one",
        "pages.outlet.app_secret must be a string",
        'pages.outlet.ids must be a list of digits in quotes: ["17841400000000000"]',
        f"pages.cafe.token_file={tmp_path}/none cannot be read: No such file or"
        " directory",
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
        (
            '[pages.a]\ntoken="x"\nurl="https://graph.instagram.com/v25.0"',
            "pages.a.url must be without a version (PROXY_GRAPH_VERSION has it)",
        ),
        (
            "[pages.a]\ntoken='\"x\"'",
            "pages.a.token must be a secret without quotes around it",
        ),
        ("[pages.a]\ntoken=x", "is not TOML: look at line 2, column 7"),
    ],
)
def test_mistake_names_its_place_and_the_remedy(text: str, mistake: str | None) -> None:
    """By Page and key, or by line and column."""
    rule = "pages.a.token must be printable ASCII without spaces, and not empty"

    assert mistakes(text) == [mistake or rule]


def test_empty_pages_table_means_no_pages() -> None:
    """An empty file is a mistake, because it may be a truncated one."""
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
def test_no_mistake_quotes_a_value(text: str) -> None:
    """A value in the wrong place may be a secret."""
    found = "\n".join(mistakes(text))

    assert found
    assert TOKEN not in found


def test_brackets_nested_too_deep_are_a_mistake() -> None:
    found = mistakes("a = " + "[" * 100_000)

    assert found == ["has brackets within brackets, too deep to be read"]


def test_pages_are_limited_to_100() -> None:
    """Each one costs a trip to the store at each scrape."""
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
def test_page_is_in_clear_if_its_token_leaves_without_tls(
    url: str | None, is_in_clear: bool
) -> None:
    """Traffic within this machine cannot be overheard."""
    assert PageSettings(Secret("x", None), None, url, ()).is_in_clear is is_in_clear
