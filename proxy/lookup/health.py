"""Why the service is degraded: the store, the gates, and the files that it reads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from proxy.coordination.gate_facts import GateFacts
from proxy.domain.failures import Cause, StoreUnavailable
from proxy.domain.profile import DEFAULT_PAGE
from proxy.lookup.pages import Pages
from proxy.observability.degraded import Degraded

LOOK_EVERY = 2.0
"""Seconds between two looks of a process that no caller asks."""

STORE_REASONS = (
    *("store_unavailable", "store_full", "store_auth", "store_scripts"),
    *("store_persists", "store_policy", "clock_skew"),
)
PAGE_FILE_REASONS = "page_token_file_bad", "app_secret_file_bad"
FILE_REASONS = (
    *("api_keys_file_bad", "pages_file_bad", *PAGE_FILE_REASONS),
    *("webhook_verify_token_file_bad", "webhook_secrets_file_bad"),
    "picture_link_secret_file_bad",
)
GATE_REASONS = {
    Cause.TOKEN_REJECTED: "token_rejected",
    Cause.PERMISSION: "permission",
    Cause.UNAVAILABLE: "graph_unavailable",
}
"""The causes that close a gate and that an operator should know of."""

LACKS_PERMISSION = "lacks_permission"
"""Codes about the app or the Page: the gate may be open all the same."""

PAGE_REASONS = (*GATE_REASONS.values(), LACKS_PERMISSION, *PAGE_FILE_REASONS)
"""The reasons about one Page; of a named Page, ``:<page>`` follows."""

REASONS = (*STORE_REASONS, *FILE_REASONS, *GATE_REASONS.values(), LACKS_PERMISSION)

log = logging.getLogger(__name__)


class Health:
    """Looks for every reason why the service is degraded, for readyz and metrics."""

    def __init__(
        self,
        pages: Pages,
        file_problems: Callable[[], list[str]],
        degraded: Degraded,
        *,
        is_reporter: Callable[[], bool] = lambda: True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """*file_problems* reads the files again, and returns the invalid ones.

        *is_reporter* returns whether this process logs for its instance; *monotonic*
        is in seconds.
        """
        self._pages = pages
        self._file_problems = file_problems
        self._degraded = degraded
        self._is_reporter = is_reporter
        self._monotonic = monotonic
        self._looking = threading.Lock()
        self._begun_at = -1.0
        self._reasons: list[str] = []
        self._logged: list[str] = []
        self._started = threading.Lock()  # Acquired once, and never released.

    def keep_looking(self) -> None:
        """Look every two seconds from now on, whether requests come or not.

        Never before a fork, which the thread would not survive.
        """
        if self._started.acquire(blocking=False):
            threading.Thread(target=self._look_for_ever, daemon=True).start()

    def _look_for_ever(self) -> None:
        while True:
            try:
                self.look()
            except Exception:
                log.exception("cannot look for reasons of degradation")
            time.sleep(LOOK_EVERY)

    def look(self) -> list[str]:
        """Return every reason now, set the metric, and log a change.

        Callers that come while one looks share the next look. It costs three trips to
        the store, one more every ten seconds, and no call to Meta.
        """
        came_at = self._monotonic()
        with self._looking:
            if self._begun_at <= came_at:
                self._begun_at = self._monotonic()
                self._reasons = self._find()
                self._degraded.set(self._reasons, self._of_pages())
                self._log_change()
            return self._reasons

    def _find(self) -> list[str]:
        found = dict.fromkeys(self._file_problems())
        page = self._pages.any
        try:
            try:
                page.check_store()
            except StoreUnavailable as away:
                found[away.reason] = None
                if away.reason == StoreUnavailable.code:
                    return [*found]
            found |= dict.fromkeys(page.store_warnings())
            found |= dict.fromkeys(self._of_gates())
        except StoreUnavailable as away:
            found[away.reason] = None
        return [*(found | dict.fromkeys(sorted(page.store.recent_reasons())))]

    def _of_gates(self) -> list[str]:
        return [
            _of_page(reason, name)
            for name, facts in self._pages.gate_facts().items()
            for reason in reasons_of(facts)
        ]

    def _of_pages(self) -> list[str]:
        """The reasons that any Page can have, so that their series exist."""
        return [
            _of_page(reason, name)
            for name in self._pages.all()
            for reason in PAGE_REASONS
        ]

    def _log_change(self) -> None:
        if set(self._reasons) == set(self._logged):
            return
        self._logged = self._reasons
        if self._is_reporter():
            message = "degraded" if self._reasons else "no longer degraded"
            log.warning(message, extra={"reasons": self._reasons})


def reasons_of(facts: GateFacts) -> list[str]:
    """The reasons in the *facts* about a Page's gate."""
    closed = [GATE_REASONS[each] for each in facts.causes if each in GATE_REASONS]
    return closed + [LACKS_PERMISSION] * facts.lacks_permission


def _of_page(reason: str, page: str) -> str:
    return reason if page == DEFAULT_PAGE else f"{reason}:{page}"
