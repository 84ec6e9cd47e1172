"""Hits by ``wrk``, with a Lua script that requests the given paths.

Source: https://github.com/wg/wrk/blob/master/SCRIPTING
"""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections.abc import Sequence
from itertools import accumulate

from benchmarks.children import Failed, find, folder
from benchmarks.contenders import APT
from benchmarks.load import AUTHORIZATION

CONNECTIONS = 64

DRAWS = 200_000
"""Requests after which the order of `zipf` repeats: more than one round needs."""

_SCRIPT = """\
local requests, number, threads = {}, 0, {}
local expected = tonumber(os.getenv("BENCH_STATUS"))
unexpected, which = 0, 0 -- Not local, so that done() can read them in each thread.

function setup(thread) table.insert(threads, thread) end

function init()
  -- The same host as for priming: Varnish has an entry for each host.
  local headers = {Host = "localhost", Authorization = os.getenv("BENCH_AUTHORIZATION")}
  for path in io.lines(os.getenv("BENCH_PATHS")) do
    requests[#requests + 1] = wrk.format("GET", path, headers)
  end
end

function request()
  number = number % #requests + 1
  return requests[number]
end

function response(status)
  if status ~= expected then unexpected, which = unexpected + 1, status end
end

function done(summary, latency)
  local e, unexpected_count, last = summary.errors, 0, 0
  for _, thread in ipairs(threads) do
    unexpected_count = unexpected_count + thread:get("unexpected")
    last = math.max(last, thread:get("which"))
  end
  io.write(string.format("MEASURED %d %d %d %d %d %d\\n", summary.requests,
    summary.duration, unexpected_count, last, e.connect + e.read + e.write, e.timeout))
end
"""


def check() -> None:
    """Raise Missing if there is no wrk, before other programs are started."""
    _find()


def rate(port: int, paths: Sequence[str], *, seconds: int, status: int = 200) -> float:
    """Return answers a second on 64 keep-alive connections, to *paths* in this order.

    Checking each status costs wrk a quarter more, but it has a core of its own.

    Raises:
        Failed: an answer had another status, or did not come.
    """
    with folder() as private:
        script, order = private / "profiles.lua", private / "paths"
        script.write_text(_SCRIPT)
        order.write_text("\n".join(paths) + "\n")
        env = {
            "BENCH_PATHS": str(order),
            "BENCH_AUTHORIZATION": AUTHORIZATION,
            "BENCH_STATUS": str(status),
        }
        command = [_find(), "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout=10s"]
        done = subprocess.run(
            [*command, f"--script={script}", f"http://127.0.0.1:{port}"],
            env=os.environ | env,
            capture_output=True,
            text=True,
            timeout=seconds + 60,
        )
    return read(done.stdout + done.stderr)


def read(output: str) -> float:
    """Read answers a second from the last line of our script's *output*.

    Raises:
        Failed: an answer was wrong or did not come.
    """
    line = r"^MEASURED (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)$"
    measured = re.search(line, output, re.M)
    if measured is None:
        raise Failed(f"wrk printed: {output[-500:]}")
    numbers = map(int, measured.groups())
    requests, microseconds, unexpected_count, last, broken, late = numbers
    if not requests or unexpected_count or broken or late:
        raise Failed(
            f"of {requests} answers {unexpected_count} had a wrong status (the last was"
            f" {last}), {broken} connections broke and {late} requests timed out"
        )
    return requests * 1e6 / microseconds


def zipf(paths: Sequence[str], seed: int) -> list[str]:
    """Return an order with the *k*-th of *paths* in proportion to 1/*k*."""
    shares = list(accumulate(1 / rank for rank in range(1, len(paths) + 1)))
    return random.Random(seed).choices(paths, cum_weights=shares, k=DRAWS)


def _find() -> str:
    return find("wrk", f"{APT} wrk")
