// The losses of dense rows: reads the logits of a row, whatever their types, and leads it through
// the sweeps of long_rows.h, or blocks of rows through short_rows.h. A part of kernels.cc.
#ifndef KERAS_KD_CSRC_CPU_DENSE_ROWS_H_
#define KERAS_KD_CSRC_CPU_DENSE_ROWS_H_

#include "long_rows.h"
#include "short_rows.h"

namespace keras_kd {
namespace KERAS_KD_ISA {
namespace {

// Calls step(writer) with what stores the gradient of a row, or NoGradient.
template <typename Step>
auto WithWriter(const Problem& problem, int64_t row, bool stream, const Step& step) {
  if (!problem.gradient) return step(NoGradient{});
  const int64_t first = row * problem.classes, classes = problem.classes;
  switch (problem.gradient_type) {
    case DataType::kFloat32: {
      float* to = static_cast<float*>(problem.gradient) + first;
      const bool aligned = reinterpret_cast<uintptr_t>(to) % sizeof(Vec) == 0;
      if (stream && aligned) return step(GradientRow<float, true>{to, classes});
      return step(GradientRow<float, false>{to, classes});
    }
    case DataType::kFloat16:
      return step(
          GradientRow<Float16, false>{static_cast<Float16*>(problem.gradient) + first, classes});
    case DataType::kBFloat16:
      return step(
          GradientRow<BFloat16, false>{static_cast<BFloat16*>(problem.gradient) + first, classes});
  }
  __builtin_unreachable();
}

template <Divergence kDivergence, bool kHard, typename Writer>
float DivergeAs(Form form, const ReadyRow& row, double plain, const Writer& write) {
  if constexpr (kDivergence != Divergence::kForwardKl) {
    return Diverge<kDivergence, Form::kExact, kHard>(row, write);
  } else {
    switch (form) {
      case Form::kPlain:
        if constexpr (!__is_same(Writer, NoGradient)) PlainGradient<kHard>(row, write);
        return static_cast<float>(plain);
      case Form::kStable: return Diverge<kDivergence, Form::kStable, kHard>(row, write);
      case Form::kExact: return Diverge<kDivergence, Form::kExact, kHard>(row, write);
    }
    __builtin_unreachable();
  }
}

void SkipRow(const Problem& problem, int64_t row) {
  problem.soft[row] = 0.0f;
  if (problem.labels) problem.hard[row] = 0.0f;
  if (!problem.gradient) return;
  const int64_t bytes = problem.classes * static_cast<int64_t>(SizeOf(problem.gradient_type));
  __builtin_memset(static_cast<char*>(problem.gradient) + row * bytes, 0,
                   static_cast<size_t>(bytes));
}

// A row's logits, of one type, and their largest.
template <typename T>
struct LogitRow {
  const T *student, *teacher;
  float student_largest, teacher_largest;
  const T *next_student, *next_teacher;  // fetched ahead
};

template <typename T>
RowSums RowExponentials(const Problem& problem, const LogitRow<T>& logits, const LongScratch& at) {
  const float temperature = problem.temperature;
  const auto run = !problem.labels       ? Exponentials<HardExp::kNone, T>
                   : temperature == 1.0f ? Exponentials<HardExp::kCopy, T>
                                         : Exponentials<HardExp::kOwn, T>;
  return run(logits.student, logits.teacher, logits.student_largest, logits.teacher_largest,
             problem.classes, temperature, at, logits.next_student, logits.next_teacher);
}

template <typename T>
float HardLoss(const Problem& problem, int64_t row, const LogitRow<T>& logits, const RowSums& sums,
               const LongScratch& at) {
  if (problem.HardWeight(row) == 0.0f) return 0.0f;
  const int64_t label = problem.Label(row);
  at.hard_exp[label] -= sums.hard;  // hard_exp / sum is now softmax minus one-hot
  const float log_sum = static_cast<float>(__builtin_log(static_cast<double>(sums.hard)));
  return (log_sum - sums.hard_slip) - (ToFloat(logits.student[label]) - logits.student_largest);
}

template <Divergence kDivergence, typename T>
void ReadLogits(const Problem& problem, int64_t row, const LogitRow<T>& logits,
                const LongScratch& at, bool stream) {
  const float temperature = problem.temperature;
  const float soft_weight = problem.SoftWeight(row), hard_weight = problem.HardWeight(row);
  const RowSums sums = RowExponentials(problem, logits, at);
  if (problem.labels) problem.hard[row] = HardLoss(problem, row, logits, sums, at);
  const double student_sum = sums.student, teacher_sum = sums.teacher;
  const double log_ratio = __builtin_log(student_sum / teacher_sum) +
                           (static_cast<double>(sums.teacher_slip) - sums.student_slip);
  const double offset =
      (static_cast<double>(logits.teacher_largest) - logits.student_largest) / temperature;
  const double plain = sums.cross / teacher_sum / temperature - offset + log_ratio;
  const Form form = FormFor(plain, offset);
  const float *student = nullptr, *teacher = nullptr;
  if (kDivergence != Divergence::kForwardKl || form != Form::kPlain) {
    if constexpr (__is_same(T, float)) {
      student = logits.student, teacher = logits.teacher;
    } else {
      student = Stage(logits.student, problem.classes, 0.0f, at.student);
      teacher = Stage(logits.teacher, problem.classes, 0.0f, at.teacher);
    }
  }
  const float factor = temperature * GradientFactor<kDivergence>(problem.mixing_weight);
  const ReadyRow ready{student,
                       teacher,
                       problem.classes,
                       at,
                       Set(1.0f / sums.student),
                       Set(1.0f / sums.teacher),
                       Difference::Of(Set(logits.teacher_largest), Set(logits.student_largest)),
                       Set(1.0f / temperature),
                       Set(static_cast<float>(log_ratio)),
                       Set(soft_weight * factor),
                       Set(problem.labels ? hard_weight / sums.hard : 0.0f),
                       problem.mixing_weight};
  const float divergence = WithWriter(problem, row, stream, [&](const auto& write) {
    return problem.labels ? DivergeAs<kDivergence, true>(form, ready, plain, write)
                          : DivergeAs<kDivergence, false>(form, ready, plain, write);
  });
  problem.soft[row] = soft_weight == 0.0f ? 0.0f : divergence * temperature * temperature;
}

template <Divergence kDivergence, typename T>
void LargestThenLogits(const Problem& problem, int64_t row, LogitRow<T> logits,
                       const LongScratch& at, bool stream) {
  const int64_t classes = problem.classes;
  // A row of soft weight zero must not feel its teacher, not even a NaN: the student teaches it.
  if (problem.SoftWeight(row) == 0.0f) logits.teacher = logits.student;
  logits.student_largest = LargestOf(logits.student, classes);
  logits.teacher_largest = LargestOf(logits.teacher, classes);
  const float far = FarLogit(problem.temperature);
  if (__builtin_fabsf(logits.student_largest) > far ||
      __builtin_fabsf(logits.teacher_largest) > far) {
    const float* teacher = Stage(logits.teacher, classes, logits.teacher_largest, at.teacher);
    const float* student = Stage(logits.student, classes, logits.student_largest, at.student);
    const LogitRow<float> centered{student, teacher, 0.0f, 0.0f, student, teacher};
    return ReadLogits<kDivergence>(problem, row, centered, at, stream);
  }
  ReadLogits<kDivergence>(problem, row, logits, at, stream);
}

template <typename T>
const T* RowOf(const void* base, const Problem& problem, int64_t row) {
  return static_cast<const T*>(base) + row * problem.classes;
}

template <Divergence kDivergence, typename T>
void RowOfOneType(const Problem& problem, int64_t row, const LongScratch& at, bool stream) {
  const int64_t next = row + 1 < problem.rows ? row + 1 : row;
  const LogitRow<T> logits{
      RowOf<T>(problem.student, problem, row),  RowOf<T>(problem.teacher, problem, row), 0.0f, 0.0f,
      RowOf<T>(problem.student, problem, next), RowOf<T>(problem.teacher, problem, next)};
  LargestThenLogits<kDivergence>(problem, row, logits, at, stream);
}

const float* StageAny(const void* base, DataType type, int64_t classes, int64_t row, float* to) {
  const int64_t first = row * classes;
  switch (type) {
    case DataType::kFloat32:
      return Stage(static_cast<const float*>(base) + first, classes, 0.0f, to);
    case DataType::kFloat16:
      return Stage(static_cast<const Float16*>(base) + first, classes, 0.0f, to);
    case DataType::kBFloat16:
      return Stage(static_cast<const BFloat16*>(base) + first, classes, 0.0f, to);
  }
  __builtin_unreachable();
}

template <Divergence kDivergence>
void LongRow(const Problem& problem, int64_t row, float* scratch, bool stream) {
  if (problem.Skipped(row)) return SkipRow(problem, row);
  const LongScratch at = LongScratch::At(scratch, problem.classes);
  if (problem.student_type != problem.teacher_type) {
    const float* student =
        StageAny(problem.student, problem.student_type, problem.classes, row, at.student);
    const float* teacher =
        StageAny(problem.teacher, problem.teacher_type, problem.classes, row, at.teacher);
    const LogitRow<float> logits{student, teacher, 0.0f, 0.0f, student, teacher};
    return LargestThenLogits<kDivergence>(problem, row, logits, at, stream);
  }
  switch (problem.student_type) {
    case DataType::kFloat32: return RowOfOneType<kDivergence, float>(problem, row, at, stream);
    case DataType::kFloat16: return RowOfOneType<kDivergence, Float16>(problem, row, at, stream);
    case DataType::kBFloat16: return RowOfOneType<kDivergence, BFloat16>(problem, row, at, stream);
  }
}

template <Divergence kDivergence>
void Rows(const Problem& problem, int64_t begin, int64_t end, float* scratch, bool stream) {
  if (problem.classes <= kShortRowClasses) {
    for (int64_t row = begin; row < end; row += kLanes) {
      ShortBlock<kDivergence>(problem, row, end - row < kLanes ? end - row : kLanes, scratch);
    }
    return;
  }
  for (int64_t row = begin; row < end; ++row) LongRow<kDivergence>(problem, row, scratch, stream);
  if (stream) StreamFence();
}

void Losses(const Problem& problem, int64_t begin, int64_t end, float* scratch, bool stream) {
  switch (problem.divergence) {
    case Divergence::kForwardKl:
      return Rows<Divergence::kForwardKl>(problem, begin, end, scratch, stream);
    case Divergence::kReverseKl:
      return Rows<Divergence::kReverseKl>(problem, begin, end, scratch, stream);
    case Divergence::kJensenShannon:
      return Rows<Divergence::kJensenShannon>(problem, begin, end, scratch, stream);
  }
}

int64_t ScratchFloats(int64_t classes) {
  return classes <= kShortRowClasses ? ShortScratch::Floats(classes) : LongScratch::Floats(classes);
}

}  // namespace
}  // namespace KERAS_KD_ISA
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CPU_DENSE_ROWS_H_
