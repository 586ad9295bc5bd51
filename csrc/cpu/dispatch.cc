#include "dispatch.h"

#include <atomic>
#include <cstdlib>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace keras_kd {

namespace baseline {
extern const KernelTable kKernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const KernelTable kKernels;
}
namespace avx512 {
extern const KernelTable kKernels;
}
#endif

namespace {

std::atomic<const KernelTable*> chosen{nullptr};

const KernelTable* Find(const std::string& name) {
  const auto runnable = RunnableKernels();
  if (name == "auto") return runnable.back();
  for (const KernelTable* table : runnable) {
    if (name == table->name) return table;
  }
  return nullptr;
}

#if defined(__x86_64__)
// Read from the processor, because __builtin_cpu_supports needs a run-time library that not every
// compiler brings: built with Zig it said no to everything.
struct Processor {
  bool avx2 = false, avx512 = false;

  Processor() {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return;
    const bool has_fma = c & bit_FMA, has_f16c = c & bit_F16C, saves_state = c & bit_OSXSAVE;
    if (!has_fma || !has_f16c || !saves_state) return;
    // The operating system must keep the wide registers: bits 1, 2 (AVX), 5 to 7 (AVX-512).
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & 0x6u) != 0x6u || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
    avx2 = b & bit_AVX2;
    const unsigned wide = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    avx512 = avx2 && (low & 0xe0u) == 0xe0u && (b & wide) == wide;
  }
};
#endif

}  // namespace

std::vector<const KernelTable*> RunnableKernels() {
  std::vector<const KernelTable*> tables{&baseline::kKernels};
#if defined(__x86_64__)
  static const Processor processor;
  if (processor.avx2) tables.push_back(&avx2::kKernels);
  if (processor.avx512) tables.push_back(&avx512::kKernels);
#endif
  return tables;
}

const KernelTable& Kernels() {
  const KernelTable* table = chosen.load(std::memory_order_acquire);
  if (table) return *table;
  const char* name = std::getenv("KERAS_KD_ISA");
  if (name) table = Find(name);
  if (!table) table = Find("auto");
  chosen.store(table, std::memory_order_release);
  return *table;
}

bool SetInstructionSet(const std::string& name) {
  const KernelTable* table = Find(name);
  if (table) chosen.store(table, std::memory_order_release);
  return table != nullptr;
}

}  // namespace keras_kd
