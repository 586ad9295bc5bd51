// What a kernel is given: the problem, whose pointers are all of device memory, and what only a GPU
// needs.
#ifndef KERAS_KD_CSRC_CUDA_TASK_H_
#define KERAS_KD_CSRC_CUDA_TASK_H_

#include "../problem.h"

namespace keras_kd {
namespace cuda {

// Saved of each row by a launch that computes losses only, for a later one that computes the
// gradient: largest logits of student and teacher; sums of exponentials of student, teacher, and of
// the student at T = 1; the mean score that the gradients of reverse KL and Jensen-Shannon
// subtract. NaN in a row that had no weight.
constexpr int kStatistics = 6;

struct Task {
  Problem problem;
  // In device memory; null: problem.temperature. XLA keeps it there, and to fetch it would wait for
  // all work before.
  const float* temperature = nullptr;
  float* statistics = nullptr;  // [rows, kStatistics], or null
};

}  // namespace cuda
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CUDA_TASK_H_
