"""Remove variables from a worker's environment that must not be in a request's.

Granian copies the environment into each request's environ. All other variables stay:
a library may read them while it serves (``TZ``, ``SSL_CERT_FILE``, ``RES_OPTIONS``).
"""

from __future__ import annotations

from collections.abc import MutableMapping

SECRET_WORDS = frozenset(
    "APIKEY AUTH COOKIE CREDENTIAL CREDENTIALS KEY KEYS PASS PASSPHRASE PASSWD"
    " PASSWORD PASSWORDS PAT PRIVATE PW SECRET SECRETS TOKEN TOKENS"
    # Our own settings (PROXY_PAGE_TOKEN), and the addresses of proxies (HTTPS_PROXY).
    " PROXY"
    # An address often has a password in it.
    " CONNECTION DSN URI URL"
    # Written as one word. With the last, TLS would write its session keys to a file.
    " PGPASSWORD SSLKEYLOGFILE".split()
)
"""A variable holds a secret if one of these stands between underscores in its name."""

CGI_NAMES = frozenset(
    "AUTH_TYPE CONTENT_LENGTH CONTENT_TYPE HTTPS PATH_INFO PATH_TRANSLATED"
    " QUERY_STRING RAW_URI REMOTE_ADDR REMOTE_HOST REMOTE_IDENT REMOTE_PORT"
    " REMOTE_USER REQUEST_METHOD REQUEST_URI SCRIPT_NAME".split()
)
"""Names that WSGI reads as parts of a request, and granian does not always set.

Source: https://www.rfc-editor.org/rfc/rfc3875#section-4.1
"""


def scrub_secrets(environ: MutableMapping[str, str]) -> None:
    """Remove our settings (``PROXY_*``) and all variables whose name says secret."""
    for name in list(environ):
        words = name.upper().split("_")
        # PWD by itself is the working directory.
        if not SECRET_WORDS.isdisjoint(words) or "PWD" in words[1:]:
            del environ[name]


def scrub_framework_names(environ: MutableMapping[str, str]) -> None:
    """Remove variables that WSGI would read as parts of a request, or Flask as options.

    ``HTTP_X_API_KEY`` in the environment would be a header of every request,
    ``FLASK_DEBUG`` would turn our error bodies off, and a name with a dot would be
    one of WSGI's or of ours, such as ``wsgi.input``.
    """
    for name in list(environ):
        if name.startswith(("HTTP_", "FLASK_")) or name in CGI_NAMES or "." in name:
            del environ[name]
