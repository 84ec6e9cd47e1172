"""The usage headers: how much of the quota is used, as Meta reports it."""

import json

from proxy.simulator.scenario import Rules, Usage

CALLS_AN_HOUR = 20_000
_IDS = ("645600000000344", "17841400000000182")
_PLATFORM_LIMITS = (4, 17)
_POOLS = {32: "pages", 80001: "pages", 80006: "messenger"}


def usage_headers(rules: Rules, this_hour: int) -> dict[str, str]:
    """Return the usage header of one reply, after *this_hour* calls of this hour.

    For a Page token it reports the business limits under two ids, the business
    and the account, with the wait in minutes. Where an app or user limit stops the
    call and no wait is set, ``x-app-usage`` replaces it, which never has a hint of
    the wait. The percentage may pass 100, as Meta's does.

    Source: https://developers.facebook.com/docs/graph-api/overview/rate-limiting
    """
    usage = rules.usage or Usage(percent=100 * this_hour // CALLS_AN_HOUR, minutes=0)
    pool = "instagram"
    if (throttle := rules.throttle) is not None:
        usage = Usage(max(100, usage.percent), max(throttle.minutes, usage.minutes))
        pool = _POOLS.get(throttle.code, pool)
        if throttle.code in _PLATFORM_LIMITS and not usage.minutes:
            return {"x-app-usage": _compact(_percentages(usage.percent))}
    if rules.has_instagram_login and not usage.minutes:
        # Observed at graph.instagram.com, which has other names.
        used = {"call_volume": usage.percent, "cpu_time": usage.percent // 4}
        return {"x-app-usage": _compact(used)}
    case = {
        "type": usage.type or pool,
        **_percentages(usage.percent),
        "estimated_time_to_regain_access": usage.minutes,
    }
    cases = {id_: [case] for id_ in _IDS}
    return {"x-business-use-case-usage": _compact(cases)}


def _percentages(percent: int) -> dict[str, int]:
    # Time and CPU hardly matter for reading a profile; a quarter is plausible.
    return {
        "call_count": percent,
        "total_cputime": percent // 4,
        "total_time": percent // 4,
    }


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
