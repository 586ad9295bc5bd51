#!/bin/sh
# Usage: isa_symbols.sh NM OBJECT...
#
# Fails where an object of the kernels defines a weak symbol outside its own namespace (mangled:
# 8keras_kd4avx2...). The linker keeps one copy of a weak symbol: were it the AVX-512 copy of, say,
# a std::vector function, the library would die of SIGILL on a machine without AVX-512.
set -eu
nm=$1
shift
status=0
for object in "$@"; do
  isa=$(echo "$object" | sed 's|.*/kernels_\([^/.]*\)\.dir/.*|\1|')
  symbols=$("$nm" --defined-only "$object")
  shared=$(echo "$symbols" | awk -v own="8keras_kd${#isa}${isa}" \
    '$2 ~ /^[WVu]$/ && index($3, own) == 0 {print $3}')
  if [ -n "$shared" ]; then
    echo "$object shares these symbols with other instruction sets:"
    echo "$shared"
    status=1
  fi
done
exit $status
