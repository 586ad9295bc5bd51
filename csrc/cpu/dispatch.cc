#include "dispatch.h"

#include <atomic>
#include <cstdlib>

#include "processor.h"

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

}  // namespace

std::vector<const KernelTable*> RunnableKernels() {
  std::vector<const KernelTable*> tables{&baseline::kKernels};
#if defined(__x86_64__)
  if (HasAvx2()) tables.push_back(&avx2::kKernels);
  if (HasAvx512()) tables.push_back(&avx512::kKernels);
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
