"""GET /metrics after use: valid form, known labels, and no secrets."""

from __future__ import annotations

import shutil
import subprocess
from itertools import chain

import pytest

from proxy.domain.failures import Cause
from proxy.domain.profile import FIELDS
from proxy.domain.webhook_update import UpdateKind, UpdateResult
from proxy.lookup.health import REASONS
from proxy.observability.call_metrics import SECONDS_OF_A_CALL
from proxy.observability.instance import version
from proxy.observability.metrics import FAILURE_CODES, OUTCOMES
from proxy.observability.request_metrics import SECONDS_OF_A_REQUEST
from proxy.web.problems import PROBLEMS
from proxy.web.route_labels import UNKNOWN_ROUTE, request_labels
from tests.helpers.processes import ADA, APP_SECRET, BEN, CLEO, IVO, PAGE_TOKEN, crowd
from tests.helpers.prometheus import samples, total
from tests.helpers.redis_servers import require

ALLOWED = {
    "source": {"near", "hit", "stale", "fetched", "collapsed", "none"},
    "outcome": {*OUTCOMES, *FAILURE_CODES},
    "result": {
        *OUTCOMES,
        *FAILURE_CODES,
        *("succeeded", "failed", "hit", "miss", "bypassed"),
        *("accepted", "refused", *(result.value for result in UpdateResult)),
    },
    "kind": {"reads", "writes", *(kind.value for kind in UpdateKind)},
    "cause": {*(cause.value for cause in Cause), "invalidated", "evicted"},
    "field": {*FIELDS},
    "version": {"v25.0", version()},
    "page": {"default", ""},
    "le": {*map(str, (*SECONDS_OF_A_CALL, *SECONDS_OF_A_REQUEST)), "+Inf"},
    "route": {UNKNOWN_ROUTE, *request_labels().statuses},
    "status": {
        *map(str, chain(*request_labels().statuses.values(), PROBLEMS.values())),
    },
    "reason": {*REASONS, *OUTCOMES},
    "key": {"inbox", "ops", "both"},
}
"""Every label, and its possible values."""


def test_usage_of_another_product_is_not_ours(stack) -> None:
    """Neither refreshes nor misses are slowed by a spent quota for advertising."""
    stack.meta.order("usage", call_count=97, minutes=30, type="ads_management")
    stack.service.get(f"/profiles/{crowd(1)}")
    foreign = total(stack.service.get("/metrics").text, "graph_usage_ratio")
    stack.meta.order("usage", call_count=97, type="messenger")
    stack.service.get(f"/profiles/{crowd(2)}")
    own = total(stack.service.get("/metrics").text, "graph_usage_ratio")

    assert (foreign, own) == (None, 0.97)


@pytest.fixture
def scrape(stack, guarded) -> str:
    """The metrics after hits, refusals, failures, an erase and an inspection."""
    both = {"Authorization": f"Bearer {guarded.both}"}
    for person in (ADA, ADA, BEN, CLEO, IVO, crowd(1), "x"):
        guarded.service.get(
            f"/profiles/{person}?fields=name",
            headers=both | {"X-Request-ID": "canary-request"},
        )
    guarded.service.get(f"/admin/profiles/{ADA}", headers=both)
    guarded.service.request("DELETE", f"/admin/profiles/{ADA}", headers=both)
    guarded.service.get(f"/canary-path?access_token={PAGE_TOKEN}")
    answer = guarded.service.get("/metrics")
    assert answer.ok, answer.text
    return answer.text


def test_metrics_pass_promtool(scrape) -> None:
    """promtool checks names, units, types and help texts."""
    promtool = shutil.which("promtool")
    require(promtool, "promtool")

    check = subprocess.run(
        [str(promtool), "check", "metrics"],
        input=scrape,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert check.returncode == 0, check.stdout + check.stderr


def test_label_values_come_only_from_our_tables(scrape) -> None:
    """So no token, name, id or URL can become a label."""
    scraped = samples(scrape)

    assert sum(s.value for s in scraped if s.name == "profile_proxy_answers_total") > 0
    for sample in scraped:
        for label, value in sample.labels.items():
            assert value in ALLOWED[label], sample


def test_metrics_contain_no_secret_and_no_person(scrape, guarded) -> None:
    """Neither in a label nor in a text."""
    for secret in (
        *(PAGE_TOKEN, APP_SECRET, guarded.both),
        *(ADA, BEN, CLEO, IVO, crowd(1)),
        *("Ada", "Lovelace", "canary", "http"),
    ):
        assert secret not in scrape
