"""Meta's recorded replies, by the names of their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "fixtures" / "graph"

RECORDED: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))
}
"""Every recording: replies, webhooks, and answers of the CDN and the token pages."""

REPLIES = {k: v for k, v in RECORDED.items() if v["kind"].startswith("graph_")}
ERRORS = {k: v["body"] for k, v in REPLIES.items() if v["kind"] == "graph_error"}
