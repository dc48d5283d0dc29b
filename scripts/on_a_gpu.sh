#!/usr/bin/env bash
# What only a GPU can show: its tests, then figures of benchmarks/, the most wanted first; others are named as PARTs.
#   scripts/on_a_gpu.sh OUT [PART:SECONDS ...]     at most 3 benchmark parts a call: each leaves two files in OUT
# Needs no network and no installed autoseg, but what it imports, pytest and pytest-xdist. Each part has a limit and its
# log; what it has come to by then is in OUT, and the end of each log is shown last. The defaults take 9 minutes at most.
#
# Nothing of this has run on a GPU yet; without one it was tried with Python 3.12, torch 2.11 and Triton 3.6. Expected, of
# an H200 with 16 cores (known are CPU times alone):
#   gpu_losses 110 s   60 s of it are for compiling
#   kernels     60 s   4 minutes of compiling, by 8 processes; the longest test compiles 45 s of it
#   training    20 s
#   cost       150 s   251 iterations, then 3000 images scored, three times; cuDNN looks for its fastest kernels first
#   proxy, several     3 to 5 minutes each, a guess
set -uo pipefail
cd "$(dirname "$0")/.."
usage="usage: scripts/on_a_gpu.sh OUT [PART:SECONDS ...], at most 3 benchmark parts a call"
out=${1:?"$usage"}
shift
parts=("$@")
[ $# -gt 0 ] || parts=(gpu_losses:160 kernels:120 training:50 cost:200)
for each in "${parts[@]}"; do
    [[ $each =~ ^[a-z_]+:[1-9][0-9]*$ ]] || { echo "on_a_gpu.sh: '$each' is no PART:SECONDS; $usage" >&2; exit 2; }
done
: "${PYTHON:=python3}"
needed="torch triton pytest xdist hypothesis psutil cloudpickle safetensors filelock optuna alembic mako sqlalchemy colorlog
    mmengine mmcv mmseg addict yapf termcolor prettytable wcwidth regex ftfy"
missing=$("$PYTHON" -c 'import sys; from importlib.util import find_spec
print(*(name for name in sys.argv[1:] if find_spec(name) is None))' $needed) || exit 2
[ -z "$missing" ] || { echo "on_a_gpu.sh: $PYTHON lacks the modules: $missing" >&2; exit 2; }
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
imported="import autoseg, benchmarks.run; from autoseg.training.models import model_registry; model_registry()"
said=$("$PYTHON" -W ignore -c "$imported" 2>&1) ||  # what the libraries need in turn
    { echo "on_a_gpu.sh: $PYTHON cannot import what is needed: ${said##*$'\n'}" >&2; exit 2; }
mkdir -p "$out"

part() {
    local gpu_tests=(-m pytest -o addopts= -m gpu -q -p no:cacheprovider)  # not as strict: it may lack pytest-timeout
    case $1 in
        kernels) "$PYTHON" "${gpu_tests[@]}" -n 8 tests/unit/test_gpu_benchmark.py tests/unit/surrogates \
            tests/unit/data/test_augment.py ;; # the longest test first
        training) "$PYTHON" "${gpu_tests[@]}" tests/unit/training/test_gpu.py ;;
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
