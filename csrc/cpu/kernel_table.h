// What one copy of the kernels (one instruction set) offers to the dispatcher.
#ifndef KERAS_KD_CSRC_CPU_KERNEL_TABLE_H_
#define KERAS_KD_CSRC_CPU_KERNEL_TABLE_H_

#include "../problem.h"

namespace keras_kd {

struct KernelTable {
  const char* name;
  int lanes;
  // Floats of scratch that the losses need, 64-byte aligned, one scratch a thread.
  int64_t (*scratch_floats)(int64_t classes);
  // Rows [begin, end). stream: write the gradient past the caches.
  void (*losses)(const Problem& problem, int64_t begin, int64_t end, float* scratch, bool stream);
  int64_t (*sparse_scratch_floats)(int64_t classes, int64_t kept);
  void (*sparse_losses)(const SparseProblem& problem, int64_t begin, int64_t end, float* scratch,
                        bool stream);
  void (*scale)(const ScaleProblem& problem, int64_t begin, int64_t end);
  // STREAM's triad, out = a + factor * b: the yardstick of the benchmarks.
  void (*triad)(const float* a, const float* b, float factor, float* out, int64_t count,
                bool stream);
};

}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CPU_KERNEL_TABLE_H_
