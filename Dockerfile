# The image of bits-auth-proxy holds Python, the locked dependencies and the proxy. It has no shell, package
# manager or compiler, and runs as a user without privileges.
#
#   docker build --tag bits-auth-proxy .
#
# Any Debian base with Python 3.11 or newer and its venv module works:
#
#   docker build --build-arg PYTHON_IMAGE=registry.example/python:3.13 .

ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_COMPILE=1 \
    PIP_NO_DEPS=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# Dependencies come first, because they change less often than the proxy. Only wheels are installed, so that
# installing runs no code of the dependencies.
COPY requirements/runtime.lock requirements/build.lock ./requirements/
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install --quiet --require-hashes --only-binary :all: -r requirements/build.lock \
    && python3 -m venv --without-pip /opt/bits-auth-proxy \
    && /opt/build/bin/pip --python /opt/bits-auth-proxy/bin/python \
        install --quiet --require-hashes --only-binary :all: -r requirements/runtime.lock

COPY . .
RUN /opt/build/bin/pip wheel --quiet --no-build-isolation --wheel-dir /opt/wheel . \
    && /opt/build/bin/pip --python /opt/bits-auth-proxy/bin/python install --quiet /opt/wheel/*.whl \
    && python3 tools/image/rootfs.py /opt/bits-auth-proxy /opt/root \
    && chroot /opt/root /opt/bits-auth-proxy/bin/python -c "import bits_auth_proxy.cli.demo, uvloop"


FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="bits-auth-proxy" \
      org.opencontainers.image.description="A reverse proxy that adds a valid OAuth token to your requests to the Bits API" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

COPY --from=build /opt/root /
# Taken from the base itself: while a RUN command runs, the builder may have mounted its own file over this one.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt

ENV PATH=/opt/bits-auth-proxy/bin \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1

# All settings keep their defaults: the proxy listens on loopback, which is all that a sidecar needs.
USER 65532:65532
EXPOSE 8080 9090
ENTRYPOINT ["bits-auth-proxy"]
CMD ["run"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["bits-auth-proxy", "healthcheck"]
