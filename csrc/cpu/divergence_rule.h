// How each divergence is summed over the classes of a row and turned into a gradient; shared by
// the code for long rows (classes in the lanes) and for short ones (rows in the lanes).
//
// With p, q the probabilities of teacher and student and d = log p - log q of one class:
//   kForwardKl       loss = sum KlTerm(p, q, d)           gradient = q - p
//   kReverseKl       loss = sum KlTerm(q, p, -d) = R      gradient = q (-d - R)
//   kJensenShannon   loss = w A + (1 - w) B               gradient = (1 - w) q (log(q / m) - B)
// all times T^2 (loss) and T (gradient). The last two need a sum of the whole row before the first
// gradient can be written, so they take one sweep more over the cached row.
#ifndef KERAS_KD_CSRC_CPU_DIVERGENCE_RULE_H_
#define KERAS_KD_CSRC_CPU_DIVERGENCE_RULE_H_

#include "simd_math.h"

namespace keras_kd {
namespace KERAS_KD_ISA {

// Adds a class to `first` and `second` and returns its score: the gradient itself for the forward
// KL, for the others what Gradient() needs.
template <Divergence kDivergence>
KERAS_KD_INLINE Vec AddClass(Vec p, Vec q, Vec d, float mixing_weight, Vec* first, Vec* second) {
  if constexpr (kDivergence == Divergence::kForwardKl) {
    *first += KlTerm(p, q, d);
    return q - p;
  } else if constexpr (kDivergence == Divergence::kReverseKl) {
    *first += KlTerm(q, p, -d);
    return -d;
  } else {
    const JensenShannonTerm term = JensenShannonTerm::Of(p, q, d, mixing_weight);
    *first += term.from_teacher;
    *second += term.from_student;
    return term.log_ratio;
  }
}

template <Divergence kDivergence, typename T>
KERAS_KD_INLINE T Loss(T first, T second, float mixing_weight) {
  if constexpr (kDivergence != Divergence::kJensenShannon) return first;
  return mixing_weight * first + (1.0f - mixing_weight) * second;
}

template <Divergence kDivergence>
constexpr bool kGradientNeedsSum = kDivergence != Divergence::kForwardKl;

// The mean score under q, which the gradient subtracts.
template <Divergence kDivergence, typename T>
KERAS_KD_INLINE T MeanScore(T first, T second) {
  return kDivergence == Divergence::kReverseKl ? first : second;
}

// What the gradient is multiplied with besides T.
template <Divergence kDivergence>
KERAS_KD_INLINE float GradientFactor(float mixing_weight) {
  return kDivergence == Divergence::kJensenShannon ? 1.0f - mixing_weight : 1.0f;
}

// A class of no probability has no gradient, also where its score is infinite; NaN stays NaN.
KERAS_KD_INLINE Vec Centered(Vec q, Vec score, Vec mean_score) {
  return ZeroUnless(q != Set(0.0f), q * (score - mean_score));
}

}  // namespace KERAS_KD_ISA
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CPU_DIVERGENCE_RULE_H_
