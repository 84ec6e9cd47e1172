"""A read-only system: the folder that workers share, and how its lack is reported."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.helpers.processes import BIN, PAGE_TOKEN, free_port, wait_until
from tests.helpers.redis_servers import require

FOLDERS = ("/dev/shm", "/tmp", "/var/tmp")
"""Where temporary files can go on a usual system."""


def start(*read_only: str, **env: str) -> subprocess.Popen[str]:
    """Start the service where these folders are *read_only*, in one of them."""
    allowed = subprocess.run(["unshare", "-rm", "true"], capture_output=True)
    require(allowed.returncode == 0, "the right to unshare mounts")
    commands = [
        f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"
        for folder in read_only
    ]
    commands.append(f"cd {read_only[0]} && exec {BIN / 'profile-proxy'} run")
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PROXY_") and name not in ("TMPDIR", "TEMP", "TMP")
    }
    ours |= {"PROXY_PAGE_TOKEN": PAGE_TOKEN, "PROXY_LISTEN": f"127.0.0.1:{free_port()}"}
    return subprocess.Popen(
        ["unshare", "-rm", "sh", "-c", " && ".join(commands)],
        env=ours | {"PROXY_WORKERS": "1", "PROXY_DRAIN_FOR": "0s"} | env,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("store", ["redis://127.0.0.1:1/0", "embedded:"])
def test_system_without_a_writable_folder_is_reported_in_one_line(store: str) -> None:
    service = start(*FOLDERS, PROXY_STORE_URL=store)

    _, stderr = service.communicate(timeout=20)

    assert service.returncode == 2
    assert stderr == (
        "/dev/shm or TMPDIR must be writable: the workers share their counts there.\n"
    )


def test_tmpdir_is_used_where_dev_shm_is_read_only(tmp_path: Path) -> None:
    service = start(
        "/dev/shm", TMPDIR=str(tmp_path), PROXY_STORE_URL="redis://127.0.0.1:1/0"
    )
    try:
        wait_until(lambda: any(tmp_path.glob("profile-proxy-*/*.db")), 10, "counts")
    finally:
        service.send_signal(signal.SIGTERM)
        _, stderr = service.communicate(timeout=20)

    assert service.returncode == 0
    assert "Traceback" not in stderr
    assert not any(tmp_path.glob("profile-proxy-*"))
