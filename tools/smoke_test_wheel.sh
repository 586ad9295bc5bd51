#!/usr/bin/env bash
# Tries the wheel in dist/ in fresh environments, with the oldest, a middle and the newest
# TensorFlow that it serves, and then the pure-Python install of a machine without a compiler.
#
# Usage: tools/smoke_test_wheel.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."

python=${1:-python3}
root=$PWD
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

wheels=("$root"/dist/keras_kd-*manylinux*"$(uname -m)".whl)
if [ ! -e "${wheels[0]}" ]; then
  echo "No wheel for $(uname -m) in dist/: run 'make wheel' first" >&2
  exit 1
fi
wheel=${wheels[0]}

# run_smoke_test: away from the source tree, which would shadow the installed package.
run_smoke_test() {
  (cd "$folder" && "$folder/venv/bin/python" "$root/tools/smoke_test.py")
  echo "$SECONDS s"
}

for version in 2.18.1 2.20.0 2.21.0; do
  echo "== tensorflow-cpu $version, $(basename "$wheel")"
  SECONDS=0
  "$python" -m venv --clear "$folder/venv"
  # --no-compile: most of TensorFlow is never imported here.
  "$folder/venv/bin/pip" install --quiet --no-compile \
    "tensorflow-cpu==$version" "$wheel[tensorflow-cpu]"
  echo "installed in $SECONDS s"
  run_smoke_test
done

SECONDS=0
KERAS_KD_SKIP_NATIVE=1 "$python" -m pip wheel --quiet --no-deps --wheel-dir "$folder" "$root"
pure=$(echo "$folder"/keras_kd-*-py3-none-any.whl)
echo "== tensorflow-cpu $version, $(basename "$pure")"
"$folder/venv/bin/pip" install --quiet --force-reinstall --no-deps "$pure"
KERAS_KD_EXPECT=pure run_smoke_test
