// A row as a kernel meets it: where it lies, what it weighs, and the writing of its losses.
#ifndef KERAS_KD_CSRC_CUDA_ROW_CUH_
#define KERAS_KD_CSRC_CUDA_ROW_CUH_

#include "packet.cuh"
#include "row_math.cuh"

namespace keras_kd {
namespace cuda {

template <typename T>
struct Row {
  const Problem& problem;
  int64_t index;
  bool exists;  // threads past the last row take part in shuffles, and compute with nothing
  float soft_weight = 0.0f, hard_weight = 0.0f;
  int64_t label = -1;
  const T* student = nullptr;
  T* gradient = nullptr;
  AnyRow teacher{};
  Grid grid{0, 0};

  __device__ Row(const Problem& problem, int64_t index)
      : problem(problem), index(index), exists(index < problem.rows) {
    if (!exists) return;
    const int64_t offset = index * problem.classes;
    soft_weight = problem.SoftWeight(index);
    hard_weight = problem.HardWeight(index);
    student = static_cast<const T*>(problem.student) + offset;
    grid = GridOf(student, problem.classes);
    if (problem.gradient) gradient = static_cast<T*>(problem.gradient) + offset;
    teacher = AnyRow{problem.teacher, problem.teacher_type, offset};
    if (hard_weight != 0.0f) label = problem.Label(index);
  }

  // Whether anything of it is to be computed.
  __device__ bool Active() const { return exists && (soft_weight != 0.0f || hard_weight != 0.0f); }
  __device__ int64_t Pieces() const { return Active() ? grid.Pieces() : 0; }

  // Whether the hard loss needs exponentials of its own: at T = 1 they are the soft loss's.
  __device__ bool OwnHard() const { return problem.labels && problem.temperature != 1.0f; }

  __device__ void WriteLosses(const Sums& sums, float divergence) const {
    const float temperature = problem.temperature;
    problem.soft[index] = soft_weight == 0.0f ? 0.0f : temperature * temperature * divergence;
    if (problem.labels) problem.hard[index] = hard_weight == 0.0f ? 0.0f : HardLoss(sums);
  }

  // NaN where the label is out of range, as TensorFlow's on a GPU: a kernel cannot raise an error.
  __device__ float HardLoss(const Sums& sums) const {
    if (label < 0 || label >= problem.classes) return __builtin_nanf("");
    return logf(sums.hard) - (Widen(student[label]) - sums.student_largest);
  }

  // Of a row that is not active: exactly zero, whatever its logits hold. `thread` of `threads`.
  __device__ void WriteZeros(int thread, int threads) const {
    if (!exists) return;
    if (thread == 0) {
      problem.soft[index] = 0.0f;
      if (problem.labels) problem.hard[index] = 0.0f;
    }
    const float zeros[kPiece] = {};
    for (int64_t i = thread; gradient && i < grid.Pieces(); i += threads) {
      StorePiece(gradient, grid, i, zeros);
    }
  }

  // The gradient of one class. A weight of zero hides what its term may be, even NaN: the teacher
  // of a row that does not learn from it, the student's label where it has none.
  template <Divergence kDivergence>
  __device__ __forceinline__ float Gradient(const ReadyRow<kDivergence>& ready, float soft,
                                            float hard_exp, float hard_sum, int64_t column) const {
    float value = soft_weight == 0.0f ? 0.0f : soft * ready.soft_factor;
    if (hard_weight != 0.0f) {
      // Softmax at T = 1 minus one-hot.
      value += ready.hard_factor * (column == label ? hard_exp - hard_sum : hard_exp);
    }
    return value;
  }
};

__device__ __forceinline__ float HardExp(float s, float largest) {
  return exp2f((s - largest) * kLog2E);
}

}  // namespace cuda
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CUDA_ROW_CUH_
