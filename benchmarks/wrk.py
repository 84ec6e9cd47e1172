"""Hits by the thousand: ``wrk``, with a script of ours for whom to ask about.

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
"""Requests after which the order of `zipf` begins anew: more than one round takes."""

_SCRIPT = """\
local requests, number, threads = {}, 0, {}
local expected = tonumber(os.getenv("BENCH_STATUS"))
unexpected, which = 0, 0 -- Not local, for done() to read them of each thread.

function setup(thread) table.insert(threads, thread) end

function init()
  -- The same host as when it was primed: Varnish keeps those of each apart.
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
  local e, strange, last = summary.errors, 0, 0
  for _, thread in ipairs(threads) do
    strange = strange + thread:get("unexpected")
    last = math.max(last, thread:get("which"))
  end
  io.write(string.format("MEASURED %d %d %d %d %d %d\\n", summary.requests,
    summary.duration, strange, last, e.connect + e.read + e.write, e.timeout))
end
"""


def check() -> None:
    """Raises Missing where there is no wrk, before anything else is started."""
    _find()


def rate(port: int, paths: Sequence[str], *, seconds: int, status: int = 200) -> float:
    """Answers a second on 64 keep-alive connections, asked for in the order of *paths*.

    Looking at each status costs wrk a quarter more, and it has a core of its own.

    Raises:
        Failed: one was not of this *status*, or did not come.
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


def read(said: str) -> float:
    """Answers a second, by what our script printed at the end.

    Raises:
        Failed: not all were as they must be.
    """
    measured = re.search(r"^MEASURED (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)$", said, re.M)
    if measured is None:
        raise Failed(f"wrk said: {said[-500:]}")
    numbers = map(int, measured.groups())
    requests, microseconds, strange, last, broken, late = numbers
    if not requests or strange or broken or late:
        raise Failed(
            f"of {requests} answers {strange} were not what they must be (the last was"
            f" {last}), {broken} connections broke and {late} requests had none in time"
        )
    return requests * 1e6 / microseconds


def zipf(paths: Sequence[str], seed: int) -> list[str]:
    """An order in which the *k*-th of *paths* is asked for in proportion to 1/*k*."""
    shares = list(accumulate(1 / rank for rank in range(1, len(paths) + 1)))
    return random.Random(seed).choices(paths, cum_weights=shares, k=DRAWS)


def _find() -> str:
    return find("wrk", f"{APT} wrk")
