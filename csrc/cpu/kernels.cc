// The kernels of one instruction set. Compiled once for each, with KERAS_KD_ISA naming it; the
// compiler flags of the set apply to this file only. It must not instantiate anything shared (no
// standard library): the linker could keep a copy that an older processor cannot execute.
#include "kernel_table.h"
#include "long_rows.h"
#include "short_rows.h"

namespace keras_kd {
namespace KERAS_KD_ISA {
namespace {

template <Divergence kDivergence, typename Writer>
float DivergeReady(const ReadyRow& row, bool hard, const Writer& write) {
  return hard ? Diverge<kDivergence, true>(row, write) : Diverge<kDivergence, false>(row, write);
}

template <typename T, bool kStream = false>
GradientRow<T, kStream> WriterOf(const Problem& problem, int64_t row) {
  return {static_cast<T*>(problem.gradient) + row * problem.classes, problem.classes};
}

template <Divergence kDivergence>
float DivergeInto(const ReadyRow& ready, const Problem& problem, int64_t row, bool stream) {
  const bool hard = problem.labels != nullptr;
  if (!problem.gradient) return DivergeReady<kDivergence>(ready, hard, NoGradient{});
  switch (problem.gradient_type) {
    case DataType::kFloat32: {
      const auto plain = WriterOf<float>(problem, row);
      const bool aligned = reinterpret_cast<uintptr_t>(plain.to) % sizeof(Vec) == 0;
      if (!stream || !aligned) return DivergeReady<kDivergence>(ready, hard, plain);
      return DivergeReady<kDivergence>(ready, hard, WriterOf<float, true>(problem, row));
    }
    case DataType::kFloat16:
      return DivergeReady<kDivergence>(ready, hard, WriterOf<Float16>(problem, row));
    case DataType::kBFloat16:
      return DivergeReady<kDivergence>(ready, hard, WriterOf<BFloat16>(problem, row));
  }
  __builtin_unreachable();
}

void SkipRow(const Problem& problem, int64_t row) {
  problem.soft[row] = 0.0f;
  if (problem.labels) problem.hard[row] = 0.0f;
  if (!problem.gradient) return;
  const int64_t bytes = problem.classes * static_cast<int64_t>(SizeOf(problem.gradient_type));
  __builtin_memset(static_cast<char*>(problem.gradient) + row * bytes, 0,
                   static_cast<size_t>(bytes));
}

RowSums RowExponentials(const Problem& problem, const StagedRow& s, const StagedRow& t,
                        const LongScratch& at, int64_t row) {
  const int64_t s_size = static_cast<int64_t>(SizeOf(problem.student_type));
  const int64_t t_size = static_cast<int64_t>(SizeOf(problem.teacher_type));
  const int64_t next = (row + 1 < problem.rows ? row + 1 : row) * problem.classes;
  const char* next_s = static_cast<const char*>(problem.student) + next * s_size;
  const char* next_t = static_cast<const char*>(problem.teacher) + next * t_size;
  const float T = problem.temperature;
  const auto run = !problem.labels ? Exponentials<HardExp::kNone>
                   : T == 1.0f     ? Exponentials<HardExp::kCopy>
                                   : Exponentials<HardExp::kOwn>;
  return run(s, t, problem.classes, T, at, next_s, next_t, s_size, t_size);
}

template <Divergence kDivergence>
void LongRow(const Problem& problem, int64_t row, float* scratch, bool stream) {
  if (problem.Skipped(row)) return SkipRow(problem, row);
  const int64_t classes = problem.classes;
  const LongScratch at = LongScratch::At(scratch, classes);
  const float T = problem.temperature;
  const float soft_weight = problem.SoftWeight(row), hard_weight = problem.HardWeight(row);
  StagedRow s = StageRow(problem.student, problem.student_type, row, classes, at.student);
  // A row of soft weight zero must not feel its teacher, not even a NaN: the student teaches it.
  StagedRow t = soft_weight == 0.0f
                    ? s
                    : StageRow(problem.teacher, problem.teacher_type, row, classes, at.teacher);
  const float far = kFarLogit * (T < 1.0f ? T : 1.0f);  // the hard loss is at T = 1
  if (__builtin_fabsf(s.largest) > far || __builtin_fabsf(t.largest) > far) {
    t = Centre(t, classes, at.teacher);
    s = Centre(s, classes, at.student);
  }
  const RowSums sums = RowExponentials(problem, s, t, at, row);
  if (hard_weight != 0.0f) {
    const int64_t label = problem.Label(row);
    const float log_sum = static_cast<float>(__builtin_log(static_cast<double>(sums.hard)));
    problem.hard[row] = (log_sum - sums.hard_slip) - (s.logits[label] - s.largest);
    at.hard_exp[label] -= sums.hard;  // hard_exp / sum is now softmax minus one-hot
  } else if (problem.labels) {
    problem.hard[row] = 0.0f;
  }
  const double ratio = static_cast<double>(sums.student) / static_cast<double>(sums.teacher);
  const float log_ratio =
      static_cast<float>(__builtin_log(ratio)) + (sums.teacher_slip - sums.student_slip);
  const ReadyRow ready{s.logits,
                       t.logits,
                       classes,
                       at,
                       Set(1.0f / sums.student),
                       Set(1.0f / sums.teacher),
                       Difference::Of(Set(t.largest), Set(s.largest)),
                       Set(1.0f / T),
                       Set(log_ratio),
                       Set(soft_weight * T * GradientFactor<kDivergence>(problem.mixing_weight)),
                       Set(problem.labels ? hard_weight / sums.hard : 0.0f),
                       problem.mixing_weight};
  const float divergence = DivergeInto<kDivergence>(ready, problem, row, stream);
  problem.soft[row] = soft_weight == 0.0f ? 0.0f : divergence * T * T;
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

template <typename From, typename To>
void ScaleRows(const ScaleProblem& problem, int64_t begin, int64_t end) {
  const From* from = static_cast<const From*>(problem.gradient);
  To* to = static_cast<To*>(problem.out);
  for (int64_t row = begin; row < end; ++row) {
    const float factor = problem.upstream[row];
    int64_t i = row * problem.classes;
    const int64_t stop = i + problem.classes;
    for (; i + kLanes <= stop; i += kLanes) Store(Load(from + i) * factor, to + i);
    for (; i < stop; ++i) FromFloat(ToFloat(from[i]) * factor, to + i);
  }
}

template <typename From>
void ScaleFrom(const ScaleProblem& problem, int64_t begin, int64_t end) {
  switch (problem.out_type) {
    case DataType::kFloat32: return ScaleRows<From, float>(problem, begin, end);
    case DataType::kFloat16: return ScaleRows<From, Float16>(problem, begin, end);
    case DataType::kBFloat16: return ScaleRows<From, BFloat16>(problem, begin, end);
  }
}

void Scale(const ScaleProblem& problem, int64_t begin, int64_t end) {
  switch (problem.gradient_type) {
    case DataType::kFloat32: return ScaleFrom<float>(problem, begin, end);
    case DataType::kFloat16: return ScaleFrom<Float16>(problem, begin, end);
    case DataType::kBFloat16: return ScaleFrom<BFloat16>(problem, begin, end);
  }
}

void Triad(const float* a, const float* b, float factor, float* out, int64_t count, bool stream) {
  int64_t i = 0;
  const bool aligned = reinterpret_cast<uintptr_t>(out) % sizeof(Vec) == 0;
  if (stream && aligned) {
    for (; i + kLanes <= count; i += kLanes)
      Stream(MulAdd(Load(b + i), Set(factor), Load(a + i)), out + i);
    StreamFence();
  } else {
    for (; i + kLanes <= count; i += kLanes)
      Store(MulAdd(Load(b + i), Set(factor), Load(a + i)), out + i);
  }
  for (; i < count; ++i) out[i] = a[i] + factor * b[i];
}

}  // namespace

#define KERAS_KD_STRING_OF(name) #name
#define KERAS_KD_STRING(name) KERAS_KD_STRING_OF(name)

extern const KernelTable kKernels;
const KernelTable kKernels{
    KERAS_KD_STRING(KERAS_KD_ISA), kLanes, ScratchFloats, Losses, Scale, Triad};

}  // namespace KERAS_KD_ISA
}  // namespace keras_kd
