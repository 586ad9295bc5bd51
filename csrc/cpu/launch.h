// The entry to the CPU kernels: checks what only the data can tell, splits the rows over threads.
#ifndef KERAS_KD_CSRC_CPU_LAUNCH_H_
#define KERAS_KD_CSRC_CPU_LAUNCH_H_

#include <string>

#include "../problem.h"

namespace keras_kd {

// Each returns an empty string, or what is wrong (then nothing was computed).
std::string RunLosses(const Problem& problem);
std::string RunSparseLosses(const SparseProblem& problem);
std::string RunScale(const ScaleProblem& problem);

// out = a + factor * b over `count` floats on the pool's threads; stream as in KernelTable.
void RunTriad(const float* a, const float* b, float factor, float* out, int64_t count);

// True if every upstream gradient is exactly 1, so that scaling would change nothing.
bool AllOnes(const float* values, int64_t count);

}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CPU_LAUNCH_H_
