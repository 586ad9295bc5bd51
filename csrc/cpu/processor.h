// Which instruction sets the processor and the operating system can run.
//
// By CPUID and not by __builtin_cpu_supports: Zig, which links the wheels, has a stub for it that
// answers no to every question, and the library would run its slowest kernels silently.
#ifndef KERAS_KD_CSRC_CPU_PROCESSOR_H_
#define KERAS_KD_CSRC_CPU_PROCESSOR_H_

#if defined(__x86_64__)

#include <cpuid.h>

#include <cstdint>

namespace keras_kd {

// Register state the operating system saves: bits 1, 2 for AVX and 5, 6, 7 more for AVX-512.
inline bool SavesState(uint32_t bits) {
  uint32_t low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & bits) == bits;
}

// All of `leaf1_ecx` in ECX of CPUID leaf 1, and all of `leaf7_ebx` in EBX of leaf 7.
inline bool HasFeatures(uint32_t leaf1_ecx, uint32_t leaf7_ebx) {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || (c & leaf1_ecx) != leaf1_ecx) return false;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & leaf7_ebx) == leaf7_ebx;
}

inline bool HasAvx2() {
  return HasFeatures(bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C, bit_AVX2) && SavesState(0x06);
}

inline bool HasAvx512() {
  return HasAvx2() && SavesState(0xe6) &&
         HasFeatures(0, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL);
}

}  // namespace keras_kd

#endif  // defined(__x86_64__)
#endif  // KERAS_KD_CSRC_CPU_PROCESSOR_H_
