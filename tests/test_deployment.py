"""The image, the local stack, and the script that checks a commit."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from proxy.config.rows import ROWS
from proxy.config.settings import PREFIX, Settings
from proxy.simulator.server import Simulator
from proxy.web import auth
from tests.helpers.processes import free_port, wait_until
from tests.helpers.redis_servers import require

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
UNUSED_PORT = 9  # "discard", which no machine serves any more


def run(
    *command: str | Path, env: dict[str, str] | None = None, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run *command* with *env*, and without settings of the test run's environment."""
    outside = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
    return subprocess.run(
        command,
        cwd=cwd,
        env=outside | (env or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    stack = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert isinstance(stack, dict)
    return stack


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, each as its word and its arguments."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def last_instruction(word: str) -> str:
    """Return the arguments of the last instruction *word*, in the final stage."""
    return [rest for each, rest in instructions() if each == word][-1]


def local_environment(stack: dict[str, Any]) -> dict[str, str]:
    """Return the local proxy's settings, with this repository's files of secrets."""
    environment = dict(stack["services"]["proxy"]["environment"])
    for name, secret in stack["secrets"].items():
        for variable, value in environment.items():
            if value == f"/run/secrets/{name}":
                environment[variable] = str(ROOT / secret["file"])
    return environment


# The image


def test_dockerfile_passes_its_linter() -> None:
    linted = run(BIN / "hadolint", "Dockerfile")

    assert (linted.returncode, linted.stdout) == (0, "")


def test_every_stage_of_the_image_has_a_supported_python() -> None:
    metadata = ConfigParser()
    metadata.read(ROOT / "setup.cfg")
    supported = SpecifierSet(metadata["options"]["python_requires"])
    bases = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    versions = [re.fullmatch(r"python:(3\.\d+)-slim", base) for base in bases]

    # The environment is copied between the stages, so they must not differ.
    assert len(set(bases)) == 1
    for version in versions:
        assert version and version[1] in supported
        classifier = f"Programming Language :: Python :: {version[1]}"
        assert classifier in metadata["metadata"]["classifiers"].splitlines()


def test_image_has_the_labels_of_the_package() -> None:
    metadata = ConfigParser()
    metadata.read(ROOT / "setup.cfg")
    labels = dict(
        re.findall(r'opencontainers\.image\.(\w+)="(.*?)"', last_instruction("LABEL"))
    )

    assert labels == {
        "title": metadata["metadata"]["name"],
        "description": metadata["metadata"]["description"],
        "licenses": metadata["metadata"]["license"],
    }


def test_image_runs_the_service_as_a_numbered_user_other_than_root() -> None:
    user = re.fullmatch(r"(\d+):(\d+)", last_instruction("USER"))

    assert user and "0" not in user.groups()
    assert json.loads(last_instruction("ENTRYPOINT")) == ["profile-proxy"]
    assert json.loads(last_instruction("CMD")) == ["run"]
    assert last_instruction("STOPSIGNAL") == "SIGTERM"
    assert last_instruction("EXPOSE") == "8080"


def test_image_listens_on_all_addresses_and_needs_api_keys() -> None:
    """Without a file of API keys it does not start."""
    environment = dict(re.findall(r"\b(PROXY_\w+)=(\S+)", last_instruction("ENV")))

    started = run(
        BIN / "profile-proxy", "run", env=environment | {"PROXY_PAGE_TOKEN": "EAA"}
    )

    assert environment == {"PROXY_LISTEN": "0.0.0.0:8080"}
    assert started.returncode == 2
    assert "PROXY_API_KEYS_FILE" in started.stderr


def test_build_context_has_only_the_files_that_are_copied() -> None:
    """Not .git, .venv, tests or deploy/local, and no file that is left here later."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    included = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
    copied = {
        source.removeprefix("./")
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }

    assert patterns[0] == "*"
    assert included == copied
    assert all((ROOT / name).exists() for name in copied)
    assert "**/__pycache__" in patterns


@contextmanager
def answering(status: int) -> Iterator[int]:
    """Run a server that answers GET /healthz with *status*, and yield its port."""

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def image_health(port: int, **env: str) -> int:
    """Return the exit status of the image's health check of *port*."""
    command = json.loads(last_instruction("HEALTHCHECK").partition(" CMD ")[2])
    assert command[0] == "python"
    env |= {"PROXY_LISTEN": f"0.0.0.0:{port}"}
    return run(sys.executable, *command[1:], env=env).returncode


def test_image_is_healthy_while_the_service_answers() -> None:
    with answering(200) as port:
        assert image_health(port) == 0


def test_image_is_unhealthy_if_the_service_fails_or_is_down() -> None:
    with answering(500) as port:
        assert image_health(port) != 0

    assert image_health(port) != 0


def test_health_check_of_the_image_uses_no_http_proxy() -> None:
    """Docker can set HTTP_PROXY in every container."""
    elsewhere = f"http://127.0.0.1:{UNUSED_PORT}"

    with answering(200) as port:
        assert image_health(port, HTTP_PROXY=elsewhere, http_proxy=elsewhere) == 0


@pytest.mark.parametrize(
    "command",
    [
        [str(BIN / "profile-proxy"), "--help"],
        [sys.executable, "-m", "proxy.simulator", "--help"],
    ],
    ids=["profile-proxy", "simulator"],
)
def test_commands_of_the_image_need_no_home_and_no_checkout(
    command: list[str],
) -> None:
    """The image has only a PATH, without a home and without a checkout."""
    environment = {"PATH": str(BIN), "HOME": "/nonexistent"}

    done = subprocess.run(
        command, cwd="/", env=environment, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.lower().startswith("usage:")


# The local stack


def test_compose_file_is_valid() -> None:
    checked = run(
        BIN / "check-jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        "docker-compose.yml",
    )

    assert checked.returncode == 0, checked.stdout


def test_stack_is_published_only_on_this_machine(stack: dict[str, Any]) -> None:
    published = {
        name: service.get("ports", []) for name, service in stack["services"].items()
    }

    assert published == {
        "proxy": ["127.0.0.1:8080:8080"],
        "graph": ["127.0.0.1:9100:9100"],
        "redis": [],
    }
    assert all("network_mode" not in each for each in stack["services"].values())


@pytest.mark.parametrize("name", ["proxy", "redis", "graph"])
def test_every_service_is_confined(stack: dict[str, Any], name: str) -> None:
    service = stack["services"][name]
    user = service.get("user") or last_instruction("USER")

    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"cap_add", "privileged", "volumes"} & service.keys()
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert service["mem_limit"]
    assert service["pids_limit"]


def test_redis_has_no_persistence_and_limited_memory(stack: dict[str, Any]) -> None:
    redis = stack["services"]["redis"]
    words = redis["command"]
    arguments = dict(zip(words[::2], words[1::2], strict=True))

    assert re.match(r"redis:\d+(-|$)", redis["image"])
    assert arguments == {
        "--save": "",
        "--appendonly": "no",
        "--maxmemory": "256mb",
        "--maxmemory-policy": "allkeys-lfu",
        "--maxmemory-clients": "5%",
        "--slowlog-max-len": "0",
    }


def test_redis_can_be_reached_only_by_the_proxy(stack: dict[str, Any]) -> None:
    """Of the containers; its password is for the programs of this machine."""
    on_it = {
        name
        for name, service in stack["services"].items()
        if "store" in service.get("networks", ["default"])
    }

    assert stack["services"]["redis"]["networks"] == ["store"]
    assert on_it == {"redis", "proxy"}
    assert stack["networks"] == {"default": {}, "store": {"internal": True}}


@pytest.fixture
def redis_of_stack(stack: dict[str, Any], tmp_path: Path) -> Iterator[tuple[int, str]]:
    """The stack's Redis, as its command line starts it, but for port and paths.

    Yields its port and the command of its health check.
    """
    require(shutil.which("redis-server") is not None, "redis-server")
    redis, port = stack["services"]["redis"], free_port()

    def here(word: str) -> str:
        word = word.replace("$$", "$").replace("/tmp/", f"{tmp_path}/")
        return word.replace("/run/secrets/", f"{ROOT}/deploy/local/")

    command = [here(word) for word in [*redis["entrypoint"], *redis["command"]]]
    kind, health = redis["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    with subprocess.Popen(
        [*command, "--port", str(port), "--bind", "127.0.0.1"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    ) as running:
        yield port, here(health).replace("redis-cli", f"redis-cli -p {port}")
        running.terminate()
        assert running.wait(10) == 0  # The server itself gets the signal, not a shell.


def test_redis_wants_the_password_that_the_proxy_has(
    stack: dict[str, Any], redis_of_stack: tuple[int, str], tmp_path: Path
) -> None:
    """Every program of this machine reaches it. Its health check has the password."""
    port, health = redis_of_stack
    wait_until(lambda: run("sh", "-c", health).returncode == 0, 10, "Redis is healthy")
    store = Path(local_environment(stack)["PROXY_STORE_URL_FILE"]).read_text().strip()
    url = tmp_path / "store_url"
    url.write_text(store.replace("@redis:6379", f"@127.0.0.1:{port}"))
    env = {"PROXY_PAGE_TOKEN": "EAATEST", "PROXY_STORE_URL_FILE": str(url)}

    stats = run(BIN / "profile-proxy", "stats", "--json", env=env)
    without = run("redis-cli", "-p", str(port), "ping")
    listed = run("ps", "-eo", "args").stdout

    password = store.partition("://:")[2].partition("@")[0]
    assert stats.returncode == 0, stats.stderr
    assert json.loads(stats.stdout)["entries_complete"] is True
    assert "NOAUTH" in without.stdout
    assert password not in listed + stats.stdout + stats.stderr
    assert f"redis-server 127.0.0.1:{port}" in listed


@pytest.mark.parametrize("content", [None, ""], ids=["missing", "empty"])
def test_redis_does_not_start_without_its_password(
    stack: dict[str, Any], tmp_path: Path, content: str | None
) -> None:
    """Otherwise every program of this machine would be let in."""
    file = tmp_path / "redis_password"
    if content is not None:
        file.write_text(content)
    shell, option, script, *_ = stack["services"]["redis"]["entrypoint"]
    script = script.replace("$$", "$").replace("/tmp/", f"{tmp_path}/")
    script = script.replace("/run/secrets/", f"{tmp_path}/")

    started = run(shell, option, script, "redis-server", "--port", "0")

    assert started.returncode == 1
    assert not (tmp_path / "redis.conf").exists()


def test_proxy_starts_after_the_services_it_needs(stack: dict[str, Any]) -> None:
    needed = stack["services"]["proxy"]["depends_on"]

    assert needed == {
        "redis": {"condition": "service_healthy"},
        "graph": {"condition": "service_healthy"},
    }
    assert all("healthcheck" in stack["services"][name] for name in needed)


def test_every_variable_of_the_stack_is_a_setting(stack: dict[str, Any]) -> None:
    allowed = {PREFIX + row.name for row in ROWS}
    allowed |= {f"{PREFIX}{row.name}_FILE" for row in ROWS if row.may_be_in_file}

    for service in stack["services"].values():
        ours = {n for n in service.get("environment", {}) if n.startswith(PREFIX)}
        assert ours <= allowed


def test_settings_of_the_stack_are_valid(stack: dict[str, Any]) -> None:
    settings = Settings.from_env(local_environment(stack))
    password = ROOT / stack["secrets"]["redis_password"]["file"]

    assert str(settings.listen) == "0.0.0.0:8080"
    assert settings.store_url.masked == "redis://:***@redis:6379/0"
    assert settings.store_url.password == password.read_text().strip()
    assert settings.graph_url == "http://graph:9100"


def test_proxy_has_enough_time_to_stop(stack: dict[str, Any]) -> None:
    """For draining, and then for waiting callers: at most two deadlines and 5 s."""
    settings = Settings.from_env(local_environment(stack))
    grace = stack["services"]["proxy"]["stop_grace_period"]

    assert (
        int(grace.removesuffix("s"))
        > settings.drain_for + 2 * settings.graph_timeout + 5
    )


def test_every_secret_is_a_file(stack: dict[str, Any]) -> None:
    """No secret is in the environment, where `docker inspect` shows it."""
    proxy = stack["services"]["proxy"]
    secret = {PREFIX + row.name for row in ROWS if row.may_be_in_file}

    assert not secret & proxy["environment"].keys()
    assert stack["services"]["redis"]["secrets"] == ["redis_password"]
    assert set(proxy["secrets"]) == set(stack["secrets"]) - {"redis_password"}
    for name, source in stack["secrets"].items():
        assert source == {"file": f"./deploy/local/{name}"}
    for name in proxy["secrets"]:
        assert f"/run/secrets/{name}" in proxy["environment"].values()


def test_key_in_the_comment_of_the_key_file_opens_the_local_proxy() -> None:
    text = (ROOT / "deploy/local/api_keys").read_text()
    shown = re.findall(r"^#.*Bearer (pp_[\w-]+)", text, re.MULTILINE)
    keys = auth.read_keys(text)

    assert "Local stack only" in text.splitlines()[0]
    assert len(shown) == 1
    assert f"KEY={shown[0]}," in (ROOT / "docker-compose.yml").read_text()
    assert list(keys) == [auth.digest_of(shown[0])]
    assert keys[auth.digest_of(shown[0])].scopes == {"read", "admin"}


def test_simulated_graph_accepts_the_token_of_the_proxy(
    stack: dict[str, Any],
) -> None:
    settings = Settings.from_env(local_environment(stack))
    simulated = stack["services"]["graph"]["environment"]

    assert simulated["SIM_TOKEN"] == settings.page_token.value


def test_simulated_graph_is_healthy_while_it_answers(
    stack: dict[str, Any],
) -> None:
    shell, python, *arguments = stack["services"]["graph"]["healthcheck"]["test"]
    assert (shell, python) == ("CMD", "python")

    def health(port: str) -> int:
        command = [argument.replace("9100", port) for argument in arguments]
        return run(sys.executable, *command).returncode

    with Simulator() as simulator:
        port = simulator.url.rpartition(":")[2]
        assert health(port) == 0
    assert health(port) != 0


def test_simulated_graph_starts_with_the_arguments_of_the_stack(
    stack: dict[str, Any],
) -> None:
    """Except for the port, which is a free one."""
    graph = stack["services"]["graph"]
    assert graph["entrypoint"][0] == "python"
    words = [*graph["entrypoint"][1:], *graph["command"], "--exit-with-stdin"]
    command = [word.replace("0.0.0.0:9100", "127.0.0.1:0") for word in words]

    with subprocess.Popen(
        [sys.executable, *command],
        cwd="/",
        env=os.environ | graph["environment"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as simulator:
        assert simulator.stdin and simulator.stdout
        printed = json.loads(simulator.stdout.readline())
        simulator.stdin.close()
        simulator.wait(timeout=10)

    assert printed["url"].startswith("http://127.0.0.1:")
    assert simulator.returncode == 0


# The script that checks a commit


@pytest.mark.parametrize("script", [".ci/run", ".ci/install"])
def test_script_of_the_checks_is_executable_and_valid(script: str) -> None:
    bash = shutil.which("bash")
    assert bash

    checked = run(bash, "-n", script)

    assert os.access(ROOT / script, os.X_OK)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_installed_package_is_not_installed_again() -> None:
    """The script uses no network and prints nothing."""
    done = run(".ci/install", "bash", "python3-venv")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_package_that_cannot_be_installed_is_only_reported(tmp_path: Path) -> None:
    """As on a machine without apt: the other checks run without it."""
    bash = shutil.which("bash")
    assert bash
    (tmp_path / "bash").symlink_to(bash)

    done = run(bash, ".ci/install", "bash", "no-such", env={"PATH": str(tmp_path)})

    assert done.returncode == 0
    assert "Missing here: no-such." in done.stderr


def test_script_of_all_checks_runs_the_commands_of_make_check() -> None:
    """Otherwise a commit could pass for its author and fail elsewhere."""
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe
    wanted = re.findall(r"\$\(BIN\)/(.*)", recipe[1])
    script = (ROOT / ".ci/run").read_text()
    done = re.findall(r'^check "\$VENV/bin/([\w-]+)"(.*)$', script, re.MULTILINE)

    assert [name + rest for name, rest in done] == wanted[:-1]
    assert wanted[-1] == "pytest"
    assert "\ncheck make test\n" in script
