"""What most teams write: a view, and one of three ways to cache Meta's replies."""

from __future__ import annotations

import os
from collections.abc import Callable

import redis
import requests
from flask import Flask, Response, jsonify
from flask_caching import Cache

TTL = 3600


def memoize() -> Flask:
    """Flask-Caching's ``@cache.memoize`` around the call."""
    app = Flask(__name__)
    cache = _flask_caching(app)

    @cache.memoize(timeout=TTL)
    def fetch(igsid: str) -> dict:
        return _ask(requests.get, igsid)

    return _app_with(app, fetch)


def cache_get() -> Flask:
    """Flask-Caching's ``cache.get`` and ``cache.set`` by hand."""
    app = Flask(__name__)
    cache = _flask_caching(app)

    def find(igsid: str) -> dict:
        profile = cache.get(igsid)
        if profile is None:
            profile = _ask(requests.get, igsid)
            cache.set(igsid, profile, timeout=TTL)
        return profile

    return _app_with(app, find)


def requests_cache() -> Flask:
    """requests-cache in place of requests, with its Redis backend."""
    from requests_cache import CachedSession, RedisCache

    backend = RedisCache(connection=redis.Redis.from_url(os.environ["STORE_URL"]))
    session = CachedSession(backend=backend, expire_after=TTL)
    return _app_with(Flask(__name__), lambda igsid: _ask(session.get, igsid))


def _flask_caching(app: Flask) -> Cache:
    app.config.update(CACHE_TYPE="RedisCache", CACHE_REDIS_URL=os.environ["STORE_URL"])
    return Cache(app)


def _app_with(app: Flask, find: Callable[[str], dict]) -> Flask:
    @app.get("/profiles/<igsid>")
    def profile(igsid: str) -> Response:
        return jsonify(find(igsid))

    return app


def _ask(get: Callable[..., requests.Response], igsid: str) -> dict:
    answer = get(
        f"{os.environ['GRAPH_URL']}/v25.0/{igsid}",
        params={
            "fields": os.environ["GRAPH_FIELDS"],
            "access_token": os.environ["GRAPH_TOKEN"],
        },
        timeout=10,
    )
    answer.raise_for_status()
    return dict(answer.json())
