"""JSON lines on stderr."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from proxy.logs import JsonLines, audited, last_four, log_access, write_to_stderr


@pytest.fixture
def logging_restored() -> Iterator[None]:
    """Restore the handlers and levels of the process after the test."""
    root, ours = logging.getLogger(), logging.getLogger("proxy")
    loggers = root, ours, logging.getLogger("proxy.logs")
    handlers, levels = root.handlers[:], [logger.level for logger in loggers]
    yield
    root.handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def a_record(
    message: str = "asked Meta", *args: object, **extra: object
) -> logging.LogRecord:
    """An INFO record as a logger makes it, with *extra* as its fields."""
    logger = logging.Logger("proxy.graph.client")
    return logger.makeRecord(
        logger.name, logging.INFO, __file__, 1, message, args, None, extra=extra
    )


def formatted(record: logging.LogRecord) -> dict[str, Any]:
    """The line of *record*, read back; it is one line."""
    line = JsonLines().format(record)
    assert "\n" not in line
    read = json.loads(line)
    assert isinstance(read, dict)
    return read


def test_record_is_one_line_with_its_fields() -> None:
    """A constant message, and the values beside it."""
    record = a_record(status=200, person="...7890", graph_version=None)

    line = formatted(record)

    del line["time"]
    assert line == {
        "pid": os.getpid(),
        "level": "info",
        "logger": "proxy.graph.client",
        "message": "asked Meta",
        "status": 200,
        "person": "...7890",
        "graph_version": None,
    }


def test_time_of_a_line_is_in_utc() -> None:
    """With the offset written out, so that no reader has to guess."""
    record = a_record()

    time = datetime.fromisoformat(formatted(record)["time"])

    assert time.utcoffset() == timedelta(0)
    assert time.timestamp() == pytest.approx(record.created, abs=0.002)


def test_message_is_formatted_with_its_arguments() -> None:
    """Libraries pass arguments this way."""
    line = formatted(a_record("tried %s times, %d left", "two", 3))

    assert line["message"] == "tried two times, 3 left"


@pytest.mark.parametrize(
    "text",
    ["two\nlines", "\r\n", "\u2028", '"quoted"', "\ud800", "\x00", "\N{SPARKLES}"],
)
def test_any_text_stays_on_its_line(text: str) -> None:
    """A caller cannot forge a line by the text of a request."""
    line = formatted(a_record(text, value=text))

    assert (line["message"], line["value"]) == (text, text)


def test_value_that_json_cannot_hold_is_written_as_text() -> None:
    """A line must not be lost because of one of its fields."""
    line = formatted(a_record(seconds=timedelta(seconds=2), codes={551}))

    assert (line["seconds"], line["codes"]) == ("0:00:02", "{551}")


def test_traceback_is_a_field_of_the_same_line() -> None:
    """Log collectors read line by line."""
    record = a_record("bug")
    try:
        raise RuntimeError("it broke")
    except RuntimeError:
        record.exc_info = sys.exc_info()

    line = formatted(record)

    assert line["traceback"].startswith("Traceback (most recent call last):\n")
    assert line["traceback"].endswith("RuntimeError: it broke")


def test_record_without_an_exception_has_no_traceback() -> None:
    """Not even an empty one."""
    assert "traceback" not in formatted(a_record())


@pytest.mark.parametrize(
    ("igsid", "shown"),
    [
        ("1254001234567890", "...7890"),
        ("12345", "...2345"),
        ("9" * 25, "...9999"),
    ],
)
def test_person_is_logged_by_the_last_four_digits(igsid: str, shown: str) -> None:
    """Enough to find a line again, not enough to identify the person."""
    assert last_four(igsid) == shown


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_own_records_are_written_from_the_level_up(
    level: str, written: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """To stderr, each as a line; stdout is for the output of a command."""
    write_to_stderr(level)

    for name in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("proxy.lookup.lookup"), name)("a hit")

    captured = capsys.readouterr()
    lines = [json.loads(line)["level"] for line in captured.err.splitlines()]
    assert (lines, captured.out) == (written, "")


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_audit_and_access_lines_are_written_at_every_level(
    level: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The access log has a setting of its own."""
    write_to_stderr(level)

    with audited("erase", by="ops"):
        pass
    log_access(
        igsid=None, status=200, cache_status=None, seconds=0, request_id="r", key="k"
    )

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines] == ["operator", "request"]


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize(
    "library", ["urllib3.connectionpool", "redis", "flask_caching"]
)
@pytest.mark.parametrize("level", ["debug", "info"])
def test_library_records_below_warning_are_dropped(
    level: str, library: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """At DEBUG they print whole URLs, and with them ids and proofs."""
    write_to_stderr(level)

    getattr(logging.getLogger(library), level)("GET /1254001234567890?appsecret_proof")

    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("logging_restored")
def test_library_warning_is_a_line_like_ours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One form for everything that is written."""
    write_to_stderr("info")

    logging.getLogger("werkzeug").warning("something is odd")

    assert json.loads(capsys.readouterr().err)["logger"] == "werkzeug"


@pytest.mark.usefixtures("logging_restored")
def test_second_setup_does_not_write_lines_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The parent and its workers both do, and some share a process."""
    write_to_stderr("info")
    write_to_stderr("info")

    logging.getLogger("proxy").info("once")

    assert len(capsys.readouterr().err.splitlines()) == 1
