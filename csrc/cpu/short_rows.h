// Rows with the rows in the lanes, for C <= kShortRowClasses: kLanes rows at a time.
//
// With few classes a row does not fill vectors and every horizontal sum costs more than the row:
// so a block of kLanes rows is turned on its side in the scratch (class-major), each lane then owns
// a row, and no sum crosses lanes. Logits and gradients are contiguous for the block, so DRAM
// traffic is that of long_rows.h; the logarithms are vectors too.
#ifndef KERAS_KD_CSRC_CPU_SHORT_ROWS_H_
#define KERAS_KD_CSRC_CPU_SHORT_ROWS_H_

#include "divergence_rule.h"
#include "long_rows.h"

namespace keras_kd {
namespace KERAS_KD_ISA {

constexpr int64_t kShortRowClasses = 128;  // where long_rows.h catches up, with AVX2

// Scratch of one thread: class-major student, teacher, their exponentials and the hard ones; a
// row-major block for staging.
struct ShortScratch {
  float *student, *teacher, *student_exp, *teacher_exp, *hard_exp, *block;

  static int64_t Floats(int64_t classes) { return 6 * classes * kLanes; }
  static ShortScratch At(float* base, int64_t classes) {
    const int64_t n = classes * kLanes;
    return {base, base + n, base + 2 * n, base + 3 * n, base + 4 * n, base + 5 * n};
  }
};

// Row-major [rows, classes] of any storage type to class-major [classes, kLanes] floats. Lanes
// past `rows` repeat the last row, so that nothing uninitialized is computed with.
template <typename T>
KERAS_KD_INLINE void ToLanes(const T* from, int64_t rows, int64_t classes, float* block,
                             float* to) {
  const float* source;
  if constexpr (__is_same(T, float)) {
    source = from;
  } else {
    const int64_t count = rows * classes;
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) Store(Load(from + i), block + i);
    for (; i < count; ++i) block[i] = ToFloat(from[i]);
    source = block;
  }
  if (rows == kLanes && classes >= kLanes) {
    // The last square of classes ends with the row and may overlap the one before it.
    for (int64_t c = 0; c < classes; c += kLanes) {
      const int64_t first = c + kLanes <= classes ? c : classes - kLanes;
      Vec square[kLanes];
      for (int lane = 0; lane < kLanes; ++lane)
        square[lane] = Load(source + lane * classes + first);
      Transpose(square);
      for (int i = 0; i < kLanes; ++i) Store(square[i], to + (first + i) * kLanes);
    }
    return;
  }
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    const float* row = source + (lane < rows ? lane : rows - 1) * classes;
    for (int64_t c = 0; c < classes; ++c) to[c * kLanes + lane] = row[c];
  }
}

static inline void LoadBlock(const void* base, DataType type, int64_t first, int64_t rows,
                             int64_t classes, float* block, float* to) {
  const int64_t at = first * classes;
  switch (type) {
    case DataType::kFloat32:
      return ToLanes(static_cast<const float*>(base) + at, rows, classes, block, to);
    case DataType::kFloat16:
      return ToLanes(static_cast<const Float16*>(base) + at, rows, classes, block, to);
    case DataType::kBFloat16:
      return ToLanes(static_cast<const BFloat16*>(base) + at, rows, classes, block, to);
  }
}

// The way back, in float.
KERAS_KD_INLINE void FromLanes(const float* from, int64_t rows, int64_t classes, float* to) {
  if (rows == kLanes && classes >= kLanes) {
    for (int64_t c = 0; c < classes; c += kLanes) {
      const int64_t first = c + kLanes <= classes ? c : classes - kLanes;
      Vec square[kLanes];
      for (int i = 0; i < kLanes; ++i) square[i] = Load(from + (first + i) * kLanes);
      Transpose(square);
      for (int lane = 0; lane < kLanes; ++lane) Store(square[lane], to + lane * classes + first);
    }
    return;
  }
  for (int64_t lane = 0; lane < rows; ++lane) {
    for (int64_t c = 0; c < classes; ++c) to[lane * classes + c] = from[c * kLanes + lane];
  }
}

template <typename T>
KERAS_KD_INLINE void StoreLanes(const float* from, int64_t rows, int64_t classes, float* block,
                                T* to) {
  if constexpr (__is_same(T, float)) {
    FromLanes(from, rows, classes, to);
  } else {
    FromLanes(from, rows, classes, block);
    const int64_t count = rows * classes;
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) Store(Load(block + i), to + i);
    for (; i < count; ++i) FromFloat(block[i], to + i);
  }
}

static inline void StoreBlock(const float* from, int64_t first, int64_t rows, int64_t classes,
                              float* block, DataType type, void* base) {
  const int64_t at = first * classes;
  switch (type) {
    case DataType::kFloat32:
      return StoreLanes(from, rows, classes, block, static_cast<float*>(base) + at);
    case DataType::kFloat16:
      return StoreLanes(from, rows, classes, block, static_cast<Float16*>(base) + at);
    case DataType::kBFloat16:
      return StoreLanes(from, rows, classes, block, static_cast<BFloat16*>(base) + at);
  }
}

// Per-row values of a block, one row a lane. Lanes past the last row have no weight.
struct BlockWeights {
  Vec soft{}, hard{};
  int64_t label[kLanes];  // set where there are labels

  static BlockWeights Of(const Problem& problem, int64_t first, int64_t rows) {
    BlockWeights weights;
    if (!problem.labels && rows == kLanes) {
      const bool each = problem.soft_weight && !problem.soft_weight_is_scalar;
      weights.soft = each ? Load(problem.soft_weight + first) : Set(problem.SoftWeight(first));
      return weights;
    }
    for (int64_t lane = 0; lane < kLanes; ++lane) weights.label[lane] = 0;
    for (int64_t lane = 0; lane < rows; ++lane) {
      const int64_t row = first + lane;
      weights.soft[lane] = problem.SoftWeight(row);
      weights.hard[lane] = problem.HardWeight(row);
      if (weights.hard[lane] != 0.0f) weights.label[lane] = problem.Label(row);
    }
    return weights;
  }
};

// Sums of the exponentials of a block, the slips to subtract from their logarithms, and the sum of
// the teacher's exponentials times t - s.
struct BlockSums {
  Vec student_largest, teacher_largest, student, teacher, hard, cross;
  Vec student_slip, teacher_slip, hard_slip;
};

// Rows where a difference of two logits could overflow are centered; not the others, whose small
// differences it would round.
static void CenterFarRows(const ShortScratch& at, int64_t classes, float far, BlockSums* sums) {
  const Int huge =
      (Abs(sums->student_largest) > Set(far)) | (Abs(sums->teacher_largest) > Set(far));
  if (!Any(huge)) return;
  const Vec student = ZeroUnless(huge, sums->student_largest);
  const Vec teacher = ZeroUnless(huge, sums->teacher_largest);
  for (int64_t c = 0; c < classes * kLanes; c += kLanes) {
    Store(Load(at.student + c) - student, at.student + c);
    Store(Load(at.teacher + c) - teacher, at.teacher + c);
  }
  sums->student_largest = ZeroUnless(~huge, sums->student_largest);
  sums->teacher_largest = ZeroUnless(~huge, sums->teacher_largest);
}

template <HardExp kHard>
BlockSums BlockExponentials(ShortScratch at, int64_t classes, float temperature) {
  BlockSums sums{};
  sums.student_largest = Load(at.student);
  sums.teacher_largest = Load(at.teacher);
  for (int64_t c = 1; c < classes; ++c) {
    sums.student_largest = Max(sums.student_largest, Load(at.student + c * kLanes));
    sums.teacher_largest = Max(sums.teacher_largest, Load(at.teacher + c * kLanes));
  }
  CenterFarRows(at, classes, FarLogit(temperature), &sums);
  const Exponent student = Exponent::Of(sums.student_largest, temperature);
  const Exponent teacher = Exponent::Of(sums.teacher_largest, temperature);
  const Exponent hard = Exponent::Of(sums.student_largest, 1.0f);
  sums.student_slip = student.Slip();
  sums.teacher_slip = teacher.Slip();
  sums.hard_slip = hard.Slip();
  for (int64_t c = 0; c < classes * kLanes; c += kLanes) {
    const Vec sv = Load(at.student + c), tv = Load(at.teacher + c);
    const Vec student_exp = student(sv), teacher_exp = teacher(tv);
    sums.student += student_exp;
    sums.teacher += teacher_exp;
    sums.cross = MulAdd(teacher_exp, tv - sv, sums.cross);
    Store(student_exp, at.student_exp + c);
    Store(teacher_exp, at.teacher_exp + c);
    if constexpr (kHard != HardExp::kNone) {
      const Vec hard_exp = kHard == HardExp::kOwn ? hard(sv) : student_exp;
      sums.hard += hard_exp;
      Store(hard_exp, at.hard_exp + c);
    }
  }
  return sums;
}

// What a block's divergence is computed from.
struct ReadyBlock {
  ShortScratch at;
  int64_t classes;
  Vec student_scale, teacher_scale, inverse_temperature, log_ratio, plain;
  Difference offset;
  float mixing_weight;

  static ReadyBlock Of(const ShortScratch& at, const BlockSums& sums, const Problem& problem) {
    const Vec inverse = Set(1.0f / problem.temperature);
    const Vec log_ratio =
        (Log(sums.student) - sums.student_slip) - (Log(sums.teacher) - sums.teacher_slip);
    const Difference offset = Difference::Of(sums.teacher_largest, sums.student_largest);
    const Vec mean = sums.cross / sums.teacher - offset.high;
    return {at,
            problem.classes,
            1.0f / sums.student,
            1.0f / sums.teacher,
            inverse,
            log_ratio,
            MulAdd(mean, inverse, log_ratio),
            offset,
            problem.mixing_weight};
  }
  // The lanes in which the plain or the stable sum is exact enough; see FormFor.
  Vec Size() const { return 1.0f + Abs(offset.high * inverse_temperature); }
  Int PlainSuffices() const { return plain >= static_cast<float>(kPlainSuffices) * Size(); }
  Int StableSuffices() const {
    return plain >= static_cast<float>(kStableSuffices) * Size() * Size();
  }

  // log p - log q, by the exact difference of the logits in the lanes that need it.
  template <Form kForm>
  __attribute__((always_inline)) Vec LogRatio(int64_t c, Int stable) const {
    const Vec tv = Load(at.teacher + c), sv = Load(at.student + c);
    Vec difference = (tv - sv) - offset.high;
    if constexpr (kForm == Form::kExact) {
      difference = Select(stable, difference, Difference::Of(tv, sv).Minus(offset));
    }
    return MulAdd(difference, inverse_temperature, log_ratio);
  }
  __attribute__((always_inline)) Vec Teacher(int64_t c) const {
    return Load(at.teacher_exp + c) * teacher_scale;
  }
  // q - p in one fixed way, so that a row's gradient does not depend on its neighbors.
  __attribute__((always_inline)) Vec ForwardGradient(int64_t c, Vec p) const {
    return MulAdd(Load(at.student_exp + c), student_scale, -p);
  }
};

// Divergence (without T^2) of a block; leaves the soft gradient, without its factor, in
// at.teacher_exp. `stable`: the lanes that need no exact difference; all of them with kStable.
// Inlined, as what follows: GCC copies so large an argument with `rep movs`, 30 cycles.
template <Divergence kDivergence, Form kForm>
KERAS_KD_INLINE Vec DivergeBlock(ReadyBlock block, Int stable, bool gradient) {
  const ShortScratch at = block.at;
  Vec first{}, second{};
  for (int64_t c = 0; c < block.classes * kLanes; c += kLanes) {
    const Vec q = Load(at.student_exp + c) * block.student_scale;
    const Vec p = block.Teacher(c);
    const Vec d = block.LogRatio<kForm>(c, stable);
    Vec score = AddClass<kDivergence>(p, q, d, block.mixing_weight, &first, &second);
    if (kDivergence == Divergence::kForwardKl) score = block.ForwardGradient(c, p);
    Store(score, at.teacher_exp + c);
  }
  if constexpr (kGradientNeedsSum<kDivergence>) {
    const Vec mean = MeanScore<kDivergence>(first, second);
    for (int64_t c = 0; gradient && c < block.classes * kLanes; c += kLanes) {
      const Vec q = Load(at.student_exp + c) * block.student_scale;
      Store(Centered(q, Load(at.teacher_exp + c), mean), at.teacher_exp + c);
    }
  }
  return Loss<kDivergence>(first, second, block.mixing_weight);
}

// The same for the forward KL where the plain sum is known to suffice.
KERAS_KD_INLINE Vec PlainBlock(ReadyBlock block, bool gradient) {
  const ShortScratch at = block.at;
  for (int64_t c = 0; gradient && c < block.classes * kLanes; c += kLanes) {
    Store(block.ForwardGradient(c, block.Teacher(c)), at.teacher_exp + c);
  }
  return block.plain;
}

// The cheapest form that is exact enough in every lane that counts; each lane has the result that
// its own form gives, whatever its neighbors need.
template <Divergence kDivergence>
KERAS_KD_INLINE Vec SoftBlock(const ReadyBlock& block, Int has_soft, bool gradient) {
  if constexpr (kDivergence != Divergence::kForwardKl) {
    return DivergeBlock<kDivergence, Form::kExact>(block, Int{}, gradient);
  } else {
    const Int plain = block.PlainSuffices(), stable = block.StableSuffices();
    if (!Any(has_soft & ~plain)) return PlainBlock(block, gradient);
    const Vec summed = Any(has_soft & ~stable)
                           ? DivergeBlock<kDivergence, Form::kExact>(block, stable, gradient)
                           : DivergeBlock<kDivergence, Form::kStable>(block, stable, gradient);
    return Select(plain, block.plain, summed);
  }
}

KERAS_KD_INLINE void StoreLosses(const Vec& loss, float* to, int64_t rows) {
  for (int64_t lane = 0; lane < rows; ++lane) to[lane] = loss[lane];
}

// The hard loss of a block; turns the label's exponential e into e - sum, so that the gradient is
// hard_exp / sum for every class (softmax minus one-hot).
KERAS_KD_INLINE Vec HardLoss(const ShortScratch& at, const BlockSums& sums,
                             const BlockWeights& weights) {
  Vec logit{};
  for (int lane = 0; lane < kLanes; ++lane) {
    const int64_t entry = weights.label[lane] * kLanes + lane;
    logit[lane] = at.student[entry];
    if (weights.hard[lane] != 0.0f) at.hard_exp[entry] -= sums.hard[lane];
  }
  return (Log(sums.hard) - sums.hard_slip) - (logit - sums.student_largest);
}

// at.teacher_exp becomes the gradient: the soft one times its factor, plus the hard one's.
static void FinishGradient(ShortScratch at, int64_t classes, Vec soft_factor, Int has_soft,
                           bool hard_loss, Vec hard_factor, Int has_hard) {
  for (int64_t c = 0; c < classes * kLanes; c += kLanes) {
    Vec value = ZeroUnless(has_soft, Load(at.teacher_exp + c) * soft_factor);
    if (hard_loss) value += ZeroUnless(has_hard, Load(at.hard_exp + c) * hard_factor);
    Store(value, at.teacher_exp + c);
  }
}

static void LoadLogits(const Problem& problem, int64_t first, int64_t rows, const ShortScratch& at,
                       Int has_soft, Int has_hard) {
  const int64_t classes = problem.classes;
  LoadBlock(problem.student, problem.student_type, first, rows, classes, at.block, at.student);
  LoadBlock(problem.teacher, problem.teacher_type, first, rows, classes, at.block, at.teacher);
  if (!Any(~has_soft)) return;
  // A row of soft weight zero must not feel its teacher, not even a NaN: the student teaches it.
  // A row of no weight at all computes with zeros.
  for (int64_t c = 0; c < classes * kLanes; c += kLanes) {
    const Vec student = ZeroUnless(has_soft | has_hard, Load(at.student + c));
    Store(student, at.student + c);
    Store(Select(has_soft, Load(at.teacher + c), student), at.teacher + c);
  }
}

template <Divergence kDivergence>
void ShortBlock(const Problem& problem, int64_t first, int64_t rows, float* scratch) {
  const int64_t classes = problem.classes;
  const float temperature = problem.temperature;
  const bool hard_loss = problem.labels != nullptr, gradient = problem.gradient != nullptr;
  const ShortScratch at = ShortScratch::At(scratch, classes);
  const BlockWeights weights = BlockWeights::Of(problem, first, rows);
  const Int has_soft = weights.soft != Set(0.0f), has_hard = weights.hard != Set(0.0f);
  Vec soft{}, hard{};
  if (Any(has_soft | has_hard)) {
    LoadLogits(problem, first, rows, at, has_soft, has_hard);
    const auto exponentials = !hard_loss            ? BlockExponentials<HardExp::kNone>
                              : temperature == 1.0f ? BlockExponentials<HardExp::kCopy>
                                                    : BlockExponentials<HardExp::kOwn>;
    const BlockSums sums = exponentials(at, classes, temperature);
    if (hard_loss) hard = HardLoss(at, sums, weights);
    const ReadyBlock block = ReadyBlock::Of(at, sums, problem);
    soft = SoftBlock<kDivergence>(block, has_soft, gradient);
    soft *= temperature * temperature;
    if (gradient) {
      const float factor = temperature * GradientFactor<kDivergence>(problem.mixing_weight);
      FinishGradient(at, classes, weights.soft * factor, has_soft, hard_loss,
                     weights.hard / sums.hard, has_hard);
    }
  } else if (gradient) {
    __builtin_memset(at.teacher_exp, 0, static_cast<size_t>(classes * kLanes) * sizeof(float));
  }
  StoreLosses(ZeroUnless(has_soft, soft), problem.soft + first, rows);
  if (hard_loss) StoreLosses(ZeroUnless(has_hard, hard), problem.hard + first, rows);
  if (gradient) {
    StoreBlock(at.teacher_exp, first, rows, classes, at.block, problem.gradient_type,
               problem.gradient);
  }
}

}  // namespace KERAS_KD_ISA
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CPU_SHORT_ROWS_H_
