"""What most teams write: a view, requests, and Flask-Caching's memoize."""

from __future__ import annotations

import os

import requests
from flask import Flask, Response, jsonify
from flask_caching import Cache

app = Flask(__name__)
app.config.update(CACHE_TYPE="RedisCache", CACHE_REDIS_URL=os.environ["STORE_URL"])
cache = Cache(app)


@cache.memoize(timeout=3600)
def fetch(igsid: str) -> dict:
    answer = requests.get(
        f"{os.environ['GRAPH_URL']}/v25.0/{igsid}",
        params={"fields": "name,username,profile_pic", "access_token": "EAABENCH"},
        timeout=10,
    )
    answer.raise_for_status()
    return dict(answer.json())


@app.get("/profiles/<igsid>")
def profile(igsid: str) -> Response:
    return jsonify(fetch(igsid))
