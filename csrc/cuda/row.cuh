// A row as a kernel meets it: where it lies, what it weighs, and the writing of its results.
#ifndef KERAS_KD_CSRC_CUDA_ROW_CUH_
#define KERAS_KD_CSRC_CUDA_ROW_CUH_

#include "packet.cuh"
#include "row_math.cuh"
#include "task.h"

namespace keras_kd {
namespace cuda {

__device__ __forceinline__ float HardExp(float s, float largest) {
  return exp2f((s - largest) * kLog2E);
}

template <typename T>
struct Row {
  static constexpr int kPiece = kPieceOf<T>;

  const Task& task;
  int64_t index;
  bool exists;  // threads past the last row take part in shuffles, and compute with nothing
  float temperature;
  float soft_weight = 0.0f, hard_weight = 0.0f;
  int64_t label = -1;
  const T* student = nullptr;
  void* gradient = nullptr;  // of the tensor, or null
  Grid<kPiece> grid{0, 0};

  __device__ Row(const Task& task, int64_t index)
      : task(task),
        index(index),
        exists(index < task.problem.rows),
        temperature(task.temperature ? __ldg(task.temperature) : task.problem.temperature) {
    // A kernel cannot raise an error; a temperature that is none must not pass for one.
    if (!(temperature > 0.0f && temperature < kInfinity)) temperature = __builtin_nanf("");
    if (!exists) return;
    const Problem& problem = task.problem;
    const int64_t offset = index * problem.classes;
    soft_weight = problem.SoftWeight(index);
    hard_weight = problem.HardWeight(index);
    student = static_cast<const T*>(problem.student) + offset;
    grid = GridOf(student, problem.classes);
    gradient = problem.gradient;
    if (hard_weight != 0.0f) {
      label = problem.Label(index);
      // As a temperature that is none: neither loss nor gradient may pass for right.
      if (label < 0 || label >= problem.classes) hard_weight = __builtin_nanf("");
    }
  }

  // Whether anything of it is to be computed.
  __device__ bool Active() const { return exists && (soft_weight != 0.0f || hard_weight != 0.0f); }

  // Whether the hard loss needs exponentials of its own: at T = 1 they are the soft loss's.
  __device__ bool OwnHard() const { return task.problem.labels && temperature != 1.0f; }

  __device__ __forceinline__ void Load(int piece, float (&s)[kPiece], float (&t)[kPiece]) const {
    LoadPiece(student, grid, piece, s);
    WithType(task.problem.teacher_type, task.problem.teacher, [&](const auto* teacher) {
      LoadPiece(teacher + index * task.problem.classes, grid, piece, t);
    });
  }

  template <Divergence kDivergence>
  __device__ ReadyRow<kDivergence> Ready(const Sums& sums) const {
    return ReadyRow<kDivergence>::Of(sums, temperature, task.problem.mixing_weight, soft_weight,
                                     hard_weight);
  }

  // Losses, and statistics where they are wanted. One thread of the row does it.
  __device__ void WriteLosses(const Sums& sums, float divergence, float mean_score) const {
    const Problem& problem = task.problem;
    problem.soft[index] = soft_weight == 0.0f ? 0.0f : temperature * temperature * divergence;
    if (problem.labels) problem.hard[index] = hard_weight == 0.0f ? 0.0f : HardLoss(sums);
    if (!task.statistics) return;
    float* to = task.statistics + index * kStatistics;
    sums.Store(to);
    to[Sums::kCount] = mean_score;
  }

  // NaN where the label is out of range, as the gradient is.
  __device__ float HardLoss(const Sums& sums) const {
    if (label < 0 || label >= task.problem.classes) return __builtin_nanf("");
    return logf(sums.hard) - (Widen(student[label]) - sums.student_largest);
  }

  // Of a row that is not active: exactly zero, whatever its logits hold.
  __device__ void WriteZeroLosses() const {
    task.problem.soft[index] = 0.0f;
    if (task.problem.labels) task.problem.hard[index] = 0.0f;
    for (int i = 0; task.statistics && i < kStatistics; ++i) {
      task.statistics[index * kStatistics + i] = __builtin_nanf("");
    }
  }
  // The gradient has the student's type or is float.
  __device__ __forceinline__ void Store(int piece, const float (&values)[kPiece]) const {
    const int64_t offset = index * task.problem.classes;
    if (std::is_same_v<T, float> || task.problem.gradient_type == task.problem.student_type) {
      StorePiece(static_cast<T*>(gradient) + offset, grid, piece, values);
    } else {
      StorePiece(static_cast<float*>(gradient) + offset, grid, piece, values);
    }
  }

  // Of the pieces first, first + step, ... before `end`.
  __device__ void WriteZeroGradient(int first, int step, int end) const {
    const float zeros[kPiece] = {};
    for (int piece = first; gradient && piece < end; piece += step) {
      Store(piece, zeros);
    }
  }

  // The gradient of one class. A weight of zero hides what its term may be, even NaN: the teacher
  // of a row that does not learn from it, the student's label where it has none.
  template <Divergence kDivergence>
  __device__ __forceinline__ float Gradient(const ReadyRow<kDivergence>& ready, float soft,
                                            float hard_exp, float hard_sum, int column) const {
    float value = soft_weight == 0.0f ? 0.0f : soft * ready.soft_factor;
    if (hard_weight != 0.0f) {
      // Softmax at T = 1 minus one-hot.
      value += ready.hard_factor * (column == label ? hard_exp - hard_sum : hard_exp);
    }
    return value;
  }

  // The gradient of a piece, written from its logits and from what `soft` holds of the soft loss.
  template <Divergence kDivergence>
  __device__ __forceinline__ void WriteGradient(const ReadyRow<kDivergence>& ready,
                                                const Sums& sums, int piece,
                                                const float (&s)[kPiece],
                                                const float (&soft)[kPiece]) const {
    const bool own_hard = OwnHard();
    float values[kPiece];
#pragma unroll
    for (int i = 0; i < kPiece; ++i) {
      const float hard = own_hard ? HardExp(s[i], sums.student_largest) : ready.StudentExp(s[i]);
      values[i] = Gradient(ready, soft[i], hard, sums.hard, grid.Column(piece, i));
    }
    Store(piece, values);
  }
};

}  // namespace cuda
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CUDA_ROW_CUH_
