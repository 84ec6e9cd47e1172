"""``fetch(url, {cache: "no-store"})`` of Node.js and of browsers, which is common.

It sends ``no-cache`` with every request, whatever the page or the service means by it.
"""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess

import pytest

from tests.helpers.processes import ADA
from tests.helpers.redis_servers import require
from tests.helpers.stack import Stack

REQUESTS = 10

SCRIPT = """
const [url, mode] = process.argv.slice(1);
const names = [];
for (let n = 0; n < 10; n++) {
  const answer = await fetch(url, {cache: mode});
  names.push((await answer.json()).name);
  await new Promise(done => setTimeout(done, 50));
}
console.log(JSON.stringify(names));
"""

NODE_HEADERS = {
    "connection": "keep-alive",
    "pragma": "no-cache",
    "cache-control": "no-cache",
    "accept": "*/*",
    "accept-language": "*",
    "sec-fetch-mode": "cors",
    "user-agent": "node",
    "accept-encoding": "gzip, deflate",
}
"""The headers of fetch in Node.js with the mode ``no-store``."""

RELOAD_HEADERS = NODE_HEADERS | {"cache-control": "max-age=0"}
"""Those of the mode ``no-cache``, which asks to revalidate."""


@pytest.mark.parametrize("mode", ["no-store", "no-cache", "reload"])
def test_ten_fetches_of_node_in_a_second_make_one_call(stack: Stack, mode: str) -> None:
    """The first asks Meta, and what it has learned satisfies the others."""
    node = shutil.which("node")
    require(node is not None, "Node.js")
    url = f"{stack.service.url}/profiles/{ADA}"
    ran = subprocess.run(
        [str(node), "--input-type=module", "-e", SCRIPT, url, mode],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ran.returncode == 0, ran.stderr
    assert len(json.loads(ran.stdout)) == REQUESTS
    assert stack.meta.calls(ADA) == 1


@pytest.mark.parametrize("headers", [NODE_HEADERS, RELOAD_HEADERS])
@pytest.mark.parametrize("error", [None, {"code": 230, "status": 403}])
def test_ten_raw_requests_with_the_headers_of_node_make_one_call(
    stack: Stack, headers: dict[str, str], error: dict[str, int] | None
) -> None:
    """A profile as well as a refusal: where there is no Node.js, this shows it."""
    if error:
        stack.meta.person(ADA, error=error)
    connection = http.client.HTTPConnection("127.0.0.1", stack.service.port, timeout=10)
    statuses, hits = set(), 0
    for _ in range(REQUESTS):
        connection.request("GET", f"/profiles/{ADA}", headers=headers)
        answer = connection.getresponse()
        answer.read()
        statuses.add(answer.status)
        hits += "; hit; " in answer.headers["Cache-Status"]
    connection.close()

    assert statuses == {403 if error else 200}
    assert hits == REQUESTS - 1
    assert stack.meta.calls(ADA) == 1


def test_operator_s_refresh_asks_meta_each_time(stack: Stack) -> None:
    """However young the entry is."""
    for _ in range(3):
        stack.service.request("POST", f"/admin/profiles/{ADA}/refresh")

    assert stack.meta.calls(ADA) == 3
