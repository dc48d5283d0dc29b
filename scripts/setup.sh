#!/usr/bin/env bash
# Makes the environment of this checkout: the system's Python, uv (fetched with pip if missing), the locked packages.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}

"$PYTHON" - <<'PY' || exit 1
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(f"autoseg needs Python 3.11 to 3.13, {sys.executable} is {sys.version.split()[0]}; run make PYTHON=/path/to/python3.12")
PY

if command -v uv >/dev/null; then
    uv=uv
else  # a private uv, so that nothing outside this folder changes
    tools=.venv-tools
    [ -x "$tools/bin/uv" ] || {
        "$PYTHON" -m venv "$tools" || { echo "setup: python3 -m venv failed; on Debian: apt-get install python3-venv" >&2; exit 1; }
        "$tools/bin/python" -m pip install -q --disable-pip-version-check uv
    }
    uv="$tools/bin/uv"
fi

[ -x "$VENV/bin/python" ] || "$uv" venv -q --python "$PYTHON" "$VENV"
VIRTUAL_ENV=$(cd "$VENV" && pwd)  # VENV may be absolute
export VIRTUAL_ENV
# mmcv's compiled operators are not used here: without this a machine with nvcc would compile them for an hour.
export MMCV_WITH_OPS=0
"$uv" pip install -r requirements.lock
"$uv" pip install -q --no-deps --no-build-isolation -e .
