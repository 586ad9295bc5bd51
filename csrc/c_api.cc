#include "c_api.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <string>

#include "cpu/dispatch.h"
#include "cpu/launch.h"
#include "cpu/thread_pool.h"

#ifndef KERAS_KD_VERSION
#define KERAS_KD_VERSION "unknown"
#endif

namespace {

int32_t Report(const std::string& error, char* message, int64_t size) {
  if (size > 0) {
    const size_t length = std::min(error.size(), static_cast<size_t>(size) - 1);
    std::memcpy(message, error.data(), length);
    message[length] = '\0';
  }
  return error.empty() ? 0 : 1;
}

// std::bad_alloc or a thread that cannot be started becomes a message.
template <typename Run>
int32_t Guarded(Run run, char* message, int64_t size) {
  try {
    return Report(run(), message, size);
  } catch (const std::exception& error) {
    return Report(error.what(), message, size);
  }
}

}  // namespace

int32_t keras_kd_abi_version() { return KERAS_KD_ABI_VERSION; }

const char* keras_kd_build_info() {
  static const std::string info =
      std::string("{\"version\": \"") + KERAS_KD_VERSION + "\", \"compiler\": \"" +
#if defined(__clang__)
      "clang " __clang_version__
#else
      "gcc " __VERSION__
#endif
      + "\", \"architecture\": \"" +
#if defined(__x86_64__)
      "x86-64\", \"instruction_sets\": [\"baseline\", \"avx2\", \"avx512\"]"
#elif defined(__aarch64__)
      "aarch64\", \"instruction_sets\": [\"baseline\"]"
#else
      "other\", \"instruction_sets\": [\"baseline\"]"
#endif
      + ", \"abi_version\": " + std::to_string(KERAS_KD_ABI_VERSION) + "}";
  return info.c_str();
}

int32_t keras_kd_losses(const keras_kd::Problem* problem, char* message, int64_t size) {
  return Guarded([&] { return keras_kd::RunLosses(*problem); }, message, size);
}

int32_t keras_kd_sparse_losses(const keras_kd::SparseProblem* problem, char* message,
                               int64_t size) {
  return Guarded([&] { return keras_kd::RunSparseLosses(*problem); }, message, size);
}

int32_t keras_kd_scale(const keras_kd::ScaleProblem* problem, char* message, int64_t size) {
  return Guarded([&] { return keras_kd::RunScale(*problem); }, message, size);
}

int32_t keras_kd_all_ones(const float* values, int64_t count) {
  return keras_kd::AllOnes(values, count) ? 1 : 0;
}

void keras_kd_triad(const float* a, const float* b, float factor, float* out, int64_t count) {
  keras_kd::RunTriad(a, b, factor, out, count);
}

const char* keras_kd_instruction_sets() {
  static const std::string names = [] {
    std::string joined;
    for (const auto* table : keras_kd::RunnableKernels()) {
      joined += (joined.empty() ? "" : ",") + std::string(table->name);
    }
    return joined;
  }();
  return names.c_str();
}

const char* keras_kd_instruction_set() { return keras_kd::Kernels().name; }

int32_t keras_kd_set_instruction_set(const char* name) {
  return keras_kd::SetInstructionSet(name) ? 0 : 1;
}

void keras_kd_set_num_threads(int32_t threads) { keras_kd::SetNumThreads(threads); }

int32_t keras_kd_num_threads() { return keras_kd::NumThreads(); }
