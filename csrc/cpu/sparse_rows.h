// Rows of sparse teachers, which keep the k largest logits and pool the rest: problem.h has the
// mathematics. The k kept classes and the pooled rest make a dense row of k + 1 classes, which goes
// through dense_rows.h.
//
//   sweep 1  the student's logits into the scratch; the kept ones move   reads s
//            to the coarse row, -inf in their place
//   sweep 2  the largest of the rest                                     scratch
//   sweep 3  exponentials in place, their sum                            scratch
//            the coarse rows of a block: losses and gradient             k + 1 classes a row
//   sweep 4  the rest's gradient, and then the kept ones in their place  scratch
//
// DRAM traffic per class, f32 (bf16): loss 4 (2), loss and gradient 8 (4) bytes, plus the read for
// ownership of the gradient where it is not streamed: two thirds of the dense loss's, whose teacher
// is as large as the student. One exponential per class. A row is never split over threads, and its
// result does not depend on the other rows of its block. A part of kernels.cc.
#ifndef KERAS_KD_CSRC_CPU_SPARSE_ROWS_H_
#define KERAS_KD_CSRC_CPU_SPARSE_ROWS_H_

#include "dense_rows.h"

namespace keras_kd {
namespace KERAS_KD_ISA {
namespace {

// Blocks fill the lanes of short_rows.h with coarse rows, as long as the exponentials of a block
// stay in the second-level cache: 8 rows of 4096 are 128 KiB.
constexpr int64_t kBlockClasses = 4096;

int64_t CoarseClasses(int64_t classes, int64_t kept) { return kept + (kept < classes ? 1 : 0); }
int64_t RowsInBlock(int64_t classes, int64_t coarse_classes) {
  return coarse_classes <= kShortRowClasses && classes <= kBlockClasses ? kLanes : 1;
}

// Scratch of one thread, in floats: the exponentials of a block's rows, each of whole vectors; its
// coarse rows and losses; what the dense losses need for those.
struct SparseScratch {
  int64_t padded, coarse_classes;
  float *exponentials, *student, *teacher, *gradient, *loss, *dense;

  static int64_t Floats(int64_t classes, int64_t kept) {
    const int64_t coarse = CoarseClasses(classes, kept), rows = RowsInBlock(classes, coarse);
    return rows * PaddedClasses(classes) + 3 * PaddedClasses(rows * coarse) + kLanes +
           ScratchFloats(coarse);
  }
  static SparseScratch At(float* base, int64_t classes, int64_t kept) {
    const int64_t padded = PaddedClasses(classes), coarse = CoarseClasses(classes, kept);
    const int64_t rows = RowsInBlock(classes, coarse), n = PaddedClasses(rows * coarse);
    float* student = base + rows * padded;
    float* loss = student + 3 * n;
    return {padded, coarse, base, student, student + n, student + 2 * n, loss, loss + kLanes};
  }
  float* Exponentials(int64_t i) const { return exponentials + i * padded; }
};

// The pooled class of one row.
struct Rest {
  double logit = -static_cast<double>(kInfinity);  // of the student
  float share = 0.0f;                              // of one unit of its exponentials
  double teacher = logit;                          // its logit of the teacher
};

// Exponentials of the rest in place; -inf, which stands for a kept class, gives exactly zero.
Rest Exponentials(float* row, int64_t padded, float temperature) {
  float largest = LargestOf(row, padded), center = 0.0f;
  if (!(largest > -kInfinity)) largest = 0.0f;  // no mass, or NaN that a maximum may hide
  if (__builtin_fabsf(largest) > FarLogit(temperature)) {
    Stage(row, padded, largest, row);
    center = largest, largest = 0.0f;
  }
  const Exponent exponent = Exponent::Of(Set(largest), temperature);
  Vec sum{};
  for (int64_t begin = 0; begin < padded; begin += kFoldClasses) {
    const int64_t end = begin + kFoldClasses < padded ? begin + kFoldClasses : padded;
    Vec part{};
    for (int64_t c = begin; c < end; c += kLanes) {
      const Vec value = exponent(Load(row + c));
      part += value;
      Store(value, row + c);
    }
    sum += part;
  }
  const float total = Sum(sum);
  if (total == 0.0f) return {};
  const double log_total = __builtin_log(static_cast<double>(total)) - exponent.Slip()[0];
  return {static_cast<double>(center) + largest + temperature * log_total, 1.0f / total};
}

double TeacherRest(const SparseProblem& problem, int64_t row) {
  return static_cast<double>(problem.dense.temperature) * problem.tail[row];
}

// From so many temperatures on a coarse row is centered: rounding its pooled logit with an offset
// of 10,000 that all of them share would cost 5e-4. What centering rounds, logits that are not
// within half and twice the largest, are then 32 temperatures below it: exp(-32), nothing.
constexpr double kFarOffset = 64.0;

// Subtracts the largest logit of a coarse row where it is far from 0. Returns the pooled one, which
// is the last, before it is rounded.
double Center(float* row, int64_t kept, double pooled, double temperature) {
  float of_kept[4] = {-kInfinity, -kInfinity, -kInfinity, -kInfinity};  // four do not wait in line
  for (int64_t k = 0; k < kept; ++k) {
    float& most = of_kept[k % 4];
    most = row[k] > most ? row[k] : most;
  }
  double largest = pooled;
  for (float most : of_kept) largest = most > largest ? most : largest;
  const double size = __builtin_fabs(largest);
  if (size > kFarOffset * temperature && size < static_cast<double>(kInfinity)) {
    for (int64_t k = 0; k < kept; ++k) row[k] = static_cast<float>(row[k] - largest);
    pooled -= largest;
  }
  row[kept] = static_cast<float>(pooled);
  return pooled;
}

// What rounding to float took from a number; nothing from an infinite one.
double Lost(double value) {
  const double lost = value - static_cast<double>(static_cast<float>(value));
  return lost == lost ? lost : 0.0;
}

// Row `row` of the problem becomes row `i` of the block.
Rest StageRow(const SparseProblem& problem, int64_t row, int64_t i, const SparseScratch& at) {
  const Problem& dense = problem.dense;
  float* student = at.student + i * at.coarse_classes;
  float* teacher = at.teacher + i * at.coarse_classes;
  if (dense.Skipped(row)) {  // anything that can be computed with
    const size_t bytes = static_cast<size_t>(at.coarse_classes) * sizeof(float);
    __builtin_memset(student, 0, bytes);
    __builtin_memset(teacher, 0, bytes);
    return {};
  }
  float* logits = at.Exponentials(i);
  StageAny(dense.student, dense.student_type, dense.classes, row, logits);
  for (int64_t c = dense.classes; c < at.padded; ++c) logits[c] = -kInfinity;
  for (int64_t k = 0; k < problem.kept; ++k) {
    float* logit = logits + problem.Index(row, k);
    student[k] = *logit;
    *logit = -kInfinity;
  }
  StageAny(dense.teacher, dense.teacher_type, problem.kept, row, teacher);
  Rest rest = Exponentials(logits, at.padded, dense.temperature);
  if (at.coarse_classes > problem.kept) {
    rest.logit = Center(student, problem.kept, rest.logit, dense.temperature);
    rest.teacher = Center(teacher, problem.kept, TeacherRest(problem, row), dense.temperature);
  }
  return rest;
}

// The divergence of the coarse rows, corrected to the first order for the rounding of the pooled
// logits: at a logit of -12 that is 5e-7, and the loss of models that nearly agree would be off by
// 3e-4 of itself at 1e-6. Rounding the teacher's is to the first order the same as rounding the
// student's the other way, where the teacher gives the class a probability. So many temperatures
// below 0, and kFarOffset at least below the largest logit, it gives none: a logit of -1e9, of a
// rest that is masked, lost 32, which made a loss of 10 one of 76.
constexpr double kNoMass = 2 * kFarOffset;

float CorrectedLoss(const SparseProblem& problem, int64_t i, const Rest& rest,
                    const SparseScratch& at) {
  const float loss = at.loss[i];
  if (at.coarse_classes == problem.kept || !(loss < kInfinity)) return loss;
  const double slope = at.gradient[(i + 1) * at.coarse_classes - 1];
  const bool counts = rest.teacher > -kNoMass * problem.dense.temperature;
  const double lost = Lost(rest.logit) - (counts ? Lost(rest.teacher) : 0.0);
  const double corrected = loss + slope * lost;
  return corrected < 0.0 ? 0.0f : static_cast<float>(corrected);
}

// The kept classes' gradients lie all over the row, so they are stored after it.
void ExpandGradient(const SparseProblem& problem, int64_t row, int64_t i, const Rest& rest,
                    const SparseScratch& at, bool stream) {
  const float* gradient = at.gradient + i * at.coarse_classes;
  const float* exponentials = at.Exponentials(i);
  const float weight = problem.dense.SoftWeight(row);
  const bool has_rest = at.coarse_classes > problem.kept;
  const Vec factor = Set(has_rest ? weight * gradient[problem.kept] * rest.share : 0.0f);
  const int64_t classes = problem.dense.classes;
  WithWriter(problem.dense, row, stream, [&](const auto& write) {
    if constexpr (!__is_same(decltype(write), const NoGradient&)) {
      int64_t c = 0;
      for (; c + kLanes <= classes; c += kLanes) write(c, Load(exponentials + c) * factor, Whole{});
      if (c < classes) write(c, Load(exponentials + c) * factor, Part{});
      for (int64_t k = 0; k < problem.kept; ++k) {
        FromFloat(weight * gradient[k], write.to + problem.Index(row, k));
      }
    }
  });
}

// The block's coarse rows as a problem of their own; its gradient is without weights.
Problem CoarseProblem(const Problem& dense, int64_t rows, const SparseScratch& at) {
  Problem coarse;
  coarse.rows = rows;
  coarse.classes = at.coarse_classes;
  coarse.student = at.student;
  coarse.teacher = at.teacher;
  coarse.temperature = dense.temperature;
  coarse.divergence = dense.divergence;
  coarse.mixing_weight = dense.mixing_weight;
  coarse.soft = at.loss;
  coarse.gradient = at.gradient;
  return coarse;
}

void SparseBlock(const SparseProblem& problem, int64_t first, int64_t rows, const SparseScratch& at,
                 bool stream) {
  Rest rests[kLanes];
  for (int64_t i = 0; i < rows; ++i) rests[i] = StageRow(problem, first + i, i, at);
  Losses(CoarseProblem(problem.dense, rows, at), 0, rows, at.dense, false);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t row = first + i;
    if (problem.dense.Skipped(row)) {
      SkipRow(problem.dense, row);
      continue;
    }
    problem.dense.soft[row] = CorrectedLoss(problem, i, rests[i], at);
    ExpandGradient(problem, row, i, rests[i], at, stream);
  }
}

void SparseLosses(const SparseProblem& problem, int64_t begin, int64_t end, float* scratch,
                  bool stream) {
  const int64_t classes = problem.dense.classes;
  const SparseScratch at = SparseScratch::At(scratch, classes, problem.kept);
  const int64_t block = RowsInBlock(classes, at.coarse_classes);
  for (int64_t row = begin; row < end; row += block) {
    SparseBlock(problem, row, end - row < block ? end - row : block, at, stream);
  }
  if (stream) StreamFence();
}

}  // namespace
}  // namespace KERAS_KD_ISA
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CPU_SPARSE_ROWS_H_
