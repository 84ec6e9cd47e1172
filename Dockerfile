# The service, and the simulated Graph of the local stack:
#   ENTRYPOINT profile-proxy        any of its commands; `run` is the default
#   python -m proxy.simulator       in its place, with --entrypoint python
# Nothing is written outside of /tmp and /dev/shm, so the root may be read-only.

FROM python:3.13-slim AS build

WORKDIR /src
RUN python -m venv --without-pip /opt/venv
COPY setup.py setup.cfg pyproject.toml README.md LICENSE ./
COPY proxy ./proxy
# pip compiles what it installs, so that a start has nothing to compile or write.
RUN pip --python /opt/venv/bin/python install --no-cache-dir .


FROM python:3.13-slim

LABEL org.opencontainers.image.title="graph-profile-proxy" \
      org.opencontainers.image.description="A caching profile proxy in front of Meta's User Profile API for Instagram" \
      org.opencontainers.image.licenses="MIT"

COPY --from=build /opt/venv /opt/venv

# On every address of the container. Without PROXY_API_KEYS_FILE the service then
# refuses to start with a clear error, because any host could call it.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PROXY_LISTEN=0.0.0.0:8080

# A number, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080
# It drains, and takes up to 20 s; Docker waits for 10 s unless told --stop-timeout 30.
STOPSIGNAL SIGTERM

# http.client knows nothing of HTTP_PROXY, which Docker may set in every container.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; port = os.environ.get('PROXY_LISTEN', '').rpartition(':')[2] or '8080'; client = http.client.HTTPConnection('127.0.0.1', int(port), timeout=2); client.request('GET', '/healthz'); sys.exit(client.getresponse().status != 200)"]

ENTRYPOINT ["profile-proxy"]
CMD ["run"]
