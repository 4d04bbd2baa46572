# syntax=docker/dockerfile:1
# orbitdiff with every extra, and what its servers need; installed as the Makefile does it.
# From the repository root: docker build -f infra/docker/cpu.Dockerfile -t orbitdiff:cpu .
FROM python:3.11-slim-bookworm

# git: DVC and the revision in records; wget: KubeRay's probes; libx*: drawings of RDKit
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git libxext6 libxrender1 wget \
    && rm -rf /var/lib/apt/lists/*

ARG UID=1000
RUN useradd --create-home --uid "${UID}" orbitdiff && install --directory --owner=orbitdiff /opt/orbitdiff
WORKDIR /opt/orbitdiff

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    DO_NOT_TRACK=true \
    DVC_NO_ANALYTICS=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    RAY_USAGE_STATS_ENABLED=0

# the wheel without CUDA has an index of its own; what it needs comes with the last step
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN pip install -c constraints.txt setuptools wheel \
    && pip install --no-deps --index-url https://download.pytorch.org/whl/cpu torch==2.13.0

# editable, so that a checkout mounted on this folder takes the place of the copy
COPY orbitdiff orbitdiff
COPY pipelines pipelines
RUN pip install -c constraints.txt -e ".[all]" "ray[default]" psycopg2-binary \
    boto3 prefect-kubernetes==0.8.0

USER ${UID}
ENTRYPOINT []
CMD ["orbitdiff", "doctor"]
