#!/bin/sh
# Usage: exported_symbols.sh NM LIBRARY...
#
# Fails where a library exports anything but the C interface, keras_kd_*, or a module its own start
# from Python: a C++ runtime that leaks out of it would be taken for TensorFlow's or Python's own.
set -eu
nm=$1
shift
status=0
for library in "$@"; do
  symbols=$("$nm" -D --defined-only "$library")
  leaked=$(echo "$symbols" | awk '$3 !~ /^(keras_kd_|PyInit__kernels$)/ {print $3}')
  if [ -n "$leaked" ]; then
    echo "$library exports more than keras_kd_* or PyInit__kernels:"
    echo "$leaked"
    status=1
  fi
done
exit $status
