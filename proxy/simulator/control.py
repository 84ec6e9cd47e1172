"""The control routes under ``/_sim/``, by which tests script and observe."""

from collections.abc import Callable, Mapping

from proxy.simulator import errors, people
from proxy.simulator.index import index
from proxy.simulator.ledger import Ledger
from proxy.simulator.pictures import Album
from proxy.simulator.reading import (
    BadRequest,
    read_flag,
    read_integer,
    read_object,
    read_text,
)
from proxy.simulator.replies import Reply, own_json
from proxy.simulator.scenario import (
    FIRST_PAGE,
    Scenario,
    Throttle,
    TokenDeath,
    Usage,
)
from proxy.simulator.scripts import Script, read_script
from proxy.simulator.webhooks import Webhooks, account_of

MAX_POLL = 30.0
_PEOPLE = "/_sim/people/"
_WRITES = "/writes"


class Control:
    """Answers the control calls; *clock* returns the time of a token's death.

    *webhooks* are sent about messages, if there is a receiver. *url* is where it
    listens, for examples.
    """

    def __init__(
        self,
        scenario: Scenario,
        ledger: Ledger,
        album: Album,
        clock: Callable[[], float],
        webhooks: Webhooks | None = None,
        url: str = "",
    ) -> None:
        self._scenario = scenario
        self._webhooks = webhooks
        self._ledger = ledger
        self._album = album
        self._clock = clock
        self._url = url
        self._queries: Mapping[str, Callable[[Mapping[str, str]], Reply]] = {
            "/_sim/": self._index,
            "/_sim/health": self._health,
            "/_sim/people": self._people,
            "/_sim/calls": self._calls,
            "/_sim/await": self._await,
        }
        self._commands: Mapping[str, Callable[[object], Reply]] = {
            "/_sim/throttle": self._throttle,
            "/_sim/token": self._token,
            "/_sim/usage": self._usage,
            "/_sim/fields": self._fields,
            "/_sim/release": self._release,
            "/_sim/reset": self._reset,
        }

    def answer(
        self, method: str, path: str, query: Mapping[str, str], body: object
    ) -> Reply:
        """Return the answer of a control call: 200, 400 and why, 404, 405, or 408."""
        try:
            if path.startswith(_PEOPLE):
                return self._person(method, path.removeprefix(_PEOPLE), body)
            if path in self._queries and method in ("GET", "HEAD"):
                return self._queries[path](query)
            if path in self._commands and method == "POST":
                return self._commands[path](body)
        except BadRequest as exc:
            return own_json(400, {"problem": str(exc)})
        if path in self._queries or path in self._commands:
            return own_json(405, {"problem": f"{method} is not for {path}"})
        return own_json(404, {"problem": f"nothing at {path}; GET /_sim/ lists all"})

    def _person(self, method: str, path: str, body: object) -> Reply:
        igsid = path.removesuffix(_WRITES)
        if not (igsid.isascii() and igsid.isdigit() and len(igsid) <= 25):
            raise BadRequest("an igsid is 1 to 25 digits")
        if path.endswith(_WRITES):
            return self._writes(method, igsid)
        if method == "PUT":
            script = read_script(body, igsid, self._clock())
            self._scenario.set_script(igsid, script)
            return own_json(200, {"igsid": igsid, "scripted": True})
        if method == "DELETE":
            self._scenario.remove_script(igsid)
            return own_json(200, {"igsid": igsid, "scripted": False})
        return own_json(405, {"problem": f"{method} is not for a person"})

    def _writes(self, method: str, igsid: str) -> Reply:
        if method != "POST":
            return own_json(405, {"problem": f"{method} is not for writing"})
        rules = self._scenario.rules_of(
            self._scenario.page_of_person(igsid) or FIRST_PAGE
        )
        if self._webhooks is None or rules.app_secret is None:
            raise BadRequest("start with --webhook-url and the Page's app secret")
        self._scenario.set_script(igsid, Script(profile={}))
        status = self._webhooks.send_message(
            igsid, account_of(rules.number), rules.app_secret, self._clock()
        )
        return own_json(200, {"igsid": igsid, "consents": True, "webhook": status})

    def _index(self, query: Mapping[str, str]) -> Reply:
        return own_json(200, index(self._url), indent=2)

    def _health(self, query: Mapping[str, str]) -> Reply:
        return own_json(200, {"status": "ok"})

    def _people(self, query: Mapping[str, str]) -> Reply:
        scripted = self._scenario.scripted()
        cast = [
            {
                "igsid": igsid,
                "page": page,
                "name": person.first_name,
                "shows": person.description,
                "scripted": igsid in scripted,
            }
            for page in self._scenario.pages
            for person in people.CAST.values()
            if (igsid := self._id_at(page, person.igsid))
        ]
        answer = {"people": cast, "crowd": f"{people.CROWD}...", "scripted": scripted}
        return own_json(200, answer)

    def _id_at(self, page: str, igsid: str) -> str:
        return people.id_at(self._scenario.rules_of(page).number, igsid)

    def _calls(self, query: Mapping[str, str]) -> Reply:
        if "igsid" in query:
            return own_json(200, {"total": self._ledger.total(query["igsid"])})
        return own_json(200, self._ledger.overview())

    def _await(self, query: Mapping[str, str]) -> Reply:
        calls = _number(query, "calls", 1)
        seconds = _number(query, "seconds", 10)
        if not 0 <= seconds <= MAX_POLL:
            raise BadRequest(f"'seconds' must be from 0 to {MAX_POLL:g}")
        if not 1 <= calls <= 1_000_000_000:
            raise BadRequest("'calls' must be at least 1")
        arrived, total = self._ledger.wait(query.get("igsid"), int(calls), seconds)
        return own_json(200 if arrived else 408, {"total": total})

    def _throttle(self, body: object) -> Reply:
        order = read_object(body, {"code", "minutes", "page"})
        page = self._page(order)
        if order.get("code") is None:
            self._scenario.throttle(None, page)
            return own_json(200, {"throttled": False})
        code = read_integer(order["code"], "code", low=0, high=100_000)
        if errors.throttled(code) is None:
            raise BadRequest("'code' must be 4, 17, 32, 613 or 80000 to 80014")
        minutes = read_integer(order.get("minutes", 0), "minutes", low=0, high=100_000)
        self._scenario.throttle(Throttle(code, minutes), page)
        return own_json(200, {"throttled": True})

    def _token(self, body: object) -> Reply:
        order = read_object(body, {"alive", "subcode", "value", "page"})
        page = self._page(order)
        value = read_text(order["value"], "value") if "value" in order else None
        subcode = order.get("subcode", 463)
        if subcode is not None:
            subcode = read_integer(subcode, "subcode", low=0, high=10_000_000)
        if value is not None:
            self._scenario.change(page=page, token=value)
        if "alive" in order:
            is_alive = read_flag(order["alive"], "alive")
            death = None if is_alive else TokenDeath(subcode, self._clock())
            self._scenario.set_token_death(death, page)
        return own_json(200, {"alive": self._scenario.rules_of(page).death is None})

    def _usage(self, body: object) -> Reply:
        order = read_object(body, {"call_count", "minutes", "type", "page"})
        page = self._page(order)
        if order.get("call_count") is None:
            self._scenario.set_usage(None, page)
            return own_json(200, {"scripted": False})
        percent = read_integer(order["call_count"], "call_count", low=0, high=1000)
        minutes = read_integer(order.get("minutes", 0), "minutes", low=0, high=100_000)
        kind = read_text(order["type"], "type") if "type" in order else None
        self._scenario.set_usage(Usage(percent, minutes, kind), page)
        return own_json(200, {"scripted": True})

    def _fields(self, body: object) -> Reply:
        order = read_object(body, {"nonexisting", "page"})
        missing = order.get("nonexisting", [])
        if not isinstance(missing, list):
            raise BadRequest("'nonexisting' must be a list of names")
        names = frozenset(read_text(name, "nonexisting") for name in missing)
        self._scenario.change(page=self._page(order), missing_fields=names)
        return own_json(200, {"nonexisting": sorted(names)})

    def _page(self, order: Mapping[str, object]) -> str:
        """Return the name of the Page that an order is about."""
        page = read_text(order.get("page", FIRST_PAGE), "page")
        if page not in self._scenario.pages:
            raise BadRequest(
                f"'page' must be one of: {', '.join(self._scenario.pages)}"
            )
        return page

    def _release(self, body: object) -> Reply:
        self._scenario.release()
        return own_json(200, {"released": True})

    def _reset(self, body: object) -> Reply:
        self._scenario.reset()
        self._ledger.reset()
        self._album.clear()
        return own_json(200, {"reset": True})


def _number(query: Mapping[str, str], key: str, default: float) -> float:
    try:
        return float(query.get(key, default))
    except ValueError:
        raise BadRequest(f"{key!r} must be a number") from None
