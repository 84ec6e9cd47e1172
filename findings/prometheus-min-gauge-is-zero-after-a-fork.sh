#!/usr/bin/env bash
# In prometheus_client's multiprocess mode, a fork that counts something else turns a gauge
# of mode "min" to 0.
#
# The guess: a gauge that a parent has set to 5 is 5 until it is set again; a child that
# never touches it does not change it.
#
# What happens: at its first count of anything, a forked child gives each metric that it
# has inherited a value of its own in its own file, and that begins at 0. From then on the
# least over all processes is 0 (and the greatest of negative values, too), and a gauge of
# mode "all" has a line for the child. A child that counts nothing changes nothing, and
# "sum" and "mostrecent" do not show it.
#
# Seen with prometheus_client 0.26.0, for a parent that sets 5 (the one of "max": -5):
#
#     before                           min 5.0   max -5.0   sum 5.0   mostrecent 5.0
#     after a child without a count    min 5.0   max -5.0   sum 5.0   mostrecent 5.0
#     after a child with a count       min 0.0   max 0.0   sum 5.0   mostrecent 5.0
#
# For a service that forks its workers after its metrics are made: "fewest free
# connections" alerts for nothing at the first request. Use "mostrecent", or set such
# gauges in each worker at its start.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --quiet --disable-pip-version-check \
    prometheus-client==0.26.0
cd "$room"
mkdir counts
cat >see.py <<'PYTHON'
import os, sys

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.multiprocess import MultiProcessCollector

MODES = "min", "max", "sum", "mostrecent"
gauges = {mode: Gauge(f"free_{mode}", "Free.", multiprocess_mode=mode) for mode in MODES}
jobs = Counter("jobs", "Jobs.")
summed = CollectorRegistry()
MultiProcessCollector(summed)
seen = []


def look(when):
    values = [summed.get_sample_value(f"free_{mode}") for mode in MODES]
    seen.append(values)
    print(f"{when:30}", *(f"  {mode} {value}" for mode, value in zip(MODES, values)))


def fork(work):
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    os.waitpid(child, 0)


for mode, gauge in gauges.items():
    gauge.set(-5 if mode == "max" else 5)
look("before")
fork(lambda: None)
look("after a child without a count")
fork(jobs.inc)
look("after a child with a count")
if seen != [[5, -5, 5, 5], [5, -5, 5, 5], [0, 0, 5, 5]]:
    sys.exit("CHANGED: a fork does otherwise to gauges")
PYTHON
PROMETHEUS_MULTIPROC_DIR=$room/counts venv/bin/python see.py
