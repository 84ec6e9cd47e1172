"""Real Redis servers for the tests, each a child process of the test run."""

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
"""Every kind of store. One is supported if it passes tests/stores."""

_BINARIES = ("redis-server", "valkey-server")
_STARTS_WITHIN = 10.0
_STOPS_WITHIN = 5.0
_ANSWERS_WITHIN = 0.25
_POLL_AFTER = 0.005
_TRIES = 5  # another process may take the port before the server binds it
_BUS_PORT_OFFSET = 10_000  # the port of a node's Cluster bus, after its own
_SLOTS = 16_384
_KEY_ON_FIRST_NODE = "3"  # its slot is on the first of three nodes


def require(condition: object, what: str) -> None:
    """Skip a test that needs *what*; with REQUIRE_ALL=1, as in CI, fail it."""
    if condition:
        return
    if os.environ.get("REQUIRE_ALL") == "1":
        pytest.fail(f"{what} is missing, and REQUIRE_ALL=1 allows no skipped test")
    pytest.skip(f"{what} is missing")


def can_raise_priority() -> bool:
    """Whether this user may lower a niceness, which needs root or a ulimit."""
    code = "import os; os.setpriority(os.PRIO_PROCESS, 0, -10)"
    tried = subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    return tried.returncode == 0


def client_of(url: str, *, within: float = 5.0) -> redis.Redis:
    """Return a client of redis-py without retries; *within* is its timeout, in seconds.

    On a Cluster it sees all keys. Behind Sentinels it follows the master.
    """
    options: dict[str, Any] = {
        "socket_timeout": within,
        "socket_connect_timeout": within,
        "protocol": 2,
    }
    scheme, _, rest = url.partition("://")
    if scheme == "redis+cluster":
        first = rest.partition(",")[0]
        return cast(redis.Redis, AllNodesClient.from_url(f"redis://{first}", **options))
    options["retry"] = Retry(NoBackoff(), 0)
    if scheme == "redis+sentinel":
        addresses, _, name = rest.partition("/")
        pairs = [address.split(":") for address in addresses.split(",")]
        sentinels = Sentinel([(h, int(p)) for h, p in pairs], **options)
        return cast(redis.Redis, sentinels.master_for(name, **options))
    return redis.Redis.from_url(url, **options)


class AllNodesClient(redis.RedisCluster):
    """redis-py's client of a Cluster, with statistics of all primaries together."""

    def dbsize(self, **kwargs: Any) -> int:
        return int(super().dbsize(target_nodes=self.PRIMARIES))

    def config_resetstat(self, **kwargs: Any) -> Any:
        return super().config_resetstat(target_nodes=self.PRIMARIES)

    def info(self, *sections: str, **kwargs: Any) -> dict[str, Any]:
        nodes = super().info(*sections, target_nodes=self.PRIMARIES)
        return {name: value for node in nodes.values() for name, value in node.items()}


class DidNotStart(Exception):
    """A server ended or did not answer after its start. The text is its own log."""


class RedisServer:
    """A redis-server or valkey-server on one transport; a ``with`` ends it.

    *transport* is ``tcp``, ``unix`` or ``tls``. A stopped server loses its data, and
    keeps its URL when it is started again. *settings* are the server's own. With
    *sentinel_config*, lines of a configuration file, it is a Sentinel. *binary*
    replaces the installed one.
    """

    def __init__(
        self,
        transport: str,
        *,
        password: str = "",
        settings: Mapping[str, str] = {},
        sentinel_config: Sequence[str] = (),
        binary: Path | None = None,
    ) -> None:
        installed = filter(None, map(shutil.which, _BINARIES))
        self._binary = binary or next(installed, None)
        require(self._binary, " or ".join(_BINARIES))
        self._transport = transport
        self._password = password
        self._settings = settings
        self._sentinel_config = sentinel_config
        self._folder = Path(tempfile.mkdtemp(prefix="store-"))  # short, for the socket
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        if transport == "tls":
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
        """Its URL, as for PROXY_STORE_URL."""
        user = f":{self._password}@" if self._password else ""
        match self._transport:
            case "unix":
                return f"unix://{user}{self._folder}/it.sock"
            case "tls":
                authority = f"ssl_ca_certs={self._folder}/ca.pem"
                return f"rediss://{user}localhost:{self.port}/0?{authority}"
            case _:
                return f"redis://{user}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it at its previous address, empty, and wait until it answers."""
        command = [str(self._binary)]
        if self._sentinel_config:
            command += [self._sentinel_file(), "--sentinel"]
        else:
            for name, value in {**self._own_settings(), **self._settings}.items():
                command += [f"--{name}", value]
        with open(self._folder / "log", "wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self._wait_until_it_answers()
        if self._sentinel_config:
            self.set_periods()

    def stop(self) -> None:
        """Stop it, and wait until its process has ended."""
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
        """End it without warning, as a crash does."""
        assert self._process is not None
        self._process.kill()
        self.stop()

    def pause(self) -> None:
        """Freeze it. The kernel still accepts connections for it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End the pause."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop it, and remove its folder."""
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
        """Return a free port; for a node of a Cluster, one whose bus port is valid."""
        while (port := free_port()) + _BUS_PORT_OFFSET > 65_535:
            if "cluster-enabled" not in self._settings:
                break
        return port

    def _sentinel_file(self) -> str:
        """Return the configuration file of a Sentinel, which also writes to it."""
        file = self._folder / "sentinel.conf"
        if not file.exists():
            own = [f"port {self.port}", "bind 127.0.0.1", f"dir {self._folder}"]
            file.write_text("\n".join([*own, *self._sentinel_config, ""]))
        return str(file)

    def set_periods(self, **milliseconds: int) -> None:
        """Set how often a Sentinel polls and publishes, by default each 100 ms.

        Its own defaults are one to ten seconds.
        """
        periods = {"info": 100, "publish": 100, "ask": 100} | milliseconds
        words = [f"{word}" for k, v in periods.items() for word in (f"{k}-period", v)]
        with client_of(self.url) as client, suppress(redis.ResponseError):
            client.execute_command("SENTINEL", "DEBUG", *words)

    @property
    def address(self) -> tuple[str, int]:
        """Its host and port."""
        return "127.0.0.1", self.port

    def _own_settings(self) -> dict[str, str]:
        own = {"port": "0", "bind": "127.0.0.1", "dir": str(self._folder)}
        own |= {"save": "", "appendonly": "no"}
        if self._password:
            own["requirepass"] = self._password
        match self._transport:
            case "unix":
                own["unixsocket"] = str(self._folder / "it.sock")
            case "tls":
                own["tls-port"] = str(self.port)
                own["tls-cert-file"] = str(self._folder / "certificate.pem")
                own["tls-key-file"] = str(self._folder / "key.pem")
                own["tls-auth-clients"] = "no"
            case _:
                own["port"] = str(self.port)
        return own

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
                log = (self._folder / "log").read_text(errors="replace")
                raise DidNotStart(log[-2000:])
            time.sleep(_POLL_AFTER)


def answers(url: str) -> bool:
    """Whether a server at *url* answers now."""
    with suppress(redis.RedisError), client_of(url, within=_ANSWERS_WITHIN) as client:
        return bool(client.ping())
    return False


class SentinelGroup:
    """A master, its replicas, and three Sentinels that can fail over."""

    NAME = "people"
    _DOWN_AFTER = 1000  # milliseconds: a busy machine can be silent for a while

    def __init__(
        self, servers: list[RedisServer], sentinels: list[RedisServer], password: str
    ) -> None:
        self.servers = servers
        self.sentinels = sentinels
        self._user = f":{password}@" if password else ""

    @property
    def url(self) -> str:
        """Its URL, as for PROXY_STORE_URL."""
        addresses = ",".join("{}:{}".format(*each.address) for each in self.sentinels)
        return f"redis+sentinel://{self._user}{addresses}/{self.NAME}"

    @property
    def master(self) -> RedisServer:
        """The server that the Sentinels report as master."""
        addresses = {self._reported_by(sentinel) for sentinel in self.sentinels}
        [master] = [server for server in self.servers if server.address in addresses]
        return master

    @property
    def replicas(self) -> list[RedisServer]:
        master = self.master
        return [server for server in self.servers if server is not master]

    def is_led_by_another_than(self, old: RedisServer) -> bool:
        """Whether all Sentinels report another master, which has that role."""
        with suppress(redis.RedisError, ValueError):
            if self.master is not old:
                with client_of(self.master.url) as client:
                    return bool(client.info("replication")["role"] == "master")
        return False

    def order_fail_over(self) -> None:
        """Start a fail-over, as an operator does before restarting the master."""
        with client_of(self.sentinels[0].url) as sentinel:
            sentinel.execute_command("SENTINEL", "FAILOVER", self.NAME)

    @contextmanager
    def default_publish_period(self) -> Iterator[None]:
        """Let the Sentinels publish every two seconds, which is their default.

        A Sentinel that learns too early of a promoted replica demotes it again.
        """
        for sentinel in self.sentinels:
            sentinel.set_periods(publish=2000)
        try:
            yield
        finally:
            for sentinel in self.sentinels:
                sentinel.set_periods()

    def mend(self) -> None:
        """Start or resume all servers, and wait until they agree on one state."""
        for server in [*self.servers, *self.sentinels]:
            if server.is_running:
                server.resume()
            else:
                server.start()
        wait_until(self.is_whole, 20, "a fail-over is possible again")

    def is_whole(self) -> bool:
        """Whether a fail-over is possible: all servers run and know each other."""
        with suppress(redis.RedisError, ValueError):
            return has_replicas(self.master, len(self.servers) - 1) and all(
                self._knows_all(sentinel) for sentinel in self.sentinels
            )
        return False

    def _reported_by(self, sentinel: RedisServer) -> tuple[str, int] | None:
        with suppress(redis.RedisError), client_of(sentinel.url) as client:
            host, port = client.sentinel_get_master_addr_by_name(self.NAME)
            return host.decode(), int(port)
        return None

    def _knows_all(self, sentinel: RedisServer) -> bool:
        with client_of(sentinel.url) as client:
            master = cast(Any, client.sentinel_masters())[self.NAME]
            replicas = cast(Any, client.sentinel_slaves(self.NAME))
        others = len(self.sentinels) - 1, len(self.servers) - 1
        return (
            not master["is_sdown"]
            and (master["num-other-sentinels"], master["num-slaves"]) == others
            and not any(replica["is_sdown"] for replica in replicas)
            and all(each["master-link-status"] == "ok" for each in replicas)
        )


@contextmanager
def start_replicated(
    password: str = "", binary: Path | None = None
) -> Iterator[list[RedisServer]]:
    """Start a master and its replica, and yield them in this order."""
    settings = {"repl-diskless-sync-delay": "0", "maxmemory-policy": "allkeys-lfu"}
    if password:
        settings["masterauth"] = password
    with ExitStack() as ending:
        master, replica = (
            ending.enter_context(
                RedisServer("tcp", password=password, settings=settings, binary=binary)
            )
            for _ in range(2)
        )
        with client_of(replica.url) as client:
            client.replicaof(*master.address)
        wait_until(lambda: has_replicas(master, 1), 10, "the replica is in sync")
        yield [master, replica]


def has_replicas(master: RedisServer, number: int) -> bool:
    """Whether *number* replicas of *master* confirm a write.

    They do so up to a second after the master reports them as online.
    """
    with suppress(redis.RedisError), client_of(master.url) as client:
        client.set(_KEY_ON_FIRST_NODE, b"", px=1000)
        client.unlink(_KEY_ON_FIRST_NODE)
        return client.wait(number, 100) == number
    return False


@contextmanager
def start_sentinels(password: str = "") -> Iterator[SentinelGroup]:
    """Start a master, a replica and three Sentinels, ready to fail over."""
    with ExitStack() as ending:
        servers = ending.enter_context(start_replicated(password=password))
        host, port = servers[0].address
        name = SentinelGroup.NAME
        config = [
            f"sentinel monitor {name} {host} {port} 2",
            f"sentinel down-after-milliseconds {name} {SentinelGroup._DOWN_AFTER}",
            f"sentinel failover-timeout {name} 2000",
            *([f"sentinel auth-pass {name} {password}"] if password else []),
        ]
        sentinels = [
            ending.enter_context(RedisServer("tcp", sentinel_config=config))
            for _ in range(3)
        ]
        group = SentinelGroup(servers, sentinels, password)
        wait_until(group.is_whole, 20, "the Sentinels know all servers")
        yield group


class ClusterNodes:
    """A Cluster: three primaries, and one replica of the first, never promoted."""

    def __init__(
        self, primaries: list[RedisServer], replica: RedisServer, password: str
    ) -> None:
        self.primaries = primaries
        self.replica = replica
        self._user = f":{password}@" if password else ""

    @property
    def servers(self) -> list[RedisServer]:
        return [*self.primaries, self.replica]

    @property
    def url(self) -> str:
        """Its URL, as for PROXY_STORE_URL."""
        addresses = ",".join("{}:{}".format(*each.address) for each in self.primaries)
        return f"redis+cluster://{self._user}{addresses}"

    def home(self, key: str) -> RedisServer:
        """Return the primary of *key*."""
        return self.primaries[key_slot(key.encode()) * len(self.primaries) // _SLOTS]

    def agree(self) -> bool:
        """Whether every node knows all slots and all other nodes."""
        return all(map(self._knows_all, self.servers)) and has_replicas(
            self.primaries[0], 1
        )

    def _knows_all(self, server: RedisServer) -> bool:
        with client_of(server.url) as client:
            info = client.execute_command("CLUSTER", "INFO").decode()
            slots = client.execute_command("CLUSTER", "SLOTS")
            nodes = client.execute_command("CLUSTER", "NODES").decode().splitlines()
        covered = sum(last - first + 1 for first, last, *_ in slots)
        count = f"cluster_known_nodes:{len(self.servers)}"
        flags = {flag for node in nodes for flag in node.split()[2].split(",")}
        is_whole = "cluster_state:ok" in info and count in info and covered == _SLOTS
        return is_whole and not flags & {"fail", "fail?", "handshake"}


@contextmanager
def start_cluster(password: str = "") -> Iterator[ClusterNodes]:
    """Start three primaries that share all slots, and a replica of the first."""
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
            ending.enter_context(
                RedisServer("tcp", password=password, settings=settings)
            )
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
        wait_until(lambda: replicates(replica, name), 10, "the replica has a primary")
        nodes = ClusterNodes(primaries, replica, password)
        wait_until(nodes.agree, 20, "the nodes know each other")
        yield nodes


def replicates(replica: RedisServer, name: str) -> bool:
    """Make a node the replica of the node *name*; report whether that worked."""
    with client_of(replica.url) as client, suppress(redis.ResponseError):
        return bool(client.execute_command("CLUSTER", "REPLICATE", name))
    return False


@contextmanager
def start_store(
    kind: str, password: str = ""
) -> Iterator[tuple[str, list[RedisServer]]]:
    """Start a store of that *kind*; yield its URL and the servers that can fail."""
    match kind:
        case "sentinel":
            with start_sentinels(password) as group:
                yield group.url, group.servers
        case "cluster":
            with start_cluster(password) as nodes:
                yield nodes.url, nodes.servers
        case _:
            with RedisServer(kind, password=password) as server:
                yield server.url, [server]
