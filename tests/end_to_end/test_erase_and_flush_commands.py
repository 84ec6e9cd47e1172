"""The commands that remove: on the store, and through a running instance."""

from __future__ import annotations

import json
import os
import pwd
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from proxy.cli.commands import main
from proxy.embedded import engine
from proxy.logs import last_four
from tests.helpers.commands import audit_lines, run, run_command
from tests.helpers.processes import ADA, BEN, CLEO, free_port

HERE = f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"


def is_stored(stack, igsid: str) -> bool:
    return bool(stack.redis.exists(f"pp:e:{{default:{igsid}}}"))


# On the store of the settings


def test_erase_prints_a_receipt_and_leaves_an_audit_line(stack) -> None:
    """Of where and by whom, in both; the service asks Meta again."""
    stack.service.get(f"/profiles/{ADA}")

    result = run(stack, "erase", ADA, "--json")

    receipt = json.loads(result.stdout)
    where = receipt["page"], receipt["key_prefix"], receipt["by"]
    assert (result.returncode, where) == (0, ("default", "pp", HERE))
    was_there = receipt["was_there"]
    assert was_there["entry"]
    assert not (was_there["lease"] or was_there["note"] or was_there["marker"])
    (line,) = audit_lines(result.stderr)
    assert line["result"] == "done"
    for name in ("id", "page", "key_prefix", "by", "was_there"):
        assert line[name] == receipt[name]
    stack.service.get(f"/profiles/{ADA}")
    assert stack.meta.calls(ADA) == 2


def test_erase_under_another_prefix_says_where_it_looked(stack) -> None:
    """As in a shell without the service's environment: no proof of an erasure."""
    stack.service.get(f"/profiles/{ADA}")

    result = run(stack, "erase", ADA, "--json", KEY_PREFIX="xx")

    receipt = json.loads(result.stdout)
    assert result.returncode == 1
    assert not any(receipt["was_there"].values())
    assert "Nothing was stored" in receipt["detail"]
    where = f"store {stack.settings['STORE_URL']}, key prefix xx, Page default."
    assert f"stored about {last_four(ADA)} in {where}" in result.stderr
    assert is_stored(stack, ADA)


def test_erase_in_another_store_says_where_it_looked(stack) -> None:
    """It names the store, too."""
    stack.service.get(f"/profiles/{ADA}")

    with engine.start() as other:
        result = run(stack, "erase", ADA, STORE_URL=other.url)

    assert result.returncode == 1
    assert f"in store {other.url}, key prefix pp" in result.stderr
    assert is_stored(stack, ADA)


def test_erase_on_another_page_exits_with_1(stack) -> None:
    """A person of the Page shop is not a person of the default Page."""
    shop = f"pp:e:{{shop:{ADA}}}"
    stack.redis.set(shop, "an entry", ex=60)

    result = run(stack, "erase", ADA)

    assert result.returncode == 1
    assert "Page default" in result.stderr
    assert stack.redis.exists(shop)


def test_marker_alone_counts_as_found(stack) -> None:
    """That a person has written lately is about the person, too."""
    stack.redis.set(f"pp:w:{{default:{ADA}}}", "1", ex=60)

    result = run(stack, "erase", ADA, "--json")

    assert result.returncode == 0
    assert json.loads(result.stdout)["was_there"]["marker"] is True


def test_erase_of_several_people_prints_a_receipt_for_each(stack) -> None:
    """By arguments or stdin; each once, and 1 if one of them was not there."""
    for igsid in (ADA, BEN, CLEO):
        stack.service.get(f"/profiles/{igsid}")

    two = run(stack, "erase", ADA, BEN, ADA, "--json")
    more = run(stack, "erase", "--stdin", "--json", stdin=f"{CLEO}\n\n {ADA}\n")

    receipts = [json.loads(line) for line in two.stdout.splitlines()]
    assert (two.returncode, [r["igsid"] for r in receipts]) == (0, [ADA, BEN])
    receipts = [json.loads(line) for line in more.stdout.splitlines()]
    assert [r["was_there"]["entry"] for r in receipts] == [True, False]
    assert more.returncode == 1
    assert f"stored about {last_four(ADA)}" in more.stderr
    assert f"stored about {last_four(CLEO)}" not in more.stderr


def test_ids_are_all_read_before_the_first_person_is_erased(stack) -> None:
    """A mistake in the list keeps all from being erased."""
    stack.service.get(f"/profiles/{ADA}")

    result = run(stack, "erase", "--stdin", stdin=f"{ADA}\nada\n")

    assert result.returncode == 2
    assert "Id 2 of 2: Invalid igsid" in result.stderr
    assert is_stored(stack, ADA)


@pytest.mark.parametrize(
    ("words", "stdin", "said"),
    [
        ((), "", "one or more IGSIDs, or --stdin"),
        (("--stdin", ADA), "", "one or more IGSIDs, or --stdin"),
        (("--stdin",), "\n", "no id on stdin"),
        ((ADA, "--key-file", __file__), "", "--key-file"),
        ((ADA, "--url", "x", "--key-file", "/nonexistent"), "", "the key alone"),
        *(
            ((ADA, "--url", url), "", "host:port")
            for url in (
                "ftp://x",
                "http://u:p@x:1",
                "x:99999",
                "http://x?k=1",
                "http://",
            )
        ),
    ],
)
def test_misuse_of_erase_exits_with_2(words, stdin, said) -> None:
    """User and query of a URL could hold a secret, which lists of processes show."""
    result = CliRunner().invoke(main, ["erase", *words], input=stdin)

    assert result.exit_code == 2
    assert said in result.output


def test_flush_prints_the_key_prefix_that_it_acts_on(stack) -> None:
    """Beside the store: a wrong one of either finds nothing."""
    result = run(stack, "flush", "all", "--dry-run", KEY_PREFIX="xx")

    assert "key prefix xx" in result.stderr


# Through a running instance


def through(guarded, *words: str, key: str | None):
    """Run a command with --url and no settings at all, as on an operator's laptop."""
    env = {"PROXY_API_KEY": key} if key else {}
    return run_command(*words, "--url", guarded.service.url, env=env)


def test_erase_through_an_instance_is_in_its_log(stack, guarded) -> None:
    """With the name of the API key; the command needs no settings of the service."""
    stack.service.get(f"/profiles/{ADA}")

    result = through(guarded, "erase", ADA, "--json", key=guarded.ops)

    assert result.returncode == 0, result.stderr
    receipt = json.loads(result.stdout)
    assert (receipt["by"], receipt["was_there"]["entry"]) == ("ops", True)
    assert not is_stored(stack, ADA)
    line = audit_lines(guarded.service.log())[-1]
    assert (line["id"], line["by"]) == (receipt["id"], "ops")
    assert not audit_lines(result.stderr)
    assert guarded.ops not in result.stdout + result.stderr


def test_erase_through_an_instance_that_found_nothing_exits_with_1(
    stack, guarded
) -> None:
    """It says which instance, prefix and Page."""
    result = through(guarded, "erase", ADA, key=guarded.ops)

    assert result.returncode == 1
    where = f"the instance at {guarded.service.url}, key prefix pp, Page default"
    assert where in result.stderr
    assert "--url" not in result.stderr


@pytest.mark.parametrize(
    ("options", "pages"), [((), "all Pages"), (("--page", "default"), "Page default")]
)
def test_flush_that_matches_nothing_says_where_it_looked(
    stack, guarded, options, pages
) -> None:
    """It exits with 0: there may be nothing to remove."""
    words = "flush", "blocked", "--yes", "--json", *options

    direct = run(stack, *words)
    through_it = through(guarded, *words, key=guarded.ops)

    where = f"store {stack.settings['STORE_URL']}, key prefix pp"
    assert f"Nothing matched in {where}, {pages}." in direct.stderr
    where = f"the instance at {guarded.service.url}"
    assert f"Nothing matched in {where}, {pages}." in through_it.stderr
    assert (direct.returncode, through_it.returncode) == (0, 0)
    assert json.loads(direct.stdout) == {"matched": 0, "deleted": 0}


def test_flush_through_an_instance_is_in_its_log(stack, guarded, tmp_path) -> None:
    """The key comes from a file here."""
    for igsid in (ADA, BEN):
        stack.service.get(f"/profiles/{igsid}")
    file = tmp_path / "key"
    file.write_text(guarded.ops + "\n")
    words = "flush", "refusals", "--yes", "--json", "--key-file", str(file)

    result = through(guarded, *words, key=None)

    assert json.loads(result.stdout) == {"matched": 1, "deleted": 1}
    assert is_stored(stack, ADA)
    line = audit_lines(guarded.service.log())[-1]
    assert (line["action"], line["by"], line["deleted"]) == ("flush", "ops", 1)


def test_key_of_commands_is_no_mistake_in_the_settings(stack) -> None:
    """A shell that has it exported can use every command."""
    result = run(stack, "stats", API_KEY="pp_x")

    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (None, "wants an API key"),
        ("pp_unknown", "does not know the API key in PROXY_API_KEY"),
        ("two words", "PROXY_API_KEY must be"),
        ("inbox", "scope_missing: This request needs the scope admin"),
    ],
)
def test_instance_that_refuses_the_key_is_told(stack, guarded, key, said) -> None:
    """With what to do, and without the key."""
    stack.service.get(f"/profiles/{ADA}")
    key = guarded.inbox if key == "inbox" else key

    result = through(guarded, "erase", ADA, key=key)

    assert result.returncode == 2
    assert said in result.stderr
    assert result.stdout == ""
    assert key is None or key not in result.stderr
    assert is_stored(stack, ADA)


@pytest.mark.parametrize("words", [("erase", ADA), ("flush", "all", "--yes")])
def test_page_that_an_instance_does_not_have_exits_with_2(guarded, words) -> None:
    """The instance's own words are shown."""
    result = through(guarded, *words, "--page", "shop", key=guarded.ops)

    assert result.returncode == 2
    assert "unknown_page: There is no such Page here" in result.stderr


@contextmanager
def another_service(
    status: int, body: bytes, *, more: int = 0, **headers: str
) -> Iterator[str]:
    """Run a server that answers every DELETE alike, and yield its address.

    It announces *more* bytes than it sends.
    """

    class Answer(BaseHTTPRequestHandler):
        def do_DELETE(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) + more))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "exit_code"),
    [
        (200, b"<html>Welcome to nginx!</html>", 2),
        (200, b'{"status": "ok"}', 2),
        (200, b'{"igsid": "1254001000000001", "id": "x", "was_there": "no"}', 2),
        (200, b"[" * 5000, 2),
        (502, b"<html>Bad Gateway</html>", 3),
    ],
)
def test_answer_that_is_no_receipt_is_a_failure(status, body, exit_code) -> None:
    """A 200 of another service must not pass for an erasure."""
    with another_service(status, body) as address:
        result = run_command("erase", ADA, "--url", address)

    assert result.returncode == exit_code
    assert f"answers at http://{address}: {status}" in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("more", "headers"), [(400, {}), (0, {"Content-Encoding": "gzip"})]
)
def test_answer_that_breaks_off_is_no_answer(more, headers) -> None:
    """1 would say that nothing was stored, and the person may be erased or not."""
    with another_service(200, b'{"igsid"', more=more, **headers) as address:
        result = run_command("erase", ADA, "--url", address)

    assert result.returncode == 3
    assert f"No instance answers at http://{address}" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("page", ["..", "%2e%2e", ""])
def test_name_that_no_page_can_have_asks_nobody(page) -> None:
    """In a path, dots would lead to the default Page, whose person would be erased."""
    result = run_command("erase", ADA, "--url", "127.0.0.1:1", "--page", page)

    assert result.returncode == 2
    assert "There is no such Page" in result.stderr


def test_redirect_is_not_followed() -> None:
    """It would take the key along, perhaps to another service."""
    with another_service(307, b"", Location="http://192.0.2.1/") as address:
        result = run_command("erase", ADA, "--url", address)

    assert result.returncode == 2
    assert f"answers at http://{address}: 307" in result.stderr


def test_instance_that_cannot_be_reached_exits_with_3() -> None:
    """It says what to look at, and who is not erased."""
    port = free_port()

    result = run_command("erase", ADA, BEN, "--url", f"127.0.0.1:{port}")

    assert result.returncode == 3
    assert f"No instance answers at http://127.0.0.1:{port}" in result.stderr
    assert "0 of 2 are erased" in result.stderr
    assert "Traceback" not in result.stderr
