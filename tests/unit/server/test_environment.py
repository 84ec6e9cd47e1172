"""The environment variables that a worker removes, and those that it keeps."""

import pytest

from proxy.server.environment import scrub_framework_names, scrub_secrets


@pytest.mark.parametrize(
    "name",
    [
        "PROXY_PAGE_TOKEN",
        "PROXY_LISTEN",
        "proxy_near_entries",
        "GITHUB_TOKEN",
        "token",
        "AWS_SECRET_ACCESS_KEY",
        "db_password",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "REDISCLI_AUTH",
        "PGPASSWORD",
        "DATABASE_URL",
        "HTTPS_PROXY",
        "SSLKEYLOGFILE",
        "MYSQL_PWD",
        "DB_PW",
        "OPENAI_APIKEY",
        "GITHUB_PAT",
        "PRIVATE_PEM",
        "AZURE_STORAGE_CONNECTION_STRING",
    ],
)
def test_scrub_secrets_removes_our_settings_and_secrets(name: str) -> None:
    environ = {name: "canary"}

    scrub_secrets(environ)

    assert environ == {}


@pytest.mark.parametrize(
    "name",
    [
        "TZ",
        "PWD",
        "LC_ALL",
        "SSL_CERT_FILE",
        "PYTHONUNBUFFERED",
        "LD_LIBRARY_PATH",
        "RES_OPTIONS",
        "KEYBOARD_LAYOUT",
        "TOKENIZERS_PARALLELISM",
    ],
)
def test_scrub_secrets_keeps_what_a_library_may_read(name: str) -> None:
    """Only whole words between underscores make a name a secret's."""
    environ = {name: "value"}

    scrub_secrets(environ)

    assert environ == {name: "value"}


@pytest.mark.parametrize(
    "name",
    [
        "HTTP_X_FORWARDED_FOR",
        "CONTENT_LENGTH",
        "REMOTE_USER",
        "FLASK_DEBUG",
        "wsgi.input",
        "profile-proxy.snapshot",
    ],
)
def test_scrub_framework_names_removes_what_a_request_would_show(name: str) -> None:
    """Granian sets each only where the client sends it, or never."""
    environ = {name: "value", "TZ": "UTC"}

    scrub_framework_names(environ)

    assert environ == {"TZ": "UTC"}
