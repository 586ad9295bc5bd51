// Rows with the classes in the lanes, for C > kShortRowClasses: one row at a time, from DRAM once.
//
//   sweep 1  the largest logit of student and teacher        reads s, t
//   sweep 2  exponentials into the scratch, their sums, and  s, t from cache; fetches row + 1
//            the plain sum of p (t - s)
//   sweep 3  forward KL, and the plain sum is exact enough   exponentials from cache
//            (kPlain): the gradient only
//            otherwise: the stable divergence and gradient   s, t, exponentials from cache
//   sweep 4  gradient of reverse KL and JSD only             exponentials and scores from cache
//
// DRAM traffic per element, f32 (bf16): loss 8 (4), loss and gradient 12 (6) bytes, plus the read
// for ownership of the gradient where it is not streamed. Two exponentials per class (three with a
// hard loss at T != 1). A row is never split over threads, so results do not depend on them.
#ifndef KERAS_KD_CSRC_CPU_LONG_ROWS_H_
#define KERAS_KD_CSRC_CPU_LONG_ROWS_H_

#include "divergence_rule.h"

namespace keras_kd {
namespace KERAS_KD_ISA {

constexpr float kInfinity = __builtin_inff();

// Partial sums are folded into the totals every so many vectors: with one running sum of 131072
// classes a lane would round 16384 times.
constexpr int64_t kFoldClasses = 64 * kLanes;

KERAS_KD_INLINE int64_t PaddedClasses(int64_t classes) {
  return (classes + kLanes - 1) / kLanes * kLanes;
}

// Scratch of one thread, in floats: exponentials of student, teacher, student at T = 1; staged
// logits of both.
struct LongScratch {
  float *student_exp, *teacher_exp, *hard_exp, *student, *teacher;

  static int64_t Floats(int64_t classes) { return 5 * PaddedClasses(classes); }
  static LongScratch At(float* base, int64_t classes) {
    const int64_t n = PaddedClasses(classes);
    return {base, base + n, base + 2 * n, base + 3 * n, base + 4 * n};
  }
};

// How much of a vector a step of a sweep stands for; a type, so that the hot loop has no branch.
struct Whole {};
struct Part {};

// Fills the last vector of a row: its exponential is zero, and its differences are finite.
constexpr float kFill = -3e38f;

// Calls body(c, s, t, Whole or Part) for every vector of classes, and fold() every kFoldClasses
// classes and at the end.
template <typename T, typename Body, typename Fold>
KERAS_KD_INLINE void Sweep(const T* s, const T* t, int64_t classes, Body body, Fold fold) {
  const int64_t whole = classes / kLanes * kLanes;
  for (int64_t begin = 0; begin < whole; begin += kFoldClasses) {
    const int64_t end = begin + kFoldClasses < whole ? begin + kFoldClasses : whole;
    for (int64_t c = begin; c < end; c += kLanes) {
      body(c, Load(s + c), Load(t + c), Whole{});
    }
    fold();
  }
  if (whole < classes) {
    body(whole, LoadEnd(s + whole, classes - whole, kFill),
         LoadEnd(t + whole, classes - whole, kFill), Part{});
    fold();
  }
}

template <typename T>
float LargestOf(const T* row, int64_t classes) {
  Vec largest = Set(-kInfinity), other = largest;
  int64_t c = 0;
  for (; c + 2 * kLanes <= classes; c += 2 * kLanes) {
    largest = Max(largest, Load(row + c));
    other = Max(other, Load(row + c + kLanes));
  }
  for (; c < classes; c += kLanes) {
    const int64_t left = classes - c;
    largest = Max(largest, left >= kLanes ? Load(row + c) : LoadEnd(row + c, left, -kInfinity));
  }
  return Largest(Max(largest, other));
}

// The row in float, `subtract` taken from every logit.
template <typename T>
const float* Stage(const T* row, int64_t classes, float subtract, float* to) {
  int64_t c = 0;
  for (; c + kLanes <= classes; c += kLanes) Store(Load(row + c) - subtract, to + c);
  for (; c < classes; ++c) to[c] = ToFloat(row[c]) - subtract;
  return to;
}

// Sums of the exponentials, and the slips to subtract from their logarithms; cross is the sum of
// the teacher's exponentials times t - s.
struct RowSums {
  float student, teacher, hard, cross;
  float student_slip, teacher_slip, hard_slip;
};

// What sweep 2 keeps for the hard loss: nothing; a copy (T = 1: the exponentials are the same); or
// exponentials of their own. A copy, because the label's entry is then changed in place.
enum class HardExp { kNone, kCopy, kOwn };

// Sweep 2. next_*: the following row (of the last row: itself), fetched while this one computes.
// Everything is taken by value: a store through a vector pointer may alias whatever a reference
// refers to, and the compiler would load it again in every step of the loop.
template <HardExp kHard, typename T>
RowSums Exponentials(const T* s, const T* t, float student_largest, float teacher_largest,
                     int64_t classes, float temperature, LongScratch scratch, const T* next_s,
                     const T* next_t) {
  const Exponent student = Exponent::Of(Set(student_largest), temperature);
  const Exponent teacher = Exponent::Of(Set(teacher_largest), temperature);
  const Exponent hard = Exponent::Of(Set(student_largest), 1.0f);
  Vec student_sum{}, teacher_sum{}, hard_sum{}, cross_sum{};
  Vec student_part{}, teacher_part{}, hard_part{}, cross_part{};
  Sweep(
      s, t, classes,
      [&](int64_t c, Vec sv, Vec tv, auto) __attribute__((always_inline)) {
        __builtin_prefetch(next_s + c, 0, 2);
        __builtin_prefetch(next_t + c, 0, 2);
        const Vec student_exp = student(sv), teacher_exp = teacher(tv);
        student_part += student_exp;
        teacher_part += teacher_exp;
        cross_part = MulAdd(teacher_exp, tv - sv, cross_part);
        Store(student_exp, scratch.student_exp + c);
        Store(teacher_exp, scratch.teacher_exp + c);
        if constexpr (kHard != HardExp::kNone) {
          const Vec hard_exp = kHard == HardExp::kOwn ? hard(sv) : student_exp;
          hard_part += hard_exp;
          Store(hard_exp, scratch.hard_exp + c);
        }
      },
      [&]() __attribute__((always_inline)) {
        student_sum += student_part;
        teacher_sum += teacher_part;
        hard_sum += hard_part;
        cross_sum += cross_part;
        student_part = teacher_part = hard_part = cross_part = Vec{};
      });
  return {Sum(student_sum),  Sum(teacher_sum),  Sum(hard_sum), Sum(cross_sum),
          student.Slip()[0], teacher.Slip()[0], hard.Slip()[0]};
}

struct NoGradient {};

template <typename T, bool kStream>
struct GradientRow {
  T* to;
  int64_t classes;

  __attribute__((always_inline)) void operator()(int64_t c, Vec value, Whole) const {
    if constexpr (kStream) {
      Stream(value, to + c);
    } else {
      Store(value, to + c);
    }
  }
  __attribute__((always_inline)) void operator()(int64_t c, Vec value, Part) const {
    StorePart(value, to + c, classes - c);
  }
};

// How the divergence of a row is summed. The plain sum, sum p (t - s) / T and the logarithms of the
// sums, costs two operations a class but is a difference of large numbers; the stable one (KlTerm)
// six times that; the exact one takes the logits' differences without rounding too, which matters
// where teacher and student agree but for an offset.
enum class Form { kPlain, kStable, kExact };

// The plain sum's error is about 2e-7 (1 + |offset| / T), the stable one's 1e-7 |offset| / T over
// the square root of twice the divergence: both are kept below 3e-6 of the divergence. NaN, which
// rows with logits of -inf give here, means kExact.
constexpr double kPlainSuffices = 0.1, kStableSuffices = 1e-3;  // from this divergence on
inline Form FormFor(double plain, double offset_over_temperature) {
  const double size = 1.0 + __builtin_fabs(offset_over_temperature);
  if (plain >= kPlainSuffices * size) return Form::kPlain;
  return plain >= kStableSuffices * size * size ? Form::kStable : Form::kExact;
}

// A row whose sums are known.
struct ReadyRow {
  const float *s, *t;
  int64_t classes;
  LongScratch scratch;
  Vec student_scale, teacher_scale;  // 1 / sum
  Difference offset;
  Vec inverse_temperature, log_ratio;
  Vec soft_factor, hard_factor;  // of the gradient
  float mixing_weight;

  // log p - log q.
  template <Form kForm>
  __attribute__((always_inline)) Vec LogRatio(Vec sv, Vec tv) const {
    const Vec difference =
        kForm == Form::kExact ? Difference::Of(tv, sv).Minus(offset) : (tv - sv) - offset.high;
    return MulAdd(difference, inverse_temperature, log_ratio);
  }
  template <bool kHard>
  __attribute__((always_inline)) Vec Gradient(int64_t c, Vec soft) const {
    if constexpr (!kHard) return soft * soft_factor;
    return MulAdd(soft, soft_factor, Load(scratch.hard_exp + c) * hard_factor);
  }
};

// Sweep 3 where the forward KL is known: q - p times its factor.
template <bool kHard, typename Writer>
void PlainGradient(ReadyRow row, Writer write) {
  const auto gradient = [&](int64_t c) __attribute__((always_inline)) {
    const Vec p = Load(row.scratch.teacher_exp + c) * row.teacher_scale;
    const Vec soft = MulAdd(Load(row.scratch.student_exp + c), row.student_scale, -p);
    return row.Gradient<kHard>(c, soft);
  };
  int64_t c = 0;
  for (; c + kLanes <= row.classes; c += kLanes) write(c, gradient(c), Whole{});
  if (c < row.classes) write(c, gradient(c), Part{});
}

// Sweeps 3 and 4: returns the divergence, without T^2, and writes the gradient. By value, as
// Exponentials.
template <Divergence kDivergence, Form kForm, bool kHard, typename Writer>
float Diverge(ReadyRow row, Writer write) {
  constexpr bool kLater = kGradientNeedsSum<kDivergence>;
  constexpr bool kWrites = !__is_same(Writer, NoGradient);
  Vec first{}, second{}, first_part{}, second_part{};
  Sweep(
      row.s, row.t, row.classes,
      [&](int64_t c, Vec sv, Vec tv, auto extent) __attribute__((always_inline)) {
        const Vec q = Load(row.scratch.student_exp + c) * row.student_scale;
        const Vec p = Load(row.scratch.teacher_exp + c) * row.teacher_scale;
        const Vec score = AddClass<kDivergence>(p, q, row.LogRatio<kForm>(sv, tv),
                                                row.mixing_weight, &first_part, &second_part);
        if constexpr (kWrites && kLater) Store(score, row.scratch.teacher_exp + c);
        if constexpr (kWrites && !kLater) write(c, row.Gradient<kHard>(c, score), extent);
      },
      [&]() __attribute__((always_inline)) {
        first += first_part;
        second += second_part;
        first_part = second_part = Vec{};
      });
  const float a = Sum(first), b = Sum(second);
  if constexpr (kWrites && kLater) {
    const Vec mean = Set(MeanScore<kDivergence>(a, b));
    const auto gradient = [&](int64_t c) __attribute__((always_inline)) {
      const Vec q = Load(row.scratch.student_exp + c) * row.student_scale;
      const Vec soft = Centered(q, Load(row.scratch.teacher_exp + c), mean);
      return row.Gradient<kHard>(c, soft);
    };
    int64_t c = 0;
    for (; c + kLanes <= row.classes; c += kLanes) write(c, gradient(c), Whole{});
    if (c < row.classes) write(c, gradient(c), Part{});
  }
  return Loss<kDivergence>(a, b, row.mixing_weight);
}

}  // namespace KERAS_KD_ISA
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CPU_LONG_ROWS_H_
