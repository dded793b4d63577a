#!/usr/bin/env bash
# What is measured on a GPU, in steps of at most ten minutes each: exactness, then a LLaVA-1.6-7B geometry with random
# weights in bfloat16 and 20 GiB of KV cache, plans beside stock vLLM in one run. Needs no connection, 80 GB of GPU memory,
# and the checkout's folder as working directory with vLLM on the path.
#
#   benchmarks/gpu_sweep.sh [--dry-run] [--limit SECONDS] [--total SECONDS] OUT [STEP ...]
#
# Runs the steps that are named, or all. Each writes OUT/STEP.json as it goes and OUT/STEP.log; one that ended well leaves
# OUT/STEP.done and is not run again. Ends with what is missing; the exit status is the number of steps that are.
# --limit ends a step after these seconds (600), --total all of them together: a step has what is left, is told to begin
# nothing that would take longer, and is not begun where it would not come far. --dry-run prints the commands and runs none.
set -uo pipefail

serving="python3 -m benchmarks.serving --model llava-1.6-7b --dtype bfloat16 --kv-gib 20 --gpu-memory 0.45 --max-num-seqs 128"
profile="python3 -m benchmarks.profile --model llava-1.6-7b --dtype bfloat16 --kv-gib 20 --gpu-memory 0.45 --max-num-seqs 128"
plan=text-only:0.75
exit=text-only:0.75/exit:22 # in the last third of 32 layers no head sees the image

# Two arms fit in 80 GB; both start in a minute, so a run measures all that it can of them. Each number of requests at once
# is run often enough for a spread.
all="--capacity --prefill 16 --concurrency 1,8,16,32,64 --output 128 --repeats 3"
declare -A command=(
  [check]="python3 -m benchmarks.gpu_check --resume"
  [dropped-tokens]="python3 -m benchmarks.dropped_tokens --model llava-1.6-7b --dtype bfloat16"
  [serving-2304]="$serving --arms stock,$plan $all"
  [serving-2304-exit]="$serving --arms stock,$exit $all"
  [serving-2304-512]="$serving --arms stock,$plan --concurrency 16,64 --output 512 --repeats 2"
  [serving-576]="$serving --arms stock,$plan --image-tokens 576 --prefill 64 --concurrency 1,32,64,128 --output 128 --repeats 3"
  [serving-576-exit]="$serving --arms stock,$exit --image-tokens 576 --prefill 64 --concurrency 1,32,64,128 --output 128 --repeats 3"
  [fp8]="$serving --arms stock+fp8,$plan+fp8 --concurrency 16,32,64,128 --output 128 --repeats 3"
  [fp8-exit]="$serving --arms stock+fp8,$exit+fp8 --concurrency 16,32,64,128 --output 128 --repeats 3"
  [fp8-of-stock]="$serving --arms stock,$exit+fp8 --concurrency 16,64,128 --output 128 --repeats 2"
  [int4]="$serving --arms stock+int4,$plan+int4 --concurrency 16,64 --output 128 --repeats 2"
  [int8]="$serving --arms stock+int8,$plan+int8 --concurrency 16,64 --output 128 --repeats 2"
  [fp8h]="$serving --arms stock+fp8h,$plan+fp8h --concurrency 16,64 --output 128 --repeats 2"
  [removed]="$serving --arms stock,removed:100 --concurrency 1,16,32 --output 128 --repeats 3"
  [evict]="$serving --arms stock,evict:0.75 --capacity --concurrency 1,16,64 --output 128 --repeats 3"
  [decode]="$serving --arms stock,$plan --concurrency 1 --requests 8 --output 256 --repeats 7"
  [decode-576]="$serving --arms stock,$plan --image-tokens 576 --concurrency 1 --requests 8 --output 256 --repeats 7"
  [profile]="$profile --arms stock,$plan --prefill 16 --decode 1,12 --repeats 3"
  [profile-exit]="$profile --arms stock,$exit --prefill 16 --decode 1,12 --repeats 3"
  [profile-48]="$profile --arms $plan --prefill 0 --decode 48 --repeats 3"
  [capacity-576]="$serving --arms stock,$plan --image-tokens 576 --concurrency 0 --capacity --max-num-seqs 256"
  [admission]="$serving --arms $plan,$plan+stock-admission --concurrency 24,64 --output 128 --repeats 3"
  [admission-512]="$serving --arms $plan,$plan+stock-admission --concurrency 24,64 --output 512 --repeats 2"
)
# First what has an answer soonest, and what others are read against.
order=(check dropped-tokens serving-2304-exit serving-2304 profile-exit fp8-exit profile decode fp8 admission
  serving-576-exit serving-576 int4 serving-2304-512 fp8-of-stock capacity-576 decode-576 profile-48 admission-512 evict
  removed int8 fp8h)

usage() { sed -n '/^#   bench/,/^# nothing/s/^# \{0,1\}//p' "$0"; echo "steps: ${order[*]}"; }

dry='' limit=600 total=''
while [[ ${1-} == -* ]]; do
  case $1 in
    --dry-run) dry=yes ;;
    --limit | --total)
      if [[ ! ${2-} =~ ^[1-9][0-9]*$ ]]; then
        echo "$1 ${2-}: expected a number of seconds" >&2
        exit 2
      fi
      if [[ $1 == --limit ]]; then limit=$2; else total=$2; fi
      shift
      ;;
    --help) usage && exit 0 ;;
    *) echo "$1 is no option; expected --dry-run, --limit SECONDS, --total SECONDS or --help" >&2 && exit 2 ;;
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

SECONDS=0 # bash counts them up
for step in "${steps[@]}"; do
  own=$limit
  if [[ -n $total && $((total - SECONDS)) -lt $limit ]]; then own=$((total - SECONDS)); fi
  # A step that is told what time it has ends by itself: what it has begun then takes no longer than the difference.
  case $step in
    check) least=90 && budget="--seconds $((own - 20))" ;;
    dropped-tokens) least=60 && budget='' ;;
    profile*) least=200 && budget="--seconds $((own - 80))" ;;
    *) least=300 && budget="--seconds $((own - 80))" ;; # engines take half of it to start and to have a turn at everything
  esac
  run="timeout --kill-after=20 $own ${command[$step]} $budget --out $out/$step"
  if [[ -n $dry ]]; then
    echo "$step: $run"
    continue
  fi
  if [[ -e $out/$step.done ]]; then
    echo "$step: done before"
    continue
  fi
  if [[ -n $total && $own -lt $least ]]; then
    echo "$step: not begun, $own of $total s are left"
    continue
  fi
  mkdir -p "$out"
  # Only the check goes on where it was ended; what another step had is kept.
  if [[ $step != check && -e $out/$step.json ]]; then mv --backup=numbered "$out/$step.json" "$out/$step.json.before"; fi
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
