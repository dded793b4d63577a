#!/usr/bin/env bash
# What is measured on a GPU, in steps of at most ten minutes each: exactness, then a LLaVA-1.6-7B geometry with random
# weights in bfloat16 and 20 GiB of KV cache, plans beside stock vLLM in one run. Needs no connection, 80 GB of GPU memory,
# and the checkout's folder as working directory with vLLM on the path.
#
#   benchmarks/gpu_sweep.sh [--dry-run] [--limit SECONDS] OUT [STEP ...]
#
# Runs the steps that are named, or all. Each writes OUT/STEP.json as it goes and OUT/STEP.log; one that ended well leaves
# OUT/STEP.done and is not run again. Ends with what is missing; the exit status is the number of steps that are.
# --dry-run prints the commands and runs none.
set -uo pipefail

serving="python3 -m benchmarks.serving --model llava-1.6-7b --dtype bfloat16 --kv-gib 20 --gpu-memory 0.45 --max-num-seqs 128 --minutes 7"
profile="python3 -m benchmarks.profile --model llava-1.6-7b --dtype bfloat16 --kv-gib 20 --gpu-memory 0.45 --max-num-seqs 128"
plan=text-only:0.75
exit=text-only:0.75/exit:22 # in the last third of 32 layers no head sees the image

# Two arms fit in 80 GB. Each number of requests at once is run often enough for a spread.
declare -A command=(
  [check]="python3 -m benchmarks.gpu_check"
  [dropped-tokens]="python3 -m benchmarks.dropped_tokens --model llava-1.6-7b --dtype bfloat16"
  [prefill]="$serving --arms stock,$exit --concurrency 0 --prefill 16 --repeats 7"
  [prefill-text-only]="$serving --arms stock,$plan --concurrency 0 --prefill 16 --repeats 7"
  [serving-2304]="$serving --arms stock,$plan --concurrency 1,8,16,32,64 --output 128 --repeats 3"
  [serving-2304-exit]="$serving --arms stock,$exit --concurrency 1,8,16,32,64 --output 128 --repeats 3"
  [serving-2304-512]="$serving --arms stock,$plan --concurrency 16,64 --output 512 --repeats 2"
  [serving-576]="$serving --arms stock,$plan --image-tokens 576 --concurrency 1,32,64,128 --output 128 --repeats 3"
  [serving-576-exit]="$serving --arms stock,$exit --image-tokens 576 --concurrency 1,32,64,128 --output 128 --repeats 3"
  [fp8]="$serving --arms stock+fp8,$plan+fp8 --concurrency 16,32,64,128 --output 128 --repeats 3"
  [fp8-exit]="$serving --arms stock+fp8,$exit+fp8 --concurrency 16,32,64,128 --output 128 --repeats 3"
  [fp8-of-stock]="$serving --arms stock,$exit+fp8 --concurrency 16,64,128 --output 128 --repeats 2"
  [int4]="$serving --arms stock+int4,$plan+int4 --concurrency 16,64 --output 128 --repeats 2"
  [int8]="$serving --arms stock+int8,$plan+int8 --concurrency 16,64 --output 128 --repeats 2"
  [fp8h]="$serving --arms stock+fp8h,$plan+fp8h --concurrency 16,64 --output 128 --repeats 2"
  [removed]="$serving --arms stock,removed:100 --concurrency 1,16,32 --output 128 --repeats 3"
  [evict]="$serving --arms stock,evict:0.75 --concurrency 1,16,64 --output 128 --repeats 3"
  [decode]="$serving --arms stock,$plan --concurrency 1 --requests 8 --output 256 --repeats 7"
  [decode-576]="$serving --arms stock,$plan --image-tokens 576 --concurrency 1 --requests 8 --output 256 --repeats 7"
  [profile]="$profile --arms stock,$plan --prefill 16 --decode 1,12 --repeats 3"
  [profile-exit]="$profile --arms stock,$exit --prefill 16 --decode 1,12 --repeats 3"
  [profile-48]="$profile --arms $plan --prefill 0 --decode 48 --repeats 3"
  [capacity]="$serving --arms stock,$plan --concurrency 0 --capacity"
  [capacity-576]="$serving --arms stock,$plan --image-tokens 576 --concurrency 0 --capacity --max-num-seqs 256"
  [admission]="$serving --arms $plan,$plan+stock-admission --concurrency 24,64 --output 128 --repeats 3"
  [admission-512]="$serving --arms $plan,$plan+stock-admission --concurrency 24,64 --output 512 --repeats 2"
)
# First what has an answer soonest, and what others are read against.
order=(check dropped-tokens decode prefill serving-2304 serving-2304-exit fp8 fp8-exit capacity profile profile-exit
  admission serving-576 serving-576-exit int4 serving-2304-512 prefill-text-only fp8-of-stock capacity-576
  decode-576 profile-48 admission-512 evict removed int8 fp8h)

usage() { sed -n '/^#   bench/,/^# --dry-run/s/^# \{0,1\}//p' "$0"; echo "steps: ${order[*]}"; }

dry='' limit=600
while [[ ${1-} == -* ]]; do
  case $1 in
    --dry-run) dry=yes ;;
    --limit) limit=${2-} && shift ;;
    --help) usage && exit 0 ;;
    *) echo "$1 is no option; expected --dry-run, --limit SECONDS or --help" >&2 && exit 2 ;;
  esac
  shift
done
if [[ $# -eq 0 ]]; then
  usage >&2
  exit 2
fi
out=$1
shift
steps=("$@")
[[ $# -gt 0 ]] || steps=("${order[@]}")
for step in "${steps[@]}"; do
  if [[ -z ${command[$step]-} ]]; then
    echo "$step is no step; expected some of: ${order[*]}" >&2
    exit 2
  fi
done

for step in "${steps[@]}"; do
  run="timeout --kill-after=20 $limit ${command[$step]} --out $out/$step"
  if [[ -n $dry ]]; then
    echo "$step: $run"
    continue
  fi
  if [[ -e $out/$step.done ]]; then
    echo "$step: done before"
    continue
  fi
  mkdir -p "$out"
  echo "$step: $run"
  $run 2>&1 | tee "$out/$step.log"
  status=${PIPESTATUS[0]}
  if [[ $status -eq 0 ]]; then
    touch "$out/$step.done"
  else
    echo "$step: ended with $status; what it has is in $out/$step.json" >&2
  fi
done

[[ -z $dry ]] || exit 0
missing=()
for step in "${steps[@]}"; do
  [[ -e $out/$step.done ]] || missing+=("$step")
done
echo "missing: ${missing[*]:-nothing}"
exit ${#missing[@]}
