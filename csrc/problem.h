// What one call of the kernel computes, in plain C++: no TensorFlow, no CUDA, no instruction set.
//
// Row i holds the logits s (student) and t (teacher) of one sample over `classes` classes.
//   p = softmax(t / T), q = softmax(s / T)
//   soft_i = T^2 * D(p, q)                 D by `divergence`, natural logarithm
//   hard_i = -log softmax(s)[label_i]      only when labels are given
//   gradient_i = d(hard_weight_i * hard_i + soft_weight_i * soft_i) / ds
// Losses come out unweighted; a row whose weights are all zero is skipped: loss and gradient are
// exactly zero, whatever its logits hold.
#ifndef KERAS_KD_CSRC_PROBLEM_H_
#define KERAS_KD_CSRC_PROBLEM_H_

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define KERAS_KD_HOST_DEVICE __host__ __device__
#else
#define KERAS_KD_HOST_DEVICE
#endif

namespace keras_kd {

enum class DataType : int32_t { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2 };

// kForwardKl: KL(p || q).  kReverseKl: KL(q || p).
// kJensenShannon: w KL(p || m) + (1 - w) KL(q || m) with m = w p + (1 - w) q.
enum class Divergence : int32_t { kForwardKl = 0, kReverseKl = 1, kJensenShannon = 2 };
// What Python calls them, by their numbers.
inline constexpr const char* kDivergenceNames[] = {"forward_kl", "reverse_kl", "jsd"};

struct Problem {
  int64_t rows = 0;
  int64_t classes = 0;
  const void* student = nullptr;  // [rows, classes], any alignment of its own element
  const void* teacher = nullptr;  // [rows, classes]
  DataType student_type = DataType::kFloat32;
  DataType teacher_type = DataType::kFloat32;

  float temperature = 1.0f;  // > 0
  Divergence divergence = Divergence::kForwardKl;
  float mixing_weight = 0.5f;  // w of Jensen-Shannon, in (0, 1)

  const void* labels = nullptr;  // [rows] int32 or int64; null: no hard loss
  bool labels_are_int64 = false;
  const float* soft_weight = nullptr;  // [rows], or one for all rows; null: 1
  const float* hard_weight = nullptr;  // as soft_weight
  bool soft_weight_is_scalar = false, hard_weight_is_scalar = false;

  float* soft = nullptr;     // [rows]
  float* hard = nullptr;     // [rows]; used only with labels
  void* gradient = nullptr;  // [rows, classes]; null: losses only
  DataType gradient_type = DataType::kFloat32;

  KERAS_KD_HOST_DEVICE int64_t Label(int64_t row) const {
    return labels_are_int64 ? static_cast<const int64_t*>(labels)[row]
                            : static_cast<const int32_t*>(labels)[row];
  }
  KERAS_KD_HOST_DEVICE float SoftWeight(int64_t row) const {
    return soft_weight ? soft_weight[soft_weight_is_scalar ? 0 : row] : 1.0f;
  }
  KERAS_KD_HOST_DEVICE float HardWeight(int64_t row) const {
    if (!labels) return 0.0f;
    return hard_weight ? hard_weight[hard_weight_is_scalar ? 0 : row] : 1.0f;
  }
  KERAS_KD_HOST_DEVICE bool Skipped(int64_t row) const {
    return SoftWeight(row) == 0.0f && HardWeight(row) == 0.0f;
  }
};

// The soft loss with sparse teachers: of each row, the `kept` largest logits and the log-sum-exp of
// the remaining classes. The divergence is that of kept + 1 classes: the kept ones, and all others
// pooled into one, whose logits are
//   student  T log(sum of exp(s_j / T) over the others)     teacher  T tail
// gradient_j of another class is the pooled one's times that class's share of the sum: zero where
// the sum is zero.
struct SparseProblem {
  Problem dense;     // without labels; its teacher is [rows, kept], up to a constant a row
  int64_t kept = 0;  // 1 to classes; if all are kept there are no others
  const void* indices = nullptr;  // [rows, kept] int32 or int64, distinct in a row, in any order
  bool indices_are_int64 = false;
  const float* tail = nullptr;  // [rows]: log(sum of exp(t_j / T) over the others), -inf for none

  int64_t Index(int64_t row, int64_t i) const {
    const int64_t at = row * kept + i;
    return indices_are_int64 ? static_cast<const int64_t*>(indices)[at]
                             : static_cast<const int32_t*>(indices)[at];
  }
};

// out[i, :] = gradient[i, :] * upstream[i], possibly in place (out == gradient).
struct ScaleProblem {
  int64_t rows = 0;
  int64_t classes = 0;
  const void* gradient = nullptr;
  DataType gradient_type = DataType::kFloat32;
  const float* upstream = nullptr;  // [rows], or one for all rows
  bool upstream_is_scalar = false;
  void* out = nullptr;
  DataType out_type = DataType::kFloat32;
};

inline size_t SizeOf(DataType type) { return type == DataType::kFloat32 ? 4 : 2; }

inline const char* NameOf(DataType type) {
  return type == DataType::kFloat32   ? "float32"
         : type == DataType::kFloat16 ? "float16"
                                      : "bfloat16";
}

}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_PROBLEM_H_
