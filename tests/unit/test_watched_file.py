"""A file whose content may change while the service runs."""

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy.watched_file import LOOK_EVERY, MAX_BYTES, BadFile, WatchedFile

SECRET = "hunter2"


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def goes(self, seconds: float) -> None:
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
    """The words of *text*, of which "bad" is none."""
    if "bad" in text:
        raise BadFile("line 1: not a word")
    return text.split()


def watch(path: Path, clock: Clock) -> WatchedFile[list[str]]:
    return WatchedFile(path, words, clock)


def test_a_file_is_read_at_once(path: Path, clock: Clock) -> None:
    """There is a value from the start."""
    file = watch(path, clock)

    assert file.value() == ["one"]
    assert file.problem is None


def test_a_change_is_seen_two_seconds_after_the_last_look(
    path: Path, clock: Clock
) -> None:
    """And not before: a look costs a read of the disk."""
    file = watch(path, clock)
    path.write_text("two")

    clock.goes(1.999)
    before = file.value()
    clock.goes(0.001)

    assert before == ["one"]
    assert file.value() == ["two"]


def test_two_seconds_are_counted_anew_from_every_look(path: Path, clock: Clock) -> None:
    """Also from one that found nothing new."""
    file = watch(path, clock)
    clock.goes(LOOK_EVERY)
    file.value()
    path.write_text("two")

    clock.goes(LOOK_EVERY - 0.001)

    assert file.value() == ["one"]


def test_a_change_is_seen_by_content_and_not_by_time(path: Path, clock: Clock) -> None:
    """Two writes can share a timestamp, and a link keeps the one of its target."""
    file = watch(path, clock)
    written = path.stat()
    path.write_text("two")
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))

    clock.goes(LOOK_EVERY)

    assert file.value() == ["two"]


def test_a_link_that_points_elsewhere_is_a_change(
    tmp_path: Path, path: Path, clock: Clock
) -> None:
    """This is how Kubernetes brings a new secret."""
    link, other = tmp_path / "link", tmp_path / "other"
    other.write_text("two")
    link.symlink_to(path)
    file = watch(link, clock)

    link.unlink()
    link.symlink_to(other)
    clock.goes(LOOK_EVERY)

    assert file.value() == ["two"]


def test_what_has_not_changed_is_not_read_into_a_value_again(
    path: Path, clock: Clock
) -> None:
    """Keys are not parsed every two seconds."""
    file = watch(path, clock)
    first = file.value()

    clock.goes(LOOK_EVERY)

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
def test_a_file_that_is_no_good_from_the_start_is_refused(
    path: Path, clock: Clock, go_bad: Callable[[Path], None], problem: str
) -> None:
    """There is no last good value that could stay."""
    go_bad(path)

    with pytest.raises(BadFile) as raised:
        watch(path, clock)

    assert str(raised.value) == problem


@every_bad_way
def test_the_last_good_value_stays_when_a_file_goes_bad(
    path: Path, clock: Clock, go_bad: Callable[[Path], None], problem: str
) -> None:
    """A mistyped line must not lock everybody out, or let everybody in."""
    file = watch(path, clock)
    go_bad(path)

    clock.goes(LOOK_EVERY)

    assert file.value() == ["one"]
    assert file.problem == problem


@every_bad_way
def test_a_file_that_stays_bad_stays_a_problem(
    path: Path, clock: Clock, go_bad: Callable[[Path], None], problem: str
) -> None:
    """A second look that finds nothing new does not make it good."""
    file = watch(path, clock)
    go_bad(path)

    for _ in range(3):
        clock.goes(LOOK_EVERY)
        file.value()

    assert file.problem == problem


def test_a_file_of_just_a_mebibyte_is_read(path: Path, clock: Clock) -> None:
    """The limit is the first size that is too much, less one."""
    path.write_bytes(b"x" * MAX_BYTES)

    file = watch(path, clock)

    assert file.value() == ["x" * MAX_BYTES]


def test_a_file_heals_when_it_makes_sense_again(path: Path, clock: Clock) -> None:
    """With its new content, and no problem any more."""
    file = watch(path, clock)
    path.unlink()
    clock.goes(LOOK_EVERY)
    file.value()

    path.write_text("two")
    clock.goes(LOOK_EVERY)

    assert file.value() == ["two"]
    assert file.problem is None


def test_a_file_heals_when_its_old_content_comes_back(path: Path, clock: Clock) -> None:
    """Nothing has changed, and yet the problem is over."""
    file = watch(path, clock)
    path.write_text("bad")
    clock.goes(LOOK_EVERY)
    file.value()

    path.write_text("one")
    clock.goes(LOOK_EVERY)

    assert file.value() == ["one"]
    assert file.problem is None


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_problem_is_logged_once_however_long_it_lasts(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """An ERROR is a page to somebody. It names the file and says why."""
    file = watch(path, clock)
    path.write_text("bad")

    for _ in range(5):
        clock.goes(LOOK_EVERY)
        file.value()

    assert len(errors(caplog)) == 1
    assert vars(errors(caplog)[0])["file"] == "words"
    assert vars(errors(caplog)[0])["problem"] == "line 1: not a word"


def test_another_problem_is_logged_too(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be what somebody did about the first one."""
    file = watch(path, clock)

    for go_bad in (spoil, remove):
        go_bad(path)
        clock.goes(LOOK_EVERY)
        file.value()

    problems = [vars(record)["problem"] for record in errors(caplog)]
    assert problems == [
        "line 1: not a word",
        "cannot be read: No such file or directory",
    ]


def test_the_same_problem_is_logged_again_after_it_was_over(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a new one."""
    file = watch(path, clock)

    for text in ("bad", "two", "bad"):
        path.write_text(text)
        clock.goes(LOOK_EVERY)
        file.value()

    assert len(errors(caplog)) == 2


def test_it_is_logged_that_a_problem_is_over(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the file is what it was before; else the error is the last word."""
    caplog.set_level(logging.INFO)
    file = watch(path, clock)

    for text in ("bad", "one", "bad", "two", "two"):
        path.write_text(text)
        clock.goes(LOOK_EVERY)
        file.value()

    assert [record.message for record in caplog.records] == [
        "file is no good, the last good content stays",
        "file is good again",
        "file is no good, the last good content stays",
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
def test_no_content_is_logged(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """At no level: it is a token, or a file of keys."""
    caplog.set_level(logging.DEBUG, "proxy")
    file = watch(path, clock)
    path.write_bytes(content)

    clock.goes(LOOK_EVERY)
    file.value()

    logged = "".join(str(vars(record)) for record in caplog.records)
    assert logged
    assert SECRET not in logged + str(file.problem)


def test_only_one_thread_looks_and_others_pass_by(path: Path, clock: Clock) -> None:
    """A slow disk holds up one caller, not all."""
    looking, done = threading.Event(), threading.Event()

    def slowly(text: str) -> str:
        if text == "two":
            looking.set()
            assert done.wait(30)
        return text

    file = WatchedFile(path, slowly, clock)
    path.write_text("two")
    clock.goes(LOOK_EVERY)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(file.value)
        assert looking.wait(30)
        clock.goes(LOOK_EVERY)
        meanwhile = file.value()
        done.set()

    assert meanwhile == "one"
    assert first.result() == "two"


def test_a_look_can_be_had_at_once(path: Path, clock: Clock) -> None:
    """For whoever knows that something has changed."""
    file = watch(path, clock)
    path.write_text("two")

    file.look()

    assert file.value() == ["two"]
