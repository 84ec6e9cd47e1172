"""The commands, as an operator types them: what they print and how they exit."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import signal
import subprocess
from types import SimpleNamespace

import pytest

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


def run(stack: SimpleNamespace, *words: str, **more: str):
    env = {"PATH": os.environ["PATH"]}
    env |= {f"PROXY_{k}": v for k, v in stack.settings.items() if k != "LOG_LEVEL"}
    env |= {f"PROXY_{name}": value for name, value in more.items()}
    return subprocess.run(
        [BIN / "profile-proxy", *words],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_get_answers_from_the_store_of_the_settings(stack) -> None:
    """The same entry as the service's, and it says which store and Graph."""
    stack.service.get(f"/profiles/{ADA}")

    told = run(stack, "get", ADA, "--json")

    assert told.returncode == 0
    assert json.loads(told.stdout) == stack.service.get(f"/profiles/{ADA}").json()
    assert f"store {stack.settings['STORE_URL']}" in told.stderr
    assert f"Graph {stack.settings['GRAPH_URL']}/v25.0" in told.stderr
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
def test_get_exits_by_what_it_learned(stack, igsid, exit_code, word) -> None:
    """0 a profile, 1 a refusal, 2 misuse, 3 nobody could tell."""
    told = run(stack, "get", igsid)

    assert told.returncode == exit_code
    assert word in told.stdout + told.stderr


def test_erase_prints_a_receipt_and_leaves_an_audit_line(stack) -> None:
    """Both have the same id; the service asks Meta again."""
    stack.service.get(f"/profiles/{ADA}")

    told = run(stack, "erase", ADA, "--json")

    receipt = json.loads(told.stdout)
    assert told.returncode == 0
    assert receipt["was_there"]["entry"] is True
    (line,) = audit_lines(told.stderr)
    assert (line["id"], line["result"]) == (receipt["id"], "done")
    stack.service.get(f"/profiles/{ADA}")
    assert stack.meta.calls(ADA) == 2


def log_lines(stderr: str, message: str) -> list[dict]:
    lines = [json.loads(x) for x in stderr.splitlines() if x.startswith("{")]
    return [line for line in lines if line["message"] == message]


def audit_lines(stderr: str) -> list[dict]:
    return log_lines(stderr, "operator")


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


def test_flush_without_yes_asks_and_never_guesses(stack) -> None:
    """With nobody there to ask, nothing is removed."""
    stack.service.get(f"/profiles/{ADA}")

    told = run(stack, "flush", "all")

    assert told.returncode == 2
    assert "--yes" in told.stderr
    assert stack.redis.exists(f"pp:e:{{default:{ADA}}}")


@pytest.fixture
def shop(stack, tmp_path):
    """A file of Pages with one, whose Meta is the same as ours, and her entry there."""
    file = tmp_path / "pages.toml"
    file.write_text(
        f'[pages.shop]\ntoken = "{PAGE_TOKEN}"\napp_secret = "{APP_SECRET}"\n'
        f'url = "{stack.meta.url}"\n'
    )
    return {"PAGES_FILE": str(file)}


def test_the_commands_are_about_the_page_that_is_named(stack, shop) -> None:
    """Each with --page; a flush without it is of all Pages."""
    stack.service.get(f"/profiles/{ADA}")

    told = run(stack, "get", ADA, "--page", "shop", "--json", **shop)
    stats = run(stack, "stats", "--page", "shop", "--json", **shop)
    dry = run(stack, "flush", "all", "--dry-run", "--json", **shop)
    flushed = run(stack, "flush", "all", "--page", "shop", "--yes", "--json", **shop)
    run(stack, "get", ADA, "--page", "shop", **shop)
    erased = run(stack, "erase", ADA, "--page", "shop", "--json", **shop)

    assert json.loads(told.stdout)["name"] == "Ada Lovelace"
    assert f"Graph {stack.meta.url}/v25.0" in told.stderr
    assert json.loads(stats.stdout)["entries"]["profile"] == 1
    assert json.loads(dry.stdout)["matched"] == 2
    assert json.loads(flushed.stdout) == {"matched": 1, "deleted": 1}
    assert json.loads(erased.stdout)["was_there"]["entry"] is True
    assert [line["page"] for line in audit_lines(erased.stderr)] == ["shop"]
    assert list(stack.redis.scan_iter("pp:e:*")) == [f"pp:e:{{default:{ADA}}}".encode()]


@pytest.mark.parametrize(
    "words", [["get", ADA], ["erase", ADA], ["stats"], ["flush", "all", "--yes"]]
)
def test_a_command_about_a_page_that_is_none_exits_with_2(stack, shop, words) -> None:
    """And does nothing."""
    stack.service.get(f"/profiles/{ADA}")

    told = run(stack, *words, "--page", "shopp", **shop)

    assert told.returncode == 2
    assert "There is no such Page here." in told.stderr
    assert stack.redis.exists(f"pp:e:{{default:{ADA}}}")


def test_stats_tells_the_gates_and_what_is_stored(stack) -> None:
    """By kind, with what cannot be read; and it asks nobody."""
    for igsid in (ADA, BEN, CLEO):
        stack.service.get(f"/profiles/{igsid}")
    stack.redis.set("pp:e:{default:99999}", "nonsense", ex=60)
    calls = stack.meta.calls()

    told = run(stack, "stats", "--json")
    lines = run(stack, "stats").stdout.splitlines()

    stats = json.loads(told.stdout)
    assert told.returncode == 0
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


def test_top_tells_once_what_an_instance_does(stack) -> None:
    """Where nobody looks at a terminal; found by the same settings."""
    stack.service.get(f"/profiles/{ADA}")
    listen = f"0.0.0.0:{stack.service.port}"

    told = run(stack, "top", LISTEN=listen, ALLOW_ANONYMOUS="1")

    assert told.returncode == 0, told.stderr
    assert f"profile-proxy at {stack.service.url}\n" in told.stdout
    assert re.search(r"^lookups +[1-9]", told.stdout, re.MULTILINE)
    assert re.search("^gate +open$", told.stdout, re.MULTILINE)
    assert "\x1b" not in told.stdout


def test_top_goes_on_at_a_terminal_until_it_is_interrupted(stack) -> None:
    """It begins at the top of the screen each second, and ends well."""
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
    """And names where it has looked."""
    port = free_port()

    told = run(stack, "top", "--url", f"http://127.0.0.1:{port}")

    assert told.returncode == 3
    assert f"http://127.0.0.1:{port}: ConnectionError" in told.stderr
    assert "Traceback" not in told.stderr


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
    """And says what is wrong."""
    told = run(stack, *words)

    assert told.returncode == 2
    assert told.stderr


@pytest.mark.parametrize("words", [("erase", ADA), ("flush", "all", "--yes")])
def test_a_store_that_is_away_exits_with_3(stack, words) -> None:
    """Nothing is promised, and a script can tell; the attempt is on record."""
    told = run(stack, *words, STORE_URL=f"redis://:hunter2@127.0.0.1:{free_port()}/0")

    assert told.returncode == 3
    assert "store cannot be reached" in told.stderr
    (line,) = audit_lines(told.stderr)
    assert (line["action"], line["result"]) == (words[0], "store_unavailable")
    assert "hunter2" not in told.stdout + told.stderr


def test_the_log_tells_the_stores_trouble_from_metas(stack) -> None:
    """Both are away, each in its own way."""
    nobody = f"http://127.0.0.1:{free_port()}"

    told = run(stack, "get", ADA, STORE_URL="unix:///no/such.sock", GRAPH_URL=nobody)

    (store,) = log_lines(told.stderr, "store away")
    (call,) = log_lines(told.stderr, "asked Meta")
    assert store["error"] == "FileNotFoundError"
    assert (call["result"], call["error"]) == (
        "graph_unavailable",
        "ConnectionRefusedError",
    )


def test_stats_of_a_store_that_is_away_exits_with_3(stack) -> None:
    """There is nothing to tell, and no action to put on record."""
    told = run(stack, "stats", STORE_URL=f"redis://127.0.0.1:{free_port()}/0")

    assert told.returncode == 3
    assert "store cannot be reached" in told.stderr


@pytest.mark.parametrize(
    "words", [("get", ADA), ("erase", ADA), ("flush", "all"), ("stats",)]
)
def test_commands_start_no_engine_of_their_own(stack, words) -> None:
    """An empty engine would truthfully say that nobody is there."""
    told = run(stack, *words, STORE_URL="embedded:")

    assert told.returncode == 2
    assert "embedded:" in told.stderr


def test_the_line_of_a_new_key_can_be_appended_to_the_file(stack) -> None:
    """It is all that stdout has; the key is on the terminal and in no file."""
    told = run(stack, "key", "new", "inbox", "--scopes", "read,admin")

    (key,) = re.findall("^pp_.+$", told.stderr, re.MULTILINE)
    digest = hashlib.sha256(key.encode()).hexdigest()
    assert told.stdout == f"inbox read,admin {digest}\n"


def test_a_script_gets_a_new_key_and_its_line(stack) -> None:
    """From stdout, with nothing on stderr to be logged by mistake."""
    told = run(stack, "key", "new", "inbox", "--json")

    new = json.loads(told.stdout)
    digest = hashlib.sha256(new["key"].encode()).hexdigest()
    assert new["line"] == f"inbox read {digest}"
    assert told.stderr == ""


def test_config_tells_where_each_value_comes_from(stack) -> None:
    """Defaults, the environment and files; as a list for scripts."""
    told = run(stack, "config", "--json")

    shown = {row["name"]: row for row in json.loads(told.stdout)}
    assert told.returncode == 0
    assert shown["PROXY_GRAPH_TIMEOUT"]["source"] == "environment"
    assert shown["PROXY_PROFILE_TTL"] == {
        "name": "PROXY_PROFILE_TTL",
        "value": "1h",
        "source": "default",
    }
    assert shown["PROXY_PAGE_TOKEN"]["source"] == f"file {stack.token_file}"
    assert PAGE_TOKEN not in told.stdout


def test_config_shows_everything_and_then_what_is_wrong(stack) -> None:
    """The one command to type when a start is refused."""
    wrong = {"PROFIL_TTL": "1h", "GRAPH_TIMEOUT": "soon", "API_KEYS_FILE": "/missing"}

    told = run(stack, "config", WORKERS="0", **wrong)

    assert told.returncode == 2
    assert "PROXY_PROFILE_TTL" in told.stdout
    assert "PROXY_PROFIL_TTL is not a setting; did you mean PROXY_PROFILE_TTL?" in (
        told.stderr
    )
    assert len(told.stderr.splitlines()) == 4


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
def test_a_start_that_cannot_go_well_is_refused(stack, settings, words) -> None:
    """At once, with what to do, and with the code for settings."""
    told = run(stack, "run", **{"LISTEN": f"127.0.0.1:{free_port()}"} | settings)

    assert told.returncode == 2, told.stderr
    assert words in told.stderr
    assert "Traceback" not in told.stderr
