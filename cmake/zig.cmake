# Zig's clang, for wheels that run on old Linux: it links against the symbol versions of any
# glibc, from any machine. Set KERAS_KD_ZIG_TARGET, as in x86_64-linux-gnu.2.17, and the
# environment variable KERAS_KD_ZIG_PYTHON to a Python that has the package ziglang.
set(CMAKE_SYSTEM_NAME Linux)
string(REGEX MATCH "^[^-]+" CMAKE_SYSTEM_PROCESSOR "${KERAS_KD_ZIG_TARGET}")
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES KERAS_KD_ZIG_TARGET)

set(CMAKE_CXX_COMPILER $ENV{KERAS_KD_ZIG_PYTHON} -m ziglang c++ -target ${KERAS_KD_ZIG_TARGET})
# From CMake's first check on, the flags of the release build: Zig makes a libc++ for each other set
# of them, which takes a minute or more.
set(CMAKE_CXX_FLAGS_INIT "-O3 -s")
