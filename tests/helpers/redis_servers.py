"""Real Redis servers for the tests, each a child process of ours."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import pytest
import redis
import trustme
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry
from redis.sentinel import Sentinel

from tests.helpers.processes import free_port, wait_until

REAL_STORES = ("embedded", "tcp", "unix", "tls", "sentinel", "cluster")
STORES = ("fakeredis", *REAL_STORES)
"""Every kind of store there is; one is supported when it passes tests/stores."""

_BINARIES = ("redis-server", "valkey-server")
_STARTS_WITHIN = 10.0
_STOPS_WITHIN = 5.0
_ANSWERS_WITHIN = 0.25
_POLL_AFTER = 0.005
_TRIES = 5  # somebody may take the port between our look at it and the server's
_BUS_PORT_AFTER = 10_000  # where nodes of a Cluster talk among themselves
_SLOTS = 16_384
_ON_THE_FIRST_NODE = "3"  # a key that is there, where the slots are shared by three


def require(condition: object, what: str) -> None:
    """Skip a test that needs *what*; but fail it where REQUIRE_ALL=1, as in CI."""
    if condition:
        return
    if os.environ.get("REQUIRE_ALL") == "1":
        pytest.fail(f"{what} is missing, and REQUIRE_ALL=1 lets nothing be skipped")
    pytest.skip(f"{what} is missing")


def may_go_first() -> bool:
    """Whether the system lets us put one thread before others."""
    tried = [sys.executable, "-c", "import os; os.setpriority(os.PRIO_PROCESS, 0, -10)"]
    return subprocess.run(tried, stderr=subprocess.DEVNULL).returncode == 0


def client_of(url: str, *, within: float = 5.0) -> redis.Redis:
    """Somebody else's client: it tries everything once, *within* so many seconds.

    Of a Cluster it sees all keys. Behind Sentinels it follows the master.
    """
    options: dict[str, Any] = {
        "socket_timeout": within,
        "socket_connect_timeout": within,
        "protocol": 2,
    }
    scheme, _, rest = url.partition("://")
    if scheme == "redis+cluster":
        first = rest.partition(",")[0]
        return cast(redis.Redis, WholeCluster.from_url(f"redis://{first}", **options))
    options["retry"] = Retry(NoBackoff(), 0)
    if scheme == "redis+sentinel":
        places, _, name = rest.partition("/")
        sentinels = [place.split(":") for place in places.split(",")]
        watchers = Sentinel([(h, int(p)) for h, p in sentinels], **options)
        return cast(redis.Redis, watchers.master_for(name, **options))
    return redis.Redis.from_url(url, **options)


class WholeCluster(redis.RedisCluster):
    """redis-py's client of a Cluster, which here speaks of all nodes as of one."""

    def dbsize(self, **kwargs: Any) -> int:
        return int(super().dbsize(target_nodes=self.PRIMARIES))

    def config_resetstat(self, **kwargs: Any) -> Any:
        return super().config_resetstat(target_nodes=self.PRIMARIES)

    def info(self, *sections: str, **kwargs: Any) -> dict[str, Any]:
        told = super().info(*sections, target_nodes=self.PRIMARIES)
        return {name: value for node in told.values() for name, value in node.items()}


class DidNotStart(Exception):
    """The server ended, or did not answer, when it was started; the text is its own."""


class Server:
    """A redis-server or valkey-server behind one door, which ends with its ``with``.

    *door* is ``tcp``, ``unix`` or ``tls``. It forgets everything when it is stopped,
    and keeps its URL when it is started again. *settings* are the server's own.
    With *watching*, it is a Sentinel instead, and that is what it is told to do.
    *binary* is another than the one that is installed.
    """

    def __init__(
        self,
        door: str,
        *,
        password: str = "",
        settings: Mapping[str, str] = {},
        watching: Sequence[str] = (),
        binary: Path | None = None,
    ) -> None:
        installed = filter(None, map(shutil.which, _BINARIES))
        self._binary = binary or next(installed, None)
        require(self._binary, " or ".join(_BINARIES))
        self._door = door
        self._password = password
        self._settings = settings
        self._watching = watching
        self._folder = Path(tempfile.mkdtemp(prefix="store-"))  # short, for the socket
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        if door == "tls":
            self._write_certificates()

    def __enter__(self) -> Self:
        try:
            self._start_on_a_free_port()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where it is, as PROXY_STORE_URL would say it."""
        user = f":{self._password}@" if self._password else ""
        match self._door:
            case "unix":
                return f"unix://{user}{self._folder}/it.sock"
            case "tls":
                authority = f"ssl_ca_certs={self._folder}/ca.pem"
                return f"rediss://{user}localhost:{self.port}/0?{authority}"
            case _:
                return f"redis://{user}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it at its old place, empty; it answers when this returns."""
        command = [str(self._binary)]
        if self._watching:
            command += [self._orders(), "--sentinel"]
        else:
            for name, value in {**self._place(), **self._settings}.items():
                command += [f"--{name}", value]
        with open(self._folder / "log", "wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self._wait_until_it_answers()
        if self._watching:
            self.look_every()

    def stop(self) -> None:
        """End it; it has gone when this returns."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(_STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def kill(self) -> None:
        """End it as a crash would."""
        assert self._process is not None
        self._process.kill()
        self.stop()

    def pause(self) -> None:
        """Make it hang: connections are still accepted, by the kernel."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End the pause."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop it, and remove what it has left."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start_on_a_free_port(self) -> None:
        for left in reversed(range(_TRIES)):
            self.port = self._find_port()
            try:
                return self.start()
            except DidNotStart as exc:
                if left == 0 or "Address already in use" not in str(exc):
                    raise

    def _find_port(self) -> int:
        """A free port; for a node of a Cluster, one with a place for its bus."""
        while (port := free_port()) + _BUS_PORT_AFTER > 65_535:
            if "cluster-enabled" not in self._settings:
                break
        return port

    def _orders(self) -> str:
        """The file that a Sentinel reads, and into which it writes what it learns."""
        file = self._folder / "sentinel.conf"
        if not file.exists():
            place = [f"port {self.port}", "bind 127.0.0.1", f"dir {self._folder}"]
            file.write_text("\n".join([*place, *self._watching, ""]))
        return str(file)

    def look_every(self, **milliseconds: int) -> None:
        """Have a Sentinel learn so often what it learns every one to ten seconds.

        At once, where nothing is told.
        """
        periods = {"info": 100, "publish": 100, "ask": 100} | milliseconds
        words = [f"{word}" for k, v in periods.items() for word in (f"{k}-period", v)]
        with client_of(self.url) as client, suppress(redis.ResponseError):
            client.execute_command("SENTINEL", "DEBUG", *words)

    @property
    def address(self) -> tuple[str, int]:
        """Its host and port."""
        return "127.0.0.1", self.port

    def _place(self) -> dict[str, str]:
        place = {"port": "0", "bind": "127.0.0.1", "dir": str(self._folder)}
        place |= {"save": "", "appendonly": "no"}
        if self._password:
            place["requirepass"] = self._password
        match self._door:
            case "unix":
                place["unixsocket"] = str(self._folder / "it.sock")
            case "tls":
                place["tls-port"] = str(self.port)
                place["tls-cert-file"] = str(self._folder / "certificate.pem")
                place["tls-key-file"] = str(self._folder / "key.pem")
                place["tls-auth-clients"] = "no"
            case _:
                place["port"] = str(self.port)
        return place

    def _write_certificates(self) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        authority.cert_pem.write_to_path(self._folder / "ca.pem")
        certificate.private_key_pem.write_to_path(self._folder / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(self._folder / "certificate.pem")

    def _wait_until_it_answers(self) -> None:
        until = time.monotonic() + _STARTS_WITHIN
        while not answers(self.url):
            assert self._process is not None
            ended = self._process.poll() is not None
            if ended or time.monotonic() > until:
                self.stop()
                said = (self._folder / "log").read_text(errors="replace")
                raise DidNotStart(said[-2000:])
            time.sleep(_POLL_AFTER)


def answers(url: str) -> bool:
    """Whether a server answers there now."""
    with suppress(redis.RedisError), client_of(url, within=_ANSWERS_WITHIN) as client:
        return bool(client.ping())
    return False


class Watched:
    """A master, its replicas, and three Sentinels that put one in another's place."""

    NAME = "people"
    _DOWN_AFTER = 1000  # milliseconds: a busy machine is silent for a while, too

    def __init__(
        self, servers: list[Server], sentinels: list[Server], password: str
    ) -> None:
        self.servers = servers
        self.sentinels = sentinels
        self._user = f":{password}@" if password else ""

    @property
    def url(self) -> str:
        """Where it is, as PROXY_STORE_URL would say it."""
        places = ",".join("{}:{}".format(*each.address) for each in self.sentinels)
        return f"redis+sentinel://{self._user}{places}/{self.NAME}"

    @property
    def master(self) -> Server:
        """The server that the Sentinels send people to."""
        addresses = {self._named_by(sentinel) for sentinel in self.sentinels}
        [master] = [server for server in self.servers if server.address in addresses]
        return master

    @property
    def replicas(self) -> list[Server]:
        master = self.master
        return [server for server in self.servers if server is not master]

    def is_led_by_another_than(self, old: Server) -> bool:
        """Whether all Sentinels send people to another server, which leads."""
        with suppress(redis.RedisError, ValueError):
            if self.master is not old:
                with client_of(self.master.url) as client:
                    return bool(client.info("replication")["role"] == "master")
        return False

    def order_fail_over(self) -> None:
        """As an operator does who wants to restart the master."""
        with client_of(self.sentinels[0].url) as sentinel:
            sentinel.execute_command("SENTINEL", "FAILOVER", self.NAME)

    @contextmanager
    def hearing_as_seldom_as_ever(self) -> Iterator[None]:
        """The Sentinels hear of each other every two seconds, as they do elsewhere.

        One that hears too soon of a replica that leads makes it follow again.
        """
        for sentinel in self.sentinels:
            sentinel.look_every(publish=2000)
        try:
            yield
        finally:
            for sentinel in self.sentinels:
                sentinel.look_every()

    def mend(self) -> None:
        """Start or resume what is missing, and wait until all of them agree."""
        for server in [*self.servers, *self.sentinels]:
            if server.is_running:
                server.resume()
            else:
                server.start()
        wait_until(self.is_whole, 20, "a fail-over would be possible again")

    def is_whole(self) -> bool:
        """Whether all that is needed for a fail-over is there, and knows of it."""
        with suppress(redis.RedisError, ValueError):
            return has_replicas(self.master, len(self.servers) - 1) and all(
                self._knows_all(sentinel) for sentinel in self.sentinels
            )
        return False

    def _named_by(self, sentinel: Server) -> tuple[str, int] | None:
        with suppress(redis.RedisError), client_of(sentinel.url) as client:
            host, port = client.sentinel_get_master_addr_by_name(self.NAME)
            return host.decode(), int(port)
        return None

    def _knows_all(self, sentinel: Server) -> bool:
        with client_of(sentinel.url) as client:
            known = cast(Any, client.sentinel_masters())[self.NAME]
            replicas = cast(Any, client.sentinel_slaves(self.NAME))
        others = len(self.sentinels) - 1, len(self.servers) - 1
        return (
            not known["is_sdown"]
            and (known["num-other-sentinels"], known["num-slaves"]) == others
            and not any(replica["is_sdown"] for replica in replicas)
            and all(each["master-link-status"] == "ok" for each in replicas)
        )


@contextmanager
def replicated(
    password: str = "", binary: Path | None = None
) -> Iterator[list[Server]]:
    """A master and its replica, in this order."""
    settings = {"repl-diskless-sync-delay": "0", "maxmemory-policy": "allkeys-lfu"}
    if password:
        settings["masterauth"] = password
    with ExitStack() as ending:
        master, replica = (
            ending.enter_context(
                Server("tcp", password=password, settings=settings, binary=binary)
            )
            for _ in range(2)
        )
        with client_of(replica.url) as client:
            client.replicaof(*master.address)
        wait_until(lambda: has_replicas(master, 1), 10, "they are in step")
        yield [master, replica]


def has_replicas(master: Server, number: int) -> bool:
    """Whether so many replicas follow *master*, and have what it has.

    They answer it at last up to a second after they are said to be online.
    """
    with suppress(redis.RedisError), client_of(master.url) as client:
        client.set(_ON_THE_FIRST_NODE, b"", px=1000)
        client.unlink(_ON_THE_FIRST_NODE)
        return client.wait(number, 100) == number
    return False


@contextmanager
def watched(password: str = "") -> Iterator[Watched]:
    """A master with a replica, watched by three Sentinels, ready to fail over."""
    with ExitStack() as ending:
        servers = ending.enter_context(replicated(password=password))
        host, port = servers[0].address
        name = Watched.NAME
        orders = [
            f"sentinel monitor {name} {host} {port} 2",
            f"sentinel down-after-milliseconds {name} {Watched._DOWN_AFTER}",
            f"sentinel failover-timeout {name} 2000",
            *([f"sentinel auth-pass {name} {password}"] if password else []),
        ]
        watchers = [
            ending.enter_context(Server("tcp", watching=orders)) for _ in range(3)
        ]
        whole = Watched(servers, watchers, password)
        wait_until(whole.is_whole, 20, "the Sentinels know all there is")
        yield whole


class Nodes:
    """A Cluster: three primaries, and one replica, of the first, that stays one."""

    def __init__(self, primaries: list[Server], replica: Server, password: str) -> None:
        self.primaries = primaries
        self.replica = replica
        self._user = f":{password}@" if password else ""

    @property
    def servers(self) -> list[Server]:
        return [*self.primaries, self.replica]

    @property
    def url(self) -> str:
        """Where it is, as PROXY_STORE_URL would say it."""
        places = ",".join("{}:{}".format(*each.address) for each in self.primaries)
        return f"redis+cluster://{self._user}{places}"

    def home(self, key: str) -> Server:
        """The node that has *key*."""
        return self.primaries[key_slot(key.encode()) * len(self.primaries) // _SLOTS]

    def agree(self) -> bool:
        """Whether every node knows of all slots and of all others."""
        return all(map(self._knows_all, self.servers)) and has_replicas(
            self.primaries[0], 1
        )

    def _knows_all(self, server: Server) -> bool:
        with client_of(server.url) as client:
            told = client.execute_command("CLUSTER", "INFO").decode()
            slots = client.execute_command("CLUSTER", "SLOTS")
            known = client.execute_command("CLUSTER", "NODES").decode().splitlines()
        covered = sum(last - first + 1 for first, last, *_ in slots)
        nodes = f"cluster_known_nodes:{len(self.servers)}"
        flags = {flag for node in known for flag in node.split()[2].split(",")}
        is_whole = "cluster_state:ok" in told and nodes in told and covered == _SLOTS
        return is_whole and not flags & {"fail", "fail?", "handshake"}


@contextmanager
def clustered(password: str = "") -> Iterator[Nodes]:
    """Three nodes that have shared all slots among them, and a replica."""
    settings = {
        "cluster-enabled": "yes",
        "cluster-node-timeout": "1000",
        "cluster-require-full-coverage": "no",
        "cluster-replica-no-failover": "yes",
        "repl-diskless-sync-delay": "0",
        "maxmemory-policy": "allkeys-lfu",
        **({"masterauth": password} if password else {}),
    }
    with ExitStack() as ending:
        *primaries, replica = (
            ending.enter_context(Server("tcp", password=password, settings=settings))
            for _ in range(4)
        )
        [host, port], name = primaries[0].address, ""
        for number, server in enumerate([*primaries, replica]):
            with client_of(server.url) as client:
                if number == 0:
                    name = client.execute_command("CLUSTER", "MYID").decode()
                if server is not replica:
                    first, last = (-(_SLOTS * n // -3) for n in (number, number + 1))
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
                    client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                if number:
                    client.execute_command("CLUSTER", "MEET", host, port)
        wait_until(lambda: follows(replica, name), 10, "the replica has a primary")
        nodes = Nodes(primaries, replica, password)
        wait_until(nodes.agree, 20, "the nodes know of each other")
        yield nodes


def follows(replica: Server, name: str) -> bool:
    """Whether a node could be made the replica of the one with that *name*."""
    with client_of(replica.url) as client, suppress(redis.ResponseError):
        return bool(client.execute_command("CLUSTER", "REPLICATE", name))
    return False


@contextmanager
def store_of(kind: str, password: str = "") -> Iterator[tuple[str, list[Server]]]:
    """A store of that *kind*: its URL, and the servers that can fail."""
    match kind:
        case "sentinel":
            with watched(password) as whole:
                yield whole.url, whole.servers
        case "cluster":
            with clustered(password) as nodes:
                yield nodes.url, nodes.servers
        case _:
            with Server(kind, password=password) as server:
                yield server.url, [server]
