"""The client that the service would have of a store, from its URL as text."""

import redis

from proxy.storage import client_factory
from proxy.storage.store_url import StoreUrl


def new_client(url: str, connections: int) -> redis.Redis:
    return client_factory.new_client(StoreUrl.parse(url), connections)
