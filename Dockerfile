# One image for each service: docker build --build-arg SERVICE=gateway -t kitemesh-gateway .
# SERVICE is gateway, orchestrator, model-runner, tool-executor or cli.
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG SERVICE
ARG UV_VERSION=0.13.9
ENV UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1
RUN pip install --no-cache-dir --disable-pip-version-check "uv==${UV_VERSION}"
WORKDIR /app
COPY . .
# The link gives every image the same command, whatever its service.
RUN test -n "${SERVICE}" \
    && uv sync --frozen --no-dev --no-editable --package "kitemesh-${SERVICE}" \
    && command=$(if [ "${SERVICE}" = cli ]; then echo kitemesh; else echo "kitemesh-${SERVICE}"; fi) \
    && ln -s "/app/.venv/bin/${command}" /app/.venv/bin/entry

FROM ${PYTHON_IMAGE}
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
ENTRYPOINT ["/app/.venv/bin/entry"]
