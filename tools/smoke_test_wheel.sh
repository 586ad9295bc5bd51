#!/usr/bin/env bash
# Tries the wheel in dist/ in fresh environments: with the oldest and the newest TensorFlow that it
# serves, then without the module for this Python, then the pure-Python install of a machine without
# a compiler.
#
# Usage: tools/smoke_test_wheel.sh [PYTHON [pure|others]]
#
# With `others` each other Python that tools/pythons.py finds is tried instead, two environments each.
# With `pure` no wheel is needed: the pure-Python install alone, with the oldest TensorFlow.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${1:-python3}
root=$PWD
oldest=2.18.1
newest=2.21.0
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# try_pure VERSION: in the environment that is there, with that tensorflow-cpu.
try_pure() {
  SECONDS=0
  KERAS_KD_SKIP_NATIVE=1 "$python" -m pip wheel --quiet --no-deps --wheel-dir "$folder" "$root"
  pure=$(echo "$folder"/keras_kd-*-py3-none-any.whl)
  echo "== tensorflow-cpu $1, $(basename "$pure")"
  "$folder/venv/bin/pip" install --quiet --force-reinstall --no-deps "$pure"
  KERAS_KD_EXPECT=pure run_smoke_test
}

# run_smoke_test: away from the source tree, which would shadow the installed package.
run_smoke_test() {
  (cd "$folder" && "$folder/venv/bin/python" "$root/tools/smoke_test.py") | tee "$folder/printed"
  echo "$SECONDS s"
}

# try_ctypes: in the environment that is there, after a run with the module.
try_ctypes() {
  SECONDS=0
  echo "== the same environment without the module, through ctypes"
  rm "$folder"/venv/lib/python3.*/site-packages/keras_kd/_kernels*.so
  digest=$(sed -n 's/^digest: //p' "$folder/printed")
  KERAS_KD_EXPECT=ctypes KERAS_KD_DIGEST=$digest run_smoke_test
}

# install VERSION PACKAGE: a fresh environment with that tensorflow-cpu.
# --no-compile: most of TensorFlow is never imported here.
install() {
  "$python" -m venv --clear "$folder/venv"
  "$folder/venv/bin/pip" install --quiet --no-compile "tensorflow-cpu==$1" "$2"
  echo "installed in $SECONDS s"
}

if [ "${2:-}" = pure ]; then
  SECONDS=0
  install "$oldest" 'keras>=3.12'
  try_pure "$oldest"
  exit
fi

wheels=("$root"/dist/keras_kd-*manylinux*"$(uname -m)".whl)
if [ ! -e "${wheels[0]}" ]; then
  echo "No wheel for $(uname -m) in dist/: run 'make wheel' first" >&2
  exit 1
fi
wheel=${wheels[0]}

# try_wheel VERSION: in a fresh environment with that tensorflow-cpu.
try_wheel() {
  echo "== $("$python" --version), tensorflow-cpu $1, $(basename "$wheel")"
  SECONDS=0
  install "$1" "$wheel[tensorflow-cpu]"
  run_smoke_test
}

if [ "${2:-}" = others ]; then
  this=$("$python" -c 'import sys; print(sys.version_info[:2])')
  for python in $("$python" -m tools.pythons); do
    version=$("$python" -c 'import sys; print(sys.version_info[:2])')
    [ "$version" = "$this" ] && continue
    [ "$version" = "(3, 13)" ] && oldest=2.20.0  # the first with wheels for it
    try_wheel "$oldest"
    try_wheel "$newest"
  done
  exit
fi
try_wheel "$oldest"
try_wheel "$newest"
try_ctypes
try_pure "$newest"
