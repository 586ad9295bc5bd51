// Rows with sparse teachers, and what they must come to: the formulas in long double, written
// independently, as row_truth.h does it for dense ones.
#ifndef KERAS_KD_CSRC_TESTS_SPARSE_TRUTH_H_
#define KERAS_KD_CSRC_TESTS_SPARSE_TRUTH_H_

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "row_truth.h"

namespace keras_kd {

// log of the sum of exp(logit / T); -inf of none.
inline Real LogSum(const std::vector<Real>& logits, Real temperature) {
  Real largest = -std::numeric_limits<Real>::infinity(), sum = 0;
  for (Real logit : logits) largest = std::max(largest, logit);
  for (Real logit : logits) sum += std::exp((logit - largest) / temperature);
  return largest / temperature + std::log(sum);
}

// Dense rows, and what of their teachers is kept: `kept` classes at random, in no order.
struct SparseData {
  Data dense;
  int64_t kept;
  Array teacher, tail;
  std::vector<int64_t> indices;
  std::vector<int32_t> narrow;

  SparseData(const Case& c, int64_t kept, unsigned seed)
      : dense(c, seed),
        kept(kept),
        teacher(c.teacher_type, Size()),
        tail(DataType::kFloat32, dense.Rows()) {
    std::mt19937 random(seed);
    const size_t classes = static_cast<size_t>(c.classes);
    std::vector<int64_t> order(classes);
    for (size_t row = 0; row < dense.Rows(); ++row) {
      std::iota(order.begin(), order.end(), 0);
      std::shuffle(order.begin(), order.end(), random);
      std::vector<Real> others;
      for (size_t i = 0; i < classes; ++i) {
        const float logit = dense.teacher.Get(row * classes + static_cast<size_t>(order[i]));
        if (i >= static_cast<size_t>(kept)) {
          others.push_back(logit);
          continue;
        }
        teacher.Set(indices.size(), logit);
        indices.push_back(order[i]);
      }
      tail.Set(row, static_cast<float>(LogSum(others, c.temperature)));
    }
    narrow.assign(indices.begin(), indices.end());
  }
  size_t Size() const { return dense.Rows() * static_cast<size_t>(kept); }

  SparseProblem Describe() {
    SparseProblem problem;
    problem.dense = dense.Describe();
    problem.dense.teacher = teacher.data();
    problem.kept = kept;
    problem.indices = indices.data();
    problem.indices_are_int64 = true;
    problem.tail = static_cast<float*>(tail.data());
    return problem;
  }
};

// The row's pooled problem: its kept classes and, last, the rest.
struct PooledRow {
  std::vector<Real> student, teacher, share;  // share of each class in the student's rest

  PooledRow(const SparseData& data, size_t row) : share(Classes(data)) {
    const Real T = data.dense.c.temperature;
    const size_t first = row * share.size();
    std::vector<bool> is_kept(share.size());
    for (size_t i = 0; i < static_cast<size_t>(data.kept); ++i) {
      const size_t at = row * static_cast<size_t>(data.kept) + i;
      const size_t index = static_cast<size_t>(data.indices[at]);
      is_kept[index] = true;
      student.push_back(data.dense.student.Get(first + index));
      teacher.push_back(data.teacher.Get(at));
    }
    std::vector<Real> others;
    for (size_t c = 0; c < share.size(); ++c) {
      if (!is_kept[c]) others.push_back(data.dense.student.Get(first + c));
    }
    const Real sum = LogSum(others, T);
    for (size_t c = 0; c < share.size(); ++c) {
      if (!is_kept[c]) share[c] = std::exp(data.dense.student.Get(first + c) / T - sum);
    }
    if (others.empty()) return;
    student.push_back(T * sum);
    teacher.push_back(T * data.tail.Get(row));
  }
  static size_t Classes(const SparseData& data) {
    return static_cast<size_t>(data.dense.c.classes);
  }
};

inline std::vector<Real> LogProbabilities(std::vector<Real> logits, Real temperature) {
  const Real sum = LogSum(logits, temperature);
  for (Real& logit : logits) logit = logit / temperature - sum;
  return logits;
}

// Divergence, times T^2, and each pooled class's slope.
inline RowTruth PooledTruth(const PooledRow& row, const Case& c) {
  const Real T = c.temperature, w = 0.3f;
  const auto p = LogProbabilities(row.teacher, T), q = LogProbabilities(row.student, T);
  RowTruth truth;
  truth.gradient.resize(p.size());
  std::vector<Real> score(p.size());
  Real mean = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const Real P = std::exp(p[i]), Q = std::exp(q[i]), m = std::log(w * P + (1 - w) * Q);
    if (c.divergence == Divergence::kForwardKl) {
      truth.soft += P * (p[i] - q[i]);
      truth.gradient[i] = T * (Q - P);
    } else if (c.divergence == Divergence::kReverseKl) {
      score[i] = q[i] - p[i];
      truth.soft += Q * score[i];
    } else {
      score[i] = (1 - w) * (q[i] - m);
      truth.soft += w * P * (p[i] - m) + (1 - w) * Q * (q[i] - m);
    }
    mean += Q * score[i];
  }
  for (size_t i = 0; i < p.size(); ++i) {
    if (c.divergence != Divergence::kForwardKl) {
      truth.gradient[i] = T * std::exp(q[i]) * (score[i] - mean);
    }
  }
  truth.soft *= T * T;
  return truth;
}

// The gradient of all classes, weighted.
inline std::vector<Real> Expanded(const SparseData& data, size_t row, const PooledRow& pooled,
                                  const RowTruth& truth, Real weight) {
  std::vector<Real> gradient(pooled.share.size());
  const size_t kept = static_cast<size_t>(data.kept);
  for (size_t c = 0; c < gradient.size(); ++c) {
    gradient[c] =
        weight * pooled.share[c] * (truth.gradient.size() > kept ? truth.gradient[kept] : 0);
  }
  for (size_t i = 0; i < kept; ++i) {
    gradient[static_cast<size_t>(data.indices[row * kept + i])] = weight * truth.gradient[i];
  }
  return gradient;
}

// Calls expect(holds, what) for every number that a kernel has computed.
template <typename Expect>
void CompareWithTruth(const SparseData& data, Expect expect) {
  const Case& c = data.dense.c;
  const Real storage = c.student_type == DataType::kFloat32   ? 0
                       : c.student_type == DataType::kFloat16 ? 1e-3L
                                                              : 5e-3L;
  for (size_t row = 0; row < data.dense.Rows(); ++row) {
    const PooledRow pooled(data, row);
    const RowTruth truth = PooledTruth(pooled, c);
    const Real weight = data.dense.soft_weight.Get(row);
    const std::string where =
        Describe(c) + " kept " + std::to_string(data.kept) + " row " + std::to_string(row);
    // The logarithm of the rest's sum is known to 3e-7; the rest's slope says what that does.
    const Real of_rest = std::fabs(truth.gradient.back()) * c.temperature * 3e-7L;
    const Real expected = weight == 0 ? 0 : truth.soft;
    expect(std::fabs(data.dense.soft.Get(row) - expected) <= 1e-5L * expected + of_rest + 1e-10L,
           "loss, " + where);
    const auto gradient = Expanded(data, row, pooled, truth, weight);
    // The reverse divergence's slopes are as large as it is.
    const Real size = c.divergence == Divergence::kReverseKl
                          ? std::max(Real{1}, truth.soft / (c.temperature * c.temperature))
                          : 1;
    for (size_t k = 0; k < gradient.size(); ++k) {
      const Real found = data.dense.gradient.Get(row * gradient.size() + k);
      const Real bound = 4e-6L * c.temperature * size + storage * (std::fabs(gradient[k]) + 1e-4L);
      expect(std::fabs(found - gradient[k]) <= bound, "gradient, " + where);
    }
  }
}

}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_TESTS_SPARSE_TRUTH_H_
