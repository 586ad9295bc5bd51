// The mathematics of a row on one thread's classes; the formulas are those of cpu/simd_math.h and
// cpu/divergence_rule.h, one class at a time.
#ifndef KERAS_KD_CSRC_CUDA_ROW_MATH_CUH_
#define KERAS_KD_CSRC_CUDA_ROW_MATH_CUH_

#include <cuda_runtime.h>

#include "../problem.h"

namespace keras_kd {
namespace cuda {

constexpr float kLog2E = 1.44269504088896340736f;
constexpr float kInfinity = __builtin_huge_valf();
// A row whose largest logit exceeds this is centered before teacher and student are compared:
// differences of its logits may overflow.
constexpr float kFarLogit = 65536.0f;

// What the sums of a row come to: largest logits and sums of exponentials.
struct Sums {
  static constexpr int kCount = 5;

  float student_largest, teacher_largest;
  float student, teacher, hard;  // hard: of the student at T = 1

  // In device memory: kCount floats.
  static __device__ __forceinline__ Sums Load(const float* from) {
    return {from[0], from[1], from[2], from[3], from[4]};
  }
  __device__ __forceinline__ void Store(float* to) const {
    to[0] = student_largest, to[1] = teacher_largest;
    to[2] = student, to[3] = teacher, to[4] = hard;
  }
};

// t - s as an unevaluated sum of two floats (Knuth); the second is zero beside infinities.
struct Difference {
  float high, low;
  static __device__ __forceinline__ Difference Of(float t, float s) {
    const float high = t - s, s_part = high - t;
    const float low = (t - (high - s_part)) - (s + s_part);
    return {high, low == low ? low : 0.0f};
  }
};

// Compares the logits of a row's classes, each relative to its model's largest.
struct Comparison {
  float student_largest, teacher_largest;
  Difference offset;
  bool far;

  static __device__ Comparison Of(const Sums& sums) {
    const float s = sums.student_largest, t = sums.teacher_largest;
    return {s, t, Difference::Of(t, s), fabsf(s) > kFarLogit || fabsf(t) > kFarLogit};
  }
  __device__ __forceinline__ float operator()(float s, float t) const {
    const Difference between = Difference::Of(t, s);
    const float close = (between.high - offset.high) + (between.low - offset.low);
    return far ? (t - teacher_largest) - (s - student_largest) : close;
  }
};

// d + expm1(-d) for |d| < 3/4, relative error 3e-7.
constexpr float kSmallLogRatio = 0.75f;
__device__ __forceinline__ float SmallKlTerm(float d) {
  float poly = fmaf(-1.99183249e-4f, d, 1.40986703e-3f);
  poly = fmaf(poly, d, -8.33393773e-3f);
  poly = fmaf(poly, d, 4.16622663e-2f);
  poly = fmaf(poly, d, -1.66666529e-1f);
  poly = fmaf(poly, d, 5.00000135e-1f);
  return d * d * poly;
}

// One class's share of KL(a || b), d = log a - log b; zero where both are zero.
__device__ __forceinline__ float KlTerm(float a, float b, float d) {
  const float far = (b - a) + (a > 0.0f ? a * d : 0.0f);
  return fabsf(d) < kSmallLogRatio ? a * SmallKlTerm(d) : far;
}

// (1 + x) log(1 + x) - x.
__device__ __forceinline__ float EntropyTerm(float x, float one_plus_x, float log_one_plus_x) {
  float poly = fmaf(1.936783e-2f, x, -2.541319e-2f);
  poly = fmaf(poly, x, 3.32713e-2f);
  poly = fmaf(poly, x, -4.994897e-2f);
  poly = fmaf(poly, x, 8.333415e-2f);
  poly = fmaf(poly, x, -1.6666707e-1f);
  poly = fmaf(poly, x, 0.5f);
  const float far = fmaf(one_plus_x, log_one_plus_x, -x);
  return fabsf(x) < 0.25f ? x * x * poly : far;
}

// log of x >= 0; log(0) is -88, not -inf, so that 0 * log(0) is 0.
__device__ __forceinline__ float LogOrFloor(float x) { return x == 0.0f ? -88.0f : logf(x); }

// A row whose sums are known: what turns each class into its share of the loss and the gradient.
template <Divergence kDivergence>
struct ReadyRow {
  Comparison compare;
  float student_scale, teacher_scale;  // 1 / sum
  float scale, inverse_temperature;    // log2(e) / T, 1 / T
  float log_ratio, mixing_weight;
  float soft_factor, hard_factor;  // of the gradient

  static __device__ ReadyRow Of(const Sums& sums, float temperature, float mixing_weight,
                                float soft_weight, float hard_weight) {
    ReadyRow row;
    const float w = mixing_weight;
    row.compare = Comparison::Of(sums);
    row.student_scale = 1.0f / sums.student;
    row.teacher_scale = 1.0f / sums.teacher;
    row.scale = kLog2E / temperature;
    row.inverse_temperature = 1.0f / temperature;
    // Its rounding is the same for every class, and the stable form does not feel it: the sum of
    // p (1 - exp(-d)) is zero.
    row.log_ratio = logf(sums.student * row.teacher_scale);
    row.mixing_weight = w;
    const float share = kDivergence == Divergence::kJensenShannon ? 1.0f - w : 1.0f;
    row.soft_factor = soft_weight * temperature * share;
    row.hard_factor = hard_weight == 0.0f ? 0.0f : hard_weight / sums.hard;
    return row;
  }

  __device__ __forceinline__ float StudentExp(float s) const {
    return exp2f((s - compare.student_largest) * scale);
  }
  __device__ __forceinline__ float TeacherExp(float t) const {
    return exp2f((t - compare.teacher_largest) * scale);
  }

  // log p - log q, from what `compare` gives.
  __device__ __forceinline__ float LogRatio(float difference) const {
    return fmaf(difference, inverse_temperature, log_ratio);
  }

  // Adds a class to the sums of its divergence. Returns the gradient of the forward KL, without its
  // factor; for the others the score that Gradient() centers.
  __device__ __forceinline__ float Add(float p, float q, float d, float* first,
                                       float* second) const {
    if constexpr (kDivergence == Divergence::kForwardKl) {
      *first += KlTerm(p, q, d);
      return q - p;
    } else if constexpr (kDivergence == Divergence::kReverseKl) {
      *first += KlTerm(q, p, -d);
      return -d;
    } else {
      const float w = mixing_weight;
      const float close = p * (d - SmallKlTerm(d));
      const float difference = fabsf(d) < kSmallLogRatio ? close : p - q;
      const float m = fmaf(w, p, (1.0f - w) * q);
      const float share = m == 0.0f ? 0.0f : difference / m;
      const float x = (1.0f - w) * share, y = -w * share;
      const float one_plus_x = fmaxf(0.0f, 1.0f + x), one_plus_y = fmaxf(0.0f, 1.0f + y);
      const float log_y = LogOrFloor(one_plus_y);
      *first += m * EntropyTerm(x, one_plus_x, LogOrFloor(one_plus_x));
      *second += m * EntropyTerm(y, one_plus_y, log_y);
      return log_y;
    }
  }

  __device__ __forceinline__ float AddLogits(float s, float t, float* first, float* second) const {
    const float q = StudentExp(s) * student_scale, p = TeacherExp(t) * teacher_scale;
    return Add(p, q, LogRatio(compare(s, t)), first, second);
  }

  // A class's gradient without its factor, of a row whose mean score is known.
  __device__ __forceinline__ float SoftGradient(float s, float t, float mean_score) const {
    float unused = 0.0f;
    const float score = AddLogits(s, t, &unused, &unused);
    if constexpr (kDivergence == Divergence::kForwardKl) return score;
    return Centered(StudentExp(s) * student_scale, score, mean_score);
  }

  // The mean score under q, which the gradient of reverse KL and JSD subtracts.
  __device__ __forceinline__ float MeanScore(float first, float second) const {
    return kDivergence == Divergence::kReverseKl ? first : second;
  }

  // The gradient of reverse KL and JSD from a class's score, without its factor.
  __device__ __forceinline__ float Centered(float q, float score, float mean_score) const {
    return q == 0.0f ? 0.0f : q * (score - mean_score);
  }

  __device__ __forceinline__ float Loss(float first, float second) const {
    if constexpr (kDivergence != Divergence::kJensenShannon) return first;
    return mixing_weight * first + (1.0f - mixing_weight) * second;
  }
};

}  // namespace cuda
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CUDA_ROW_MATH_CUH_
