#!/usr/bin/env bash
# What only a GPU can show: its tests, then figures of benchmarks/, the most wanted first; others are named as PARTs.
#   scripts/on_a_gpu.sh OUT [PART:SECONDS ...]
# Needs no network and no installed autoseg. Each part has a limit and its log; what it has come to by then is in OUT, and
# the end of each log is shown last. The defaults take ten minutes at most.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?"usage: scripts/on_a_gpu.sh OUT [PART:SECONDS ...]"}
shift
parts=("$@")
[ $# -gt 0 ] || parts=(kernels:240 gpu_losses:130 training:80 cost:130)
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
PYTHON=${PYTHON:-python3}

# An installed autoseg has the folders of configs and search spaces inside; a checkout gets links to them.
made=()
for pair in conf:configs search_spaces:search_spaces; do
    link=autoseg/${pair%%:*}
    [ -e "$link" ] || { ln -s "../${pair#*:}" "$link" && made+=("$link"); }
done
trap '[ ${#made[@]} -eq 0 ] || rm -f "${made[@]}"' EXIT

part() {
    case $1 in
        kernels) "$PYTHON" -m pytest -m gpu -q -p no:cacheprovider tests/unit/surrogates tests/unit/data/test_augment.py \
            tests/unit/test_gpu_benchmark.py ;;
        training) "$PYTHON" -m pytest -m gpu -q -p no:cacheprovider tests/unit/training/test_gpu.py ;;
        *) "$PYTHON" -m benchmarks.run "$1" --out "$out" ;;
    esac
}
export -f part
export PYTHON out

"$PYTHON" -c 'import sys, torch, triton
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
print("Python", sys.version.split()[0], "torch", torch.__version__, "triton", triton.__version__, gpu)' | tee "$out/machine.txt"
failed=0
for each in "${parts[@]}"; do
    name=${each%%:*} limit=${each#*:} start=$SECONDS
    timeout --signal=INT --kill-after=10 "$limit" bash -c 'part "$1"' _ "$name" > "$out/$name.log" 2>&1 && state=done || state="stopped with $?"
    [ "$state" = done ] || failed=1
    echo "$name: $state after $((SECONDS - start)) s of $limit" | tee -a "$out/machine.txt"
done
for each in "${parts[@]}"; do
    echo "== ${each%%:*}"
    tail -c $((9000 / ${#parts[@]})) "$out/${each%%:*}.log"
done
cat "$out/machine.txt"
exit $failed
