# syntax=docker/dockerfile:1
# As cpu.Dockerfile, with the CUDA build of torch. Its wheels bring the CUDA libraries, so the host
# adds the driver alone (NVIDIA container toolkit).
# From the repository root: docker build -f infra/docker/cuda.Dockerfile -t orbitdiff:cuda .
FROM python:3.11-slim-bookworm

# git: DVC and the revision in records; wget: KubeRay's probes; libx*: drawings of RDKit;
# gcc: torch.compile
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc git libc6-dev libxext6 libxrender1 wget \
    && rm -rf /var/lib/apt/lists/*

ARG UID=1000
RUN useradd --create-home --uid "${UID}" orbitdiff && install --directory --owner=orbitdiff /opt/orbitdiff
WORKDIR /opt/orbitdiff

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=true \
    DVC_NO_ANALYTICS=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    RAY_USAGE_STATS_ENABLED=0 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN pip install -c constraints.txt setuptools wheel \
    && pip install -c constraints.txt torch==2.13.0

# editable, so that a checkout mounted on this folder takes the place of the copy
COPY orbitdiff orbitdiff
COPY pipelines pipelines
RUN pip install -c constraints.txt -e ".[all]" "ray[default]" psycopg2-binary \
    boto3 prefect-kubernetes==0.8.0

USER ${UID}
ENTRYPOINT []
CMD ["orbitdiff", "doctor"]
