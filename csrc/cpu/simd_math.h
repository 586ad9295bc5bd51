// exp, log and the divergences' terms, on one vector. Coefficients: least squares refined toward
// the minimax of the relative error, in float64; the errors named are those of the polynomials.
#ifndef KERAS_KD_CSRC_CPU_SIMD_MATH_H_
#define KERAS_KD_CSRC_CPU_SIMD_MATH_H_

#include "../problem.h"
#include "simd.h"

namespace keras_kd {
namespace KERAS_KD_ISA {

constexpr float kLog2E = 1.44269504088896340736f;
constexpr float kLn2 = 0.69314718055994530942f;

// t - s without rounding: `high` + `low`, by Knuth. The offsets of teacher and student may differ,
// and where they nearly agree apart from that, the rounding of t - s would be all there is: at an
// offset of 3 a loss of 1e-6 would be off by 6e-5 of itself. `low` is zero where `high` is
// infinite.
struct Difference {
  Vec high, low;

  KERAS_KD_INLINE Difference Of(Vec t, Vec s) {
    const Vec high = t - s, s_part = high - t;
    const Vec low = (t - (high - s_part)) - (s + s_part);
    return {high, ZeroUnless(low == low, low)};
  }
  __attribute__((always_inline)) Vec Minus(Difference other) const {
    return (high - other.high) + (low - other.low);
  }
};

// 2^x for x <= 0, relative error 9e-8 (degree 5); exactly 1 at 0 and exactly 0 from -127 on, where
// the exponent's field and the mantissa are both empty (between -127 and -126 it is some value
// below 2^-126). NaN stays NaN: Max returns its second argument then.
KERAS_KD_INLINE Vec Exp2(Vec x) {
  x = Max(Set(-127.0f), x);
  const Int whole = Round(x);
  const Vec part = x - ToVec(whole);
  Vec poly = MulAdd(Set(1.326472732201791e-3f), part, Set(9.671512984748346e-3f));
  poly = MulAdd(poly, part, Set(5.5507337455293154e-2f));
  poly = MulAdd(poly, part, Set(2.402224207967747e-1f));
  poly = MulAdd(poly, part, Set(6.931469775964715e-1f));
  poly = MulAdd(poly, part, Set(1.0f));
  return reinterpret_cast<Vec>(reinterpret_cast<Int>(poly) + (whole << 23));
}

// exp((x - largest) / T) = 2^(x scale - largest scale). With a fused multiply-add one operation
// forms the exponent; the rounding of largest * scale is then one factor for the whole row, which
// softmax cancels and `Slip` takes out of the logarithm of a sum. Without one, x * scale would be
// rounded element by element (4e-7 at a logit of 10): subtract first.
struct Exponent {
  Vec scale, offset, largest;

  KERAS_KD_INLINE Exponent Of(Vec largest, float temperature) {
    const Vec scale = Set(kLog2E / temperature);
    return {scale, kFused ? -(largest * scale) : largest, largest};
  }
  __attribute__((always_inline)) Vec operator()(Vec x) const {
    return Exp2(kFused ? MulAdd(x, scale, offset) : (x - offset) * scale);
  }
  // The logarithm of the factor; exact up to its own rounding, because the product is fused.
  __attribute__((always_inline)) Vec Slip() const {
    return kFused ? MulAdd(largest, scale, offset) * kLn2 : Vec{};
  }
};

// A row whose largest logit, over T, exceeds this is centered first: differences of its logits may
// overflow, and the slip would reach the exponents' range.
KERAS_KD_INLINE float FarLogit(float temperature) {
  return 65536.0f * (temperature < 1.0f ? temperature : 1.0f);  // the hard loss is at 1
}

// log of a positive normal number, relative error 3e-8; log(0) is about -88, not -inf, so that
// 0 * log(0) is 0; NaN stays NaN.
KERAS_KD_INLINE Vec Log(Vec x) {
  const Int bits = reinterpret_cast<Int>(x);
  const Int exponent = (bits - 0x3f3504f3) >> 23;  // the mantissa lands in [sqrt(1/2), sqrt(2))
  const Vec part = reinterpret_cast<Vec>(bits - (exponent << 23)) - 1.0f;
  Vec poly = MulAdd(Set(8.700433408270251e-2f), part, Set(-1.4267497819805253e-1f));
  poly = MulAdd(poly, part, Set(1.4914772728852477e-1f));
  poly = MulAdd(poly, part, Set(-1.6577583364632376e-1f));
  poly = MulAdd(poly, part, Set(1.9963063312341886e-1f));
  poly = MulAdd(poly, part, Set(-2.500133708246994e-1f));
  poly = MulAdd(poly, part, Set(3.333391074677221e-1f));
  const Vec square = part * part;
  const Vec tail = MulAdd(square * part, poly, MulAdd(square, Set(-0.5f), part));
  return Select(x == x, MulAdd(ToVec(exponent), Set(kLn2), tail), x);
}

// d + expm1(-d) = d^2/2 - d^3/6 + ... for |d| < 3/4, relative error 3e-7. Beyond, the direct form
// of KlTerm loses less than a factor of 7 to cancellation.
constexpr float kSmallLogRatio = 0.75f;
KERAS_KD_INLINE Vec SmallKlTerm(Vec d) {
  Vec poly = MulAdd(Set(-1.99183249e-4f), d, Set(1.40986703e-3f));
  poly = MulAdd(poly, d, Set(-8.33393773e-3f));
  poly = MulAdd(poly, d, Set(4.16622663e-2f));
  poly = MulAdd(poly, d, Set(-1.66666529e-1f));
  poly = MulAdd(poly, d, Set(5.00000135e-1f));
  return d * d * poly;
}

// One class's share of KL(a || b): a (d + b/a - 1), d = log a - log b. Summed over the classes it
// equals sum a d, because the probabilities add up to one; but every share is >= 0 and none is the
// difference of large numbers, so the sum stays right when b is close to a: the plain sum has a
// relative error of 2e-2 at KL = 3e-5, this one of 1e-5 at 1e-6.
// a = 0 leaves b. a > 0, b = 0 gives d = inf and an infinite share. Both zero: d is NaN, share 0.
KERAS_KD_INLINE Vec KlTerm(Vec a, Vec b, Vec d) {
  const Vec far = (b - a) + ZeroUnless(a > Set(0.0f), a * d);
  return Select(Abs(d) < Set(kSmallLogRatio), a * SmallKlTerm(d), far);
}

// (1 + x) log(1 + x) - x for x > -1, given 1 + x as well: x^2/2 - x^3/6 + ... near zero.
KERAS_KD_INLINE Vec EntropyTerm(Vec x, Vec one_plus_x, Vec log_one_plus_x) {
  Vec poly = MulAdd(Set(1.936783e-2f), x, Set(-2.541319e-2f));
  poly = MulAdd(poly, x, Set(3.32713e-2f));
  poly = MulAdd(poly, x, Set(-4.994897e-2f));
  poly = MulAdd(poly, x, Set(8.333415e-2f));
  poly = MulAdd(poly, x, Set(-1.6666707e-1f));
  poly = MulAdd(poly, x, Set(0.5f));
  const Vec far = MulAdd(one_plus_x, log_one_plus_x, -x);
  return Select(Abs(x) < Set(0.25f), x * x * poly, far);
}

// One class's share of both halves of the Jensen-Shannon divergence, with m = w p + (1 - w) q:
//   from_teacher = m phi(p/m - 1) (sums to KL(p || m)), from_student = m phi(q/m - 1) (KL(q || m)),
//   phi(x) = (1 + x) log(1 + x) - x. log_ratio = log(q / m), for the gradient.
// p - q comes from d = log p - log q when they are close, where the subtraction would cancel.
struct JensenShannonTerm {
  Vec from_teacher, from_student, log_ratio;

  KERAS_KD_INLINE JensenShannonTerm Of(Vec p, Vec q, Vec d, float w) {
    const Vec close = p * (d - SmallKlTerm(d));
    const Vec difference = Select(Abs(d) < Set(kSmallLogRatio), close, p - q);
    const Vec m = MulAdd(Set(w), p, (1.0f - w) * q);
    const Vec share = Select(m == Set(0.0f), Vec{}, difference / m);
    const Vec x = Set(1.0f - w) * share, y = Set(-w) * share;
    const Vec one_plus_x = 1.0f + x, one_plus_y = 1.0f + y;
    const Vec log_y = Log(Max(Vec{}, one_plus_y));  // rounding may leave it a hair below zero
    return {m * EntropyTerm(x, one_plus_x, Log(Max(Vec{}, one_plus_x))),
            m * EntropyTerm(y, one_plus_y, log_y), log_y};
  }
};

}  // namespace KERAS_KD_ISA
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CPU_SIMD_MATH_H_
