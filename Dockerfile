# One image for each service: docker build --build-arg SERVICE=gateway -t kitemesh-gateway .
# SERVICE is gateway, orchestrator, model-runner, tool-executor or cli.
# Everything is pinned by version: Python's packages by uv.lock, with their hashes, the base by its tag. To pin the
# base's bytes as well: --build-arg PYTHON_IMAGE=python:3.11.13-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG SERVICE
ARG UV_VERSION=0.13.9
ENV UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1
RUN pip install --no-cache-dir --disable-pip-version-check "uv==${UV_VERSION}"
WORKDIR /app
# What the packages need changes less often than what they are: a change of code does not install it again.
COPY pyproject.toml uv.lock ./
COPY libs/contracts/pyproject.toml libs/contracts/
COPY libs/runtime/pyproject.toml libs/runtime/
COPY services/gateway/pyproject.toml services/gateway/
COPY services/orchestrator/pyproject.toml services/orchestrator/
COPY services/model-runner/pyproject.toml services/model-runner/
COPY services/tool-executor/pyproject.toml services/tool-executor/
COPY cli/pyproject.toml cli/
COPY observability/pyproject.toml observability/
RUN test -n "${SERVICE}" || { echo "which service? --build-arg SERVICE=gateway" >&2; exit 1; } \
    && uv sync --frozen --no-dev --no-install-workspace --package "kitemesh-${SERVICE}"
COPY . .
# The link gives every image the same command, whatever its service.
RUN uv sync --frozen --no-dev --no-editable --package "kitemesh-${SERVICE}" \
    && command=$(if [ "${SERVICE}" = cli ]; then echo kitemesh; else echo "kitemesh-${SERVICE}"; fi) \
    && ln -s "/app/.venv/bin/${command}" /app/.venv/bin/entry

FROM ${PYTHON_IMAGE}
ARG SERVICE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="kitemesh-${SERVICE}" \
      org.opencontainers.image.description="Chat turns over NATS JetStream and MongoDB" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --no-create-home --home-dir /nonexistent kitemesh \
    && mkdir -p /etc/kitemesh
COPY --from=build /app/.venv /app/.venv
COPY cli/src/kitemesh_cli/catalog.yaml /etc/kitemesh/catalog.yaml
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    KITEMESH_CATALOG=/etc/kitemesh/catalog.yaml \
    KITEMESH_HOST=0.0.0.0 \
    KITEMESH_HEALTH_HOST=0.0.0.0 \
    KITEMESH_HEALTH_PORT=9090 \
    KITEMESH_LOG_FORMAT=json
USER 10001:10001
EXPOSE 8002 9090
STOPSIGNAL SIGTERM
ENTRYPOINT ["/app/.venv/bin/entry"]
