# beatra-enrich as a container: one job, whose exit code is the container's. No key is in any layer; see docs/how-to/container.md.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ARG EXTRAS=postgres
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY enrich enrich
RUN python -m venv /opt/beatra-enrich \
 && /opt/beatra-enrich/bin/python -m pip install --no-cache-dir ".[${EXTRAS}]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/beatra-enrich /opt/beatra-enrich
ENV PATH=/opt/beatra-enrich/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# Jobs, inputs, outputs and the ledger lie on a volume; nothing else is written to.
WORKDIR /work
USER 10001:10001
# It is healthy as long as it runs: a job that is over says by its exit code how it went.
HEALTHCHECK NONE
STOPSIGNAL SIGTERM
ENTRYPOINT ["beatra-enrich"]
CMD ["--help"]
