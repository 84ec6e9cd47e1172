"""What has closed the gates of several Pages, on every kind of store."""

from __future__ import annotations

from proxy.coordination.gate_facts import GateFacts, read_facts
from proxy.coordination.gate_keys import GateKeys
from proxy.domain.failures import Cause
from proxy.storage.entries import EntryStore
from proxy.storage.flask_cache import ProfileCache

PAGES = "default", "shop", "news", "hq"
DIGEST = "0badcafe"


def test_facts_are_each_page_s_own(cache: ProfileCache) -> None:
    """In the order of the Pages, which are on different nodes of a Cluster."""
    gates = {page: GateKeys(cache, page) for page in PAGES}
    shop, news = gates["shop"], gates["news"]
    closed = {"level": 1, "until": 1, "failures": 3}
    cache.client.hset(shop.causes(DIGEST)[Cause.TOKEN_REJECTED], mapping=closed)
    cache.client.hset(shop.causes("other")[Cause.TOKEN_REJECTED], mapping=closed)
    cache.client.hset(news.causes(DIGEST)[Cause.PERMISSION], "failures", 2)
    cache.client.hset(news.causes(DIGEST)[Cause.UNAVAILABLE], mapping=closed)
    cache.client.hset(news.verdict, "is_refused", 1)
    cache.client.hset(gates["hq"].causes("other")[Cause.TOKEN_REJECTED], "level", 1)

    facts = read_facts(
        cache.nodes,
        EntryStore(cache, "default").guard,
        [(keys, DIGEST) for keys in gates.values()],
    )

    assert facts == [
        GateFacts((), False),
        GateFacts((Cause.TOKEN_REJECTED,), False),
        GateFacts((Cause.UNAVAILABLE,), True),
        GateFacts((), False),
    ]
