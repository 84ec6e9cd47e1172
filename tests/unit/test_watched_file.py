"""A file whose content may change while the service runs."""

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy.watched_file import MAX_BYTES, READ_EVERY, BadFile, WatchedFile

SECRET = "hunter2"


class Clock:
    """A clock that moves only when a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "words"
    path.write_text("one")
    return path


def words(text: str) -> list[str]:
    """The words of *text*; "bad" is not a word."""
    if "bad" in text:
        raise BadFile("line 1: not a word")
    return text.split()


def watch(path: Path, clock: Clock) -> WatchedFile[list[str]]:
    return WatchedFile(path, words, clock)


def test_file_is_read_on_creation(path: Path, clock: Clock) -> None:
    """There is a value from the start."""
    file = watch(path, clock)

    assert file.value() == ["one"]
    assert file.problem is None


def test_change_is_seen_two_seconds_after_the_last_read(
    path: Path, clock: Clock
) -> None:
    """And not before, because each read costs a read of the disk."""
    file = watch(path, clock)
    path.write_text("two")

    clock.move(1.999)
    before = file.value()
    clock.move(0.001)

    assert before == ["one"]
    assert file.value() == ["two"]


def test_interval_starts_again_with_every_read(path: Path, clock: Clock) -> None:
    """Also with one that found no change."""
    file = watch(path, clock)
    clock.move(READ_EVERY)
    file.value()
    path.write_text("two")

    clock.move(READ_EVERY - 0.001)

    assert file.value() == ["one"]


def test_change_is_detected_by_content_and_not_by_timestamp(
    path: Path, clock: Clock
) -> None:
    """Two writes can share a timestamp, and a link keeps the one of its target."""
    file = watch(path, clock)
    written = path.stat()
    path.write_text("two")
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))

    clock.move(READ_EVERY)

    assert file.value() == ["two"]


def test_link_with_another_target_is_a_change(
    tmp_path: Path, path: Path, clock: Clock
) -> None:
    """This is how Kubernetes replaces a secret."""
    link, other = tmp_path / "link", tmp_path / "other"
    other.write_text("two")
    link.symlink_to(path)
    file = watch(link, clock)

    link.unlink()
    link.symlink_to(other)
    clock.move(READ_EVERY)

    assert file.value() == ["two"]


def test_unchanged_content_is_not_parsed_again(path: Path, clock: Clock) -> None:
    """Keys are not parsed every two seconds."""
    file = watch(path, clock)
    first = file.value()

    clock.move(READ_EVERY)

    assert file.value() is first


def spoil(path: Path) -> None:
    path.write_text("bad")


def remove(path: Path) -> None:
    path.unlink()


def make_a_folder_of(path: Path) -> None:
    path.unlink()
    path.mkdir()


def bloat(path: Path) -> None:
    path.write_bytes(b"x" * (MAX_BYTES + 1))


def garble(path: Path) -> None:
    path.write_bytes(b"one \xff")


BAD_WAYS = [
    (spoil, "line 1: not a word"),
    (remove, "cannot be read: No such file or directory"),
    (make_a_folder_of, "cannot be read: Is a directory"),
    (bloat, "is larger than 1 MiB"),
    (garble, "is not UTF-8 text"),
]

every_bad_way = pytest.mark.parametrize(
    ("go_bad", "problem"), BAD_WAYS, ids=[way.__name__ for way, _ in BAD_WAYS]
)


@every_bad_way
def test_file_that_is_invalid_from_the_start_is_refused(
    path: Path, clock: Clock, go_bad: Callable[[Path], None], problem: str
) -> None:
    """There is no last valid value that could stay."""
    go_bad(path)

    with pytest.raises(BadFile) as raised:
        watch(path, clock)

    assert str(raised.value) == problem


@every_bad_way
def test_last_valid_value_stays_when_a_file_goes_bad(
    path: Path, clock: Clock, go_bad: Callable[[Path], None], problem: str
) -> None:
    """A mistyped line must not lock all callers out, or let all of them in."""
    file = watch(path, clock)
    go_bad(path)

    clock.move(READ_EVERY)

    assert file.value() == ["one"]
    assert file.problem == problem


@every_bad_way
def test_problem_stays_while_the_file_stays_bad(
    path: Path, clock: Clock, go_bad: Callable[[Path], None], problem: str
) -> None:
    """A second read that finds no change does not make it valid."""
    file = watch(path, clock)
    go_bad(path)

    for _ in range(3):
        clock.move(READ_EVERY)
        file.value()

    assert file.problem == problem


def test_file_of_exactly_1_mib_is_read(path: Path, clock: Clock) -> None:
    """One byte more is too large."""
    path.write_bytes(b"x" * MAX_BYTES)

    file = watch(path, clock)

    assert file.value() == ["x" * MAX_BYTES]


def test_problem_ends_when_the_file_is_valid_again(path: Path, clock: Clock) -> None:
    """And the value is that of its new content."""
    file = watch(path, clock)
    path.unlink()
    clock.move(READ_EVERY)
    file.value()

    path.write_text("two")
    clock.move(READ_EVERY)

    assert file.value() == ["two"]
    assert file.problem is None


def test_problem_ends_when_the_old_content_comes_back(path: Path, clock: Clock) -> None:
    """Even though the content equals the last valid one."""
    file = watch(path, clock)
    path.write_text("bad")
    clock.move(READ_EVERY)
    file.value()

    path.write_text("one")
    clock.move(READ_EVERY)

    assert file.value() == ["one"]
    assert file.problem is None


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_problem_is_logged_once_however_long_it_lasts(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """An ERROR alerts the operator. It names the file and the problem."""
    file = watch(path, clock)
    path.write_text("bad")

    for _ in range(5):
        clock.move(READ_EVERY)
        file.value()

    assert len(errors(caplog)) == 1
    assert vars(errors(caplog)[0])["file"] == "words"
    assert vars(errors(caplog)[0])["problem"] == "line 1: not a word"


def test_second_problem_is_logged_too(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator's repair of the first one may have caused it."""
    file = watch(path, clock)

    for go_bad in (spoil, remove):
        go_bad(path)
        clock.move(READ_EVERY)
        file.value()

    problems = [vars(record)["problem"] for record in errors(caplog)]
    assert problems == [
        "line 1: not a word",
        "cannot be read: No such file or directory",
    ]


def test_problem_that_ended_and_came_back_is_logged_again(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a new problem."""
    file = watch(path, clock)

    for text in ("bad", "two", "bad"):
        path.write_text(text)
        clock.move(READ_EVERY)
        file.value()

    assert len(errors(caplog)) == 2


def test_end_of_a_problem_is_logged(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Also if the old content came back; otherwise the log would end with the error."""
    caplog.set_level(logging.INFO)
    file = watch(path, clock)

    for text in ("bad", "one", "bad", "two", "two"):
        path.write_text(text)
        clock.move(READ_EVERY)
        file.value()

    assert [record.message for record in caplog.records] == [
        "file is invalid, the last valid content stays",
        "file is valid again",
        "file is invalid, the last valid content stays",
        "file read again",
    ]


@pytest.mark.parametrize(
    "content",
    [
        f"bad {SECRET}".encode(),
        f"{SECRET} \u00ff".encode("latin-1"),
        SECRET.encode() * MAX_BYTES,
        f"good {SECRET}".encode(),
    ],
    ids=["bad", "garbled", "bloated", "good"],
)
def test_content_is_never_logged(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """At no level: it is a token, or a file of keys."""
    caplog.set_level(logging.DEBUG, "proxy")
    file = watch(path, clock)
    path.write_bytes(content)

    clock.move(READ_EVERY)
    file.value()

    logged = "".join(str(vars(record)) for record in caplog.records)
    assert logged
    assert SECRET not in logged + str(file.problem)


def test_one_thread_reads_while_others_use_the_old_value(
    path: Path, clock: Clock
) -> None:
    """A slow disk delays one caller, not all."""
    reading, done = threading.Event(), threading.Event()

    def slowly(text: str) -> str:
        if text == "two":
            reading.set()
            assert done.wait(30)
        return text

    file = WatchedFile(path, slowly, clock)
    path.write_text("two")
    clock.move(READ_EVERY)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(file.value)
        assert reading.wait(30)
        clock.move(READ_EVERY)
        meanwhile = file.value()
        done.set()

    assert meanwhile == "one"
    assert first.result() == "two"


def test_read_again_does_not_wait_for_the_interval(path: Path, clock: Clock) -> None:
    """For a caller that reads on a schedule of its own."""
    file = watch(path, clock)
    path.write_text("two")

    file.read_again()

    assert file.value() == ["two"]
