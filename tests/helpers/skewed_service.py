"""The service with a clock that is ahead: ``python skewed_service.py PORT SECONDS``."""

from __future__ import annotations

import os
import sys
import time

from werkzeug.serving import make_server

from proxy.app import create_app
from proxy.live_files import read_settings
from proxy.logs import write_to_stderr


def main(port: int, seconds: float) -> None:
    """Serve with a clock that is *seconds* ahead, until killed."""
    settings = read_settings(os.environ)
    write_to_stderr(settings.log_level)
    app = create_app(settings, now=lambda: time.time() + seconds)
    make_server("127.0.0.1", port, app, threaded=True).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
