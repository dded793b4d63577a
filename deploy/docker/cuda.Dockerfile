# vhserve and vLLM for NVIDIA GPUs: docker build -f deploy/docker/cuda.Dockerfile -t vhserve:cuda .
#
# The same base as for CPUs: torch's wheels bring the CUDA libraries, the host's container toolkit brings the driver. Where the
# digest is from: deploy/images.md. Not built or run by us yet.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:0bee7276f83efd4a1ee05bbbf4281d95ed28e079220a9457f25a93e3f1e3c31b

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY profiles profiles
COPY calibrate calibrate
COPY vhserve vhserve
RUN /opt/venv/bin/pip install --no-compile '.[cuda]'
# Compiled here, because the root file system is read-only when it runs; some packages ship templates that don't compile.
RUN /opt/venv/bin/python -m compileall -q -j 0 -x '/(tests?|testing)/' /opt/venv/lib >/dev/null || true

FROM ${PYTHON_IMAGE}
# gcc is what Triton compiles its launchers with.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev libnuma1 \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 vhserve \
 && useradd --uid 10001 --gid 10001 --home-dir /cache --no-create-home --shell /usr/sbin/nologin vhserve \
 && install -d -o 10001 -g 10001 /cache /models /plan
COPY --from=build /opt/venv /opt/venv
# For charts that start `vllm serve`: put this folder before the rest of PATH, and they start vhserve.
COPY --chmod=755 deploy/docker/vllm /opt/as-vllm/vllm
# FlashInfer's sampler compiles with nvcc, which is not here. Everything that writes writes to /cache or /tmp.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/cache \
    XDG_CACHE_HOME=/cache \
    VLLM_CACHE_ROOT=/cache/vllm \
    VLLM_CONFIG_ROOT=/cache/vllm-config \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    TRITON_CACHE_DIR=/cache/triton \
    CUDA_CACHE_PATH=/cache/nv \
    MPLCONFIGDIR=/cache/matplotlib \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    VLLM_USE_FLASHINFER_SAMPLER=0 \
    HF_HOME=/models \
    HF_MODULES_CACHE=/cache/huggingface-modules \
    HF_HUB_OFFLINE=1 \
    VLLM_NO_USAGE_STATS=1 \
    DO_NOT_TRACK=1
USER 10001:10001
WORKDIR /cache
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
  CMD ["python", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["vhserve"]
CMD ["serve", "demo", "--host", "0.0.0.0", "--port", "8000", "--shutdown-timeout", "60"]
