#!/usr/bin/env bash
# Tries the wheel in dist/ in fresh environments, the oldest, a middle and the newest TensorFlow
# that it serves, and then the pure-Python install that a machine without a compiler gets.
#
# Usage: tools/smoke_test_wheel.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."

python=${1:-python3}
root=$PWD
architecture=$(uname -m)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

wheels=(dist/keras_kd-*manylinux*"$architecture".whl)
if [ ! -e "${wheels[0]}" ]; then
  echo "No wheel for $architecture in dist/: run 'make wheel' first" >&2
  exit 1
fi

# try VERSION WHEEL: installs both in a new environment and runs tools/smoke_test.py there, away
# from the source tree.
try() {
  local environment=$folder/tensorflow-$1
  echo "== tensorflow-cpu $1, $(basename "$2")"
  SECONDS=0
  "$python" -m venv "$environment"
  "$environment/bin/pip" install --quiet "tensorflow-cpu==$1" "$2[tensorflow-cpu]"
  echo "installed in $SECONDS s"
  (cd "$folder" && "$environment/bin/python" "$root/tools/smoke_test.py")
  rm -rf "$environment"
  echo "$SECONDS s"
}

for version in 2.18.1 2.20.0 2.21.0; do
  try "$version" "$root/${wheels[0]}"
done

KERAS_KD_SKIP_NATIVE=1 "$python" -m pip wheel --quiet --no-deps --wheel-dir "$folder/pure" .
KERAS_KD_EXPECT=pure try 2.21.0 "$(echo "$folder"/pure/keras_kd-*-py3-none-any.whl)"
