# The one image of docker-compose.yml: both servers, the deployment and the workers run it.
#   docker build -t lightlm:cpu .
#   docker build -t lightlm:gpu --build-arg TORCH_INDEX_URL=https://download.pytorch.org/whl/cu128 .
ARG PYTHON_VERSION=3.11
FROM python:${PYTHON_VERSION}-slim-bookworm AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH

WORKDIR /app
COPY pyproject.toml setup.py requirements.lock README.md LICENSE ./
# The dependencies get their own layer, so a change of the code does not install them again. pip checks the SHA-256 of
# each file. The packages for development are left out.
RUN sed '/^# For development/,$d' requirements.lock > /tmp/requirements.lock \
    && pip install --compile --require-hashes --no-deps --only-binary :all: --requirement /tmp/requirements.lock

# The default build of torch for Linux contains CUDA: several GB that a machine without GPU cannot use. The lock does not
# list torch, because its build depends on the machine. Its other dependencies are installed by now.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG TORCH=torch==2.13.*
RUN pip install --compile --only-binary :all: --index-url "${TORCH_INDEX_URL}" "${TORCH}"

COPY lightlm lightlm
COPY flows flows
COPY params params
COPY prefect.yaml ./
# The image's disk is read-only. Without bytecode, every start of Prefect and torch would compile some 20,000 files.
RUN pip install --no-deps --no-build-isolation --editable . \
    && python -m compileall -q lightlm flows params

FROM python:${PYTHON_VERSION}-slim-bookworm
# libgomp1: torch's threads. The compiler: torch.compile on the CPU builds its kernels with it.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 g++ && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --user-group --home-dir /data --no-create-home lightlm \
    && mkdir -p /data /mlartifacts && chown lightlm:lightlm /data /mlartifacts
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 HOME=/data LIGHTLM_HOME=/data \
    DO_NOT_TRACK=true MLFLOW_DISABLE_TELEMETRY=true PREFECT_SERVER_ANALYTICS_ENABLED=false
# A number, because Kubernetes' runAsNonRoot accepts no name.
USER 10001:10001
CMD ["lightlm", "--help"]
