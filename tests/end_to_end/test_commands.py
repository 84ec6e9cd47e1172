"""The commands, as an operator types them: their output and their exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess

import pytest

from tests.helpers.commands import audit_lines, log_lines, run
from tests.helpers.processes import (
    ADA,
    APP_SECRET,
    BEN,
    BIN,
    CLEO,
    HANA,
    PAGE_TOKEN,
    free_port,
)


def test_get_answers_from_the_store_of_the_settings(stack) -> None:
    """With the same entry as the service; it prints the store and the Graph."""
    stack.service.get(f"/profiles/{ADA}")

    result = run(stack, "get", ADA, "--json")

    assert result.returncode == 0
    assert json.loads(result.stdout) == stack.service.get(f"/profiles/{ADA}").json()
    assert f"store {stack.settings['STORE_URL']}" in result.stderr
    assert f"Graph {stack.settings['GRAPH_URL']}/v25.0" in result.stderr
    assert stack.meta.calls(ADA) == 1


@pytest.mark.parametrize(
    ("igsid", "exit_code", "word"),
    [
        (ADA, 0, "Ada Lovelace"),
        (BEN, 1, "consent_required"),
        (CLEO, 1, "not_found"),
        (HANA, 3, "graph_timeout"),
        ("12x", 2, "5 to 25"),
    ],
)
def test_get_exits_by_the_outcome(stack, igsid, exit_code, word) -> None:
    """0 a profile, 1 a refusal, 2 misuse, 3 a failure."""
    result = run(stack, "get", igsid)

    assert result.returncode == exit_code
    assert word in result.stdout + result.stderr


def test_flush_counts_and_removes(stack) -> None:
    """A dry run first, then the real one; by reason and by age."""
    for igsid in (ADA, BEN, CLEO):
        stack.service.get(f"/profiles/{igsid}")

    dry = run(stack, "flush", "refusals", "--dry-run", "--json")
    old = run(stack, "flush", "all", "--older-than", "1h", "--yes", "--json")
    real = run(stack, "flush", "refusals", "--yes", "--json")

    assert json.loads(dry.stdout) == {"matched": 2, "deleted": 0}
    assert json.loads(old.stdout) == {"matched": 0, "deleted": 0}
    assert json.loads(real.stdout) == {"matched": 2, "deleted": 2}
    assert len(list(stack.redis.scan_iter("pp:e:*"))) == 1


def test_flush_without_yes_and_terminal_is_refused(stack) -> None:
    """Nothing is removed without an answer."""
    stack.service.get(f"/profiles/{ADA}")

    result = run(stack, "flush", "all")

    assert result.returncode == 2
    assert "--yes" in result.stderr
    assert stack.redis.exists(f"pp:e:{{default:{ADA}}}")


@pytest.fixture
def shop(stack, tmp_path):
    """A file with the Page ``shop``, which asks the same simulated Meta."""
    file = tmp_path / "pages.toml"
    file.write_text(
        f'[pages.shop]\ntoken = "{PAGE_TOKEN}"\napp_secret = "{APP_SECRET}"\n'
        f'url = "{stack.meta.url}"\n'
    )
    return {"PAGES_FILE": str(file)}


def test_page_option_selects_the_page_of_each_command(stack, shop) -> None:
    """A flush without --page is of all Pages."""
    stack.service.get(f"/profiles/{ADA}")

    result = run(stack, "get", ADA, "--page", "shop", "--json", **shop)
    stats = run(stack, "stats", "--page", "shop", "--json", **shop)
    dry = run(stack, "flush", "all", "--dry-run", "--json", **shop)
    flushed = run(stack, "flush", "all", "--page", "shop", "--yes", "--json", **shop)
    run(stack, "get", ADA, "--page", "shop", **shop)
    erased = run(stack, "erase", ADA, "--page", "shop", "--json", **shop)

    assert json.loads(result.stdout)["name"] == "Ada Lovelace"
    assert f"Graph {stack.meta.url}/v25.0" in result.stderr
    assert json.loads(stats.stdout)["entries"]["profile"] == 1
    assert json.loads(dry.stdout)["matched"] == 2
    assert json.loads(flushed.stdout) == {"matched": 1, "deleted": 1}
    assert json.loads(erased.stdout)["was_there"]["entry"] is True
    assert [line["page"] for line in audit_lines(erased.stderr)] == ["shop"]
    assert list(stack.redis.scan_iter("pp:e:*")) == [f"pp:e:{{default:{ADA}}}".encode()]


@pytest.mark.parametrize(
    "words", [["get", ADA], ["erase", ADA], ["stats"], ["flush", "all", "--yes"]]
)
def test_command_about_an_unknown_page_exits_with_2(stack, shop, words) -> None:
    """And changes nothing."""
    stack.service.get(f"/profiles/{ADA}")

    result = run(stack, *words, "--page", "shopp", **shop)

    assert result.returncode == 2
    assert "There is no such Page here" in result.stderr
    assert stack.redis.exists(f"pp:e:{{default:{ADA}}}")


def test_stats_prints_the_gates_and_the_entries(stack) -> None:
    """By kind, with the unreadable ones; it makes no call to Meta."""
    for igsid in (ADA, BEN, CLEO):
        stack.service.get(f"/profiles/{igsid}")
    stack.redis.set("pp:e:{default:99999}", "nonsense", ex=60)
    calls = stack.meta.calls()

    result = run(stack, "stats", "--json")
    lines = run(stack, "stats").stdout.splitlines()

    stats = json.loads(result.stdout)
    assert result.returncode == 0
    assert stats["entries"] == {
        "profile": 1,
        "consent_required": 1,
        "blocked": 0,
        "not_found": 1,
        "unavailable": 0,
        "unreadable": 1,
    }
    assert stats["entries_complete"] is True
    assert stats["gates"]["throttled"]["closed_for"] == 0
    assert ["entries.profile", "1"] in [line.split() for line in lines]
    assert stack.meta.calls() == calls


def test_top_prints_once_without_a_terminal(stack) -> None:
    """Of the instance that the same settings name."""
    stack.service.get(f"/profiles/{ADA}")
    listen = f"0.0.0.0:{stack.service.port}"

    result = run(stack, "top", LISTEN=listen, ALLOW_ANONYMOUS="1")

    assert result.returncode == 0, result.stderr
    assert f"profile-proxy at {stack.service.url}\n" in result.stdout
    assert re.search(r"^lookups +[1-9]", result.stdout, re.MULTILINE)
    assert re.search("^gate +open$", result.stdout, re.MULTILINE)
    assert "\x1b" not in result.stdout


def test_top_repeats_at_a_terminal_until_it_is_interrupted(stack) -> None:
    """It redraws the screen each second, and exits with 0."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [
            *(BIN / "profile-proxy", "top"),
            *("--url", stack.service.url.removeprefix("http://")),
        ],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
    )
    os.close(theirs)
    shown = b""
    while shown.count(b"\x1b[H\x1b[J") < 3:
        shown += os.read(ours, 4096)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=20)
    os.close(ours)

    assert (running.returncode, errors) == (0, b"")
    assert re.search(rb"lookups +[0-9,]+ +[0-9.,]+/s", shown)


def test_top_without_an_instance_exits_with_3(stack) -> None:
    """And prints the URL that it tried."""
    port = free_port()

    result = run(stack, "top", "--url", f"http://127.0.0.1:{port}")

    assert result.returncode == 3
    assert f"http://127.0.0.1:{port}: ConnectionError" in result.stderr
    assert "--url" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("flush", "everything"),
        ("flush", "all", "--older-than", "soon"),
        ("key", "new", "a name"),
        ("key", "new", "x", "--scopes", "write"),
        ("nonsense",),
    ],
)
def test_misuse_exits_with_2(stack, words) -> None:
    """And prints the mistake."""
    result = run(stack, *words)

    assert result.returncode == 2
    assert result.stderr


@pytest.mark.parametrize("words", [("erase", ADA), ("flush", "all", "--yes")])
def test_erase_and_flush_without_a_store_exit_with_3(stack, words) -> None:
    """A script can detect it, and the attempt has an audit line."""
    result = run(stack, *words, STORE_URL=f"redis://:hunter2@127.0.0.1:{free_port()}/0")

    assert result.returncode == 3
    assert "store cannot be reached" in result.stderr
    (line,) = audit_lines(result.stderr)
    assert (line["action"], line["result"]) == (words[0], "store_unavailable")
    assert "hunter2" not in result.stdout + result.stderr


def test_log_distinguishes_a_failed_store_from_a_failed_meta(stack) -> None:
    """Both are away, each with an error of its own."""
    no_meta = f"http://127.0.0.1:{free_port()}"

    result = run(stack, "get", ADA, STORE_URL="unix:///no/such.sock", GRAPH_URL=no_meta)

    (store,) = log_lines(result.stderr, "store away")
    (call,) = log_lines(result.stderr, "asked Meta")
    assert store["error"] == "FileNotFoundError"
    assert (call["result"], call["error"]) == (
        "graph_unavailable",
        "ConnectionRefusedError",
    )


def test_stats_without_a_store_exits_with_3(stack) -> None:
    """There is nothing to print, and no action to audit; it says where to look."""
    result = run(stack, "stats", STORE_URL=f"redis://127.0.0.1:{free_port()}/0")

    assert result.returncode == 3
    assert "store cannot be reached" in result.stderr
    assert "PROXY_STORE_URL" in result.stderr


@pytest.mark.parametrize("words", [(), ("gate",), ("key",)])
def test_help_has_each_command_in_whole_sentences(stack, words) -> None:
    """Click cuts those that do not fit into a line of 80."""
    result = run(stack, *words, "--help")

    _, _, commands = result.stdout.partition("Commands:\n")
    assert commands
    assert [line for line in commands.splitlines() if not line.endswith(".")] == []
    assert "..." not in commands


# From the store alone


def test_get_only_if_cached_prints_what_is_stored(stack) -> None:
    """As the service would, with the same exit codes, and never asks Meta."""
    for igsid in (ADA, BEN):
        stack.service.get(f"/profiles/{igsid}")
    calls = stack.meta.calls()

    ada = run(stack, "get", ADA, "--only-if-cached", "--json")
    ben = run(stack, "get", BEN, "--only-if-cached", "--json")

    assert json.loads(ada.stdout)["name"] == "Ada Lovelace"
    assert (ben.returncode, json.loads(ben.stdout)["code"]) == (1, "consent_required")
    assert stack.meta.calls() == calls


def test_get_only_if_cached_asks_nobody_and_stores_nothing(stack) -> None:
    """That nothing is stored is the answer then, with exit code 1."""
    result = run(stack, "get", ADA, "--only-if-cached")

    assert result.returncode == 1
    assert "not_cached" in result.stdout
    assert "No usable entry is stored on the Page default" in result.stderr
    assert stack.meta.calls() == 0
    assert list(stack.redis.scan_iter(f"*{ADA}*")) == []


def test_get_only_if_cached_does_not_refresh_a_stale_entry(stack) -> None:
    """It is usable, so it is printed, and left as it is."""
    stack.service.get(f"/profiles/{ADA}")
    key = f"pp:e:{{default:{ADA}}}"
    stored = json.loads(stack.redis.get(key))
    stored[3] = stored[2]  # Fresh until it was fetched.
    stack.redis.set(key, json.dumps(stored), px=60_000)
    before = stack.redis.get(key)

    result = run(stack, "get", ADA, "--only-if-cached", "--json")

    assert json.loads(result.stdout)["name"] == "Ada Lovelace"
    assert stack.meta.calls(ADA) == 1
    assert stack.redis.get(key) == before
    assert list(stack.redis.scan_iter(f"*{ADA}*")) == [key.encode()]


def test_get_only_if_cached_without_a_store_exits_with_3(stack) -> None:
    """Nothing is known then, which differs from nothing stored."""
    away = f"redis://127.0.0.1:{free_port()}/0"

    result = run(stack, "get", ADA, "--only-if-cached", STORE_URL=away)

    assert result.returncode == 3
    assert stack.meta.calls() == 0


@pytest.mark.parametrize(
    "words", [("get", ADA), ("erase", ADA), ("flush", "all"), ("stats",)]
)
def test_commands_start_no_engine_of_their_own(stack, words) -> None:
    """An empty engine would report that no entry exists."""
    result = run(stack, *words, STORE_URL="embedded:")

    assert result.returncode == 2
    assert "embedded:" in result.stderr


def test_config_prints_the_source_of_each_value(stack) -> None:
    """Defaults, the environment and files; as a list for scripts."""
    result = run(stack, "config", "--json")

    shown = {row["name"]: row for row in json.loads(result.stdout)}
    assert result.returncode == 0
    assert shown["PROXY_GRAPH_TIMEOUT"]["source"] == "environment"
    assert shown["PROXY_PROFILE_TTL"] == {
        "name": "PROXY_PROFILE_TTL",
        "value": "1h",
        "source": "default",
    }
    assert shown["PROXY_PAGE_TOKEN"]["source"] == f"file {stack.token_file}"
    assert PAGE_TOKEN not in result.stdout


def test_config_prints_every_value_and_then_the_mistakes(stack) -> None:
    """The one command to type when a start is refused."""
    wrong = {"PROFIL_TTL": "1h", "GRAPH_TIMEOUT": "soon", "API_KEYS_FILE": "/missing"}

    result = run(stack, "config", WORKERS="0", **wrong)

    assert result.returncode == 2
    assert "PROXY_PROFILE_TTL" in result.stdout
    assert "PROXY_PROFIL_TTL is not a setting; did you mean PROXY_PROFILE_TTL?" in (
        result.stderr
    )
    assert len(result.stderr.splitlines()) == 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"LISTEN": "0.0.0.0:8080"}, "PROXY_API_KEYS_FILE"),
        ({"API_KEYS_FILE": "/nonexistent"}, "cannot be read"),
        ({"API_KEYS_FILE": "/dev/null"}, "holds no key"),
        ({"PAGE_TOKEN": "EAA"}, "both set"),
        ({"GRAPH_URL": "http://graph.facebook.com"}, "https"),
        ({"STORE_URL": "memcached://x"}, "PROXY_STORE_URL"),
    ],
)
def test_run_with_invalid_settings_is_refused(stack, settings, words) -> None:
    """At once, with the remedy and the exit code for settings."""
    result = run(stack, "run", **{"LISTEN": f"127.0.0.1:{free_port()}"} | settings)

    assert result.returncode == 2, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr
