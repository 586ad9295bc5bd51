// The loss with sparse teachers against the formulas in long double; kernel_test.cc runs these.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "../cpu/dispatch.h"
#include "../cpu/launch.h"
#include "../cpu/thread_pool.h"
#include "expect.h"
#include "sparse_truth.h"

namespace {

using namespace keras_kd;  // NOLINT: a test program

const DataType kTypes[] = {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16};
const Divergence kDivergences[] = {Divergence::kForwardKl, Divergence::kReverseKl,
                                   Divergence::kJensenShannon};
const float kInf = std::numeric_limits<float>::infinity();

void Compare(const SparseData& data) {
  CompareWithTruth(data, [](bool holds, const std::string& what) {
    Expect(holds, std::string(Kernels().name) + " " + what);
  });
}

void Run(SparseData& data) {
  const std::string error = RunSparseLosses(data.Describe());
  Expect(error.empty(), error);
}

void Check(const Case& c, int64_t kept) {
  SparseData data(c, kept, 1);
  Run(data);
  Compare(data);
}

void TestValues() {
  for (int64_t classes : {1, 2, 7, 16, 17, 33, 100, 129, 1000, 4097}) {
    const int64_t rows = classes > 200 ? 3 : 19;
    for (int64_t kept : {int64_t{1}, int64_t{2}, int64_t{5}, classes / 2, classes - 1, classes}) {
      if (kept < 1 || kept > classes) continue;
      for (Divergence divergence : kDivergences) {
        const float temperature = classes % 2 ? 1.0f : 4.0f;
        Check(
            {rows, classes, DataType::kFloat32, DataType::kFloat32, divergence, temperature, false},
            kept);
      }
    }
  }
}

void TestTypes() {
  for (DataType student : kTypes) {
    for (DataType teacher : kTypes) {
      for (int64_t classes : {7, 150}) {
        Check({19, classes, student, teacher, Divergence::kForwardKl, 2.0f, false}, 5);
      }
    }
  }
}

// The rest is right where it has almost nothing: its largest logit is far below the kept ones.
void TestLittleRest() {
  for (Divergence divergence : kDivergences) {
    for (int64_t classes : {9, 150}) {
      SparseData data({9, classes, DataType::kFloat32, DataType::kFloat32, divergence, 1.0f, false},
                      3, 2);
      const size_t kept = static_cast<size_t>(data.kept), width = static_cast<size_t>(classes);
      for (size_t i = 0; i < data.Size(); ++i) {
        const size_t at = i / kept * width + static_cast<size_t>(data.indices[i]);
        data.dense.student.Set(at, data.dense.student.Get(at) + 40.0f);
        data.teacher.Set(i, data.teacher.Get(i) + 38.0f);
      }
      Run(data);
      Compare(data);
    }
  }
}

void TestLargeLogits() {
  for (float scale : {300.0f, 1e6f}) {
    for (int64_t classes : {33, 1001}) {
      Check({9, classes, DataType::kFloat32, DataType::kFloat32, Divergence::kForwardKl, 1.0f,
             false, scale},
            5);
    }
  }
}

// A student that is its teacher but for 1e-3 and an offset.
void TestCloseModels() {
  for (Divergence divergence : kDivergences) {
    for (int64_t classes : {10, 150}) {
      SparseData data({9, classes, DataType::kFloat32, DataType::kFloat32, divergence, 1.0f, false},
                      4, 6);
      std::mt19937 random(7);
      std::normal_distribution<float> normal(30.0f, 1e-3f);
      for (size_t i = 0; i < data.dense.Elements(); ++i) {
        data.dense.student.Set(i, data.dense.teacher.Get(i) + normal(random));
      }
      Run(data);
      Compare(data);
    }
  }
}

// The logits of a row have an offset in common: a constant, which no softmax sees.
void TestCommonOffsets() {
  for (Divergence divergence : kDivergences) {
    for (int64_t classes : {9, 150}) {
      for (float offset : {1000.0f, -10000.0f, 1e6f}) {
        SparseData data(
            {9, classes, DataType::kFloat32, DataType::kFloat32, divergence, 3.0f, false}, 3, 2);
        for (size_t i = 0; i < data.dense.Elements(); ++i) {
          data.dense.student.Set(i, data.dense.student.Get(i) + offset);
        }
        for (size_t i = 0; i < data.Size(); ++i) {
          data.teacher.Set(i, data.teacher.Get(i) - 0.7f * offset);
        }
        for (size_t row = 0; row < data.dense.Rows(); ++row) {
          data.tail.Set(row, data.tail.Get(row) - 0.7f * offset / 3.0f);
        }
        Run(data);
        Compare(data);
      }
    }
  }
}

// The teacher's rest is masked by a number that is not -inf; the student gives it mass.
void TestMaskedRest() {
  for (Divergence divergence : kDivergences) {
    for (int64_t classes : {9, 150}) {
      for (float temperature : {0.7f, 3.0f, 4.7f}) {
        for (float mask : {-1e3f, -1e7f, -1e8f, -1e9f, -1e10f}) {
          SparseData data(
              {9, classes, DataType::kFloat32, DataType::kFloat32, divergence, temperature, false},
              3, 2);
          for (size_t row = 0; row < data.dense.Rows(); ++row) {
            const Real count = static_cast<Real>(classes - 3);
            data.tail.Set(
                row, static_cast<float>(mask / static_cast<Real>(temperature) + std::log(count)));
          }
          Run(data);
          Compare(data);
        }
      }
    }
  }
}

void TestSpecialValues() {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (int64_t classes : {7, 150}) {
    for (float special : {kInf, -kInf, nan, 3e38f, -3e38f, 1e-45f}) {
      for (Divergence divergence : kDivergences) {
        const Case c{9, classes, DataType::kFloat32, DataType::kFloat32, divergence, 2.0f, false};
        SparseData data(c, 3, 2);
        const size_t width = static_cast<size_t>(classes);
        data.dense.student.Set(3, special);              // row 0, kept or not
        data.dense.student.Set(4 * width + 1, special);  // of weight zero
        data.teacher.Set(8 * 3 + 1, special);
        Run(data);
        const bool poison = std::isnan(special) || special == kInf;
        Expect(std::isnan(data.dense.soft.Get(0)) == poison, "NaN and +inf give NaN");
        Expect(std::isnan(data.dense.soft.Get(8)) == poison, "NaN and +inf of a teacher give NaN");
        Expect(!std::isnan(data.dense.soft.Get(1)), "a special row leaves its neighbors alone");
        Expect(data.dense.soft.Get(4) == 0.0f, "a row of weight zero is zero");
      }
    }
  }
}

// Nothing in the rest: no NaN, and no gradient there.
void TestEmptyRest() {
  for (Divergence divergence : kDivergences) {
    for (int64_t classes : {7, 150}) {
      SparseData data({9, classes, DataType::kFloat32, DataType::kFloat32, divergence, 2.0f, false},
                      3, 2);
      const size_t width = static_cast<size_t>(classes);
      for (size_t row : {0u, 3u}) {
        std::vector<float> before(width);
        for (size_t c = 0; c < width; ++c) before[c] = data.dense.student.Get(row * width + c);
        for (size_t c = 0; c < width; ++c) data.dense.student.Set(row * width + c, -kInf);
        for (size_t i = row * 3; i < row * 3 + 3; ++i) {
          const size_t index = static_cast<size_t>(data.indices[i]);
          data.dense.student.Set(row * width + index, before[index]);
        }
        data.tail.Set(row, -kInf);
      }
      Run(data);
      Real sum = 0;
      for (size_t c = 0; c < width; ++c) {
        const float slope = data.dense.gradient.Get(c);
        const bool kept = std::find(data.indices.begin(), data.indices.begin() + 3,
                                    static_cast<int64_t>(c)) != data.indices.begin() + 3;
        Expect(kept || slope == 0.0f, "an empty rest has no slope");
        sum += slope;
      }
      Expect(std::isfinite(data.dense.soft.Get(0)) && data.dense.soft.Get(0) >= 0, "finite");
      Expect(std::fabs(sum) < 1e-5L, "the kept classes' slopes add up to nothing");
    }
  }
}

void TestErrors() {
  SparseData data(
      {6, 10, DataType::kFloat32, DataType::kFloat32, Divergence::kForwardKl, 1.0f, false}, 3, 3);
  const auto error = [&] { return RunSparseLosses(data.Describe()); };
  const std::vector<int64_t> before = data.indices;
  for (int64_t bad : {int64_t{10}, int64_t{-1}, int64_t{1} << 40}) {
    data.indices[5] = bad;
    ExpectError(error(),
                "Index " + std::to_string(bad) + " at row 1 is out of range: expected 0 <=");
  }
  data.indices[5] = data.indices[3];
  ExpectError(error(), "Index " + std::to_string(data.indices[3]) + " at row 1 is there twice");
  data.dense.soft_weight.Set(1, 0.0f);
  data.indices[4] = int64_t{1} << 40;
  Expect(error().empty(), "indices of a row of weight zero are not looked at");
  data.indices = before;
  SparseProblem problem = data.Describe();
  problem.kept = 11;
  ExpectError(RunSparseLosses(problem), "at most 10");
  problem = data.Describe();
  problem.dense.temperature = 0.0f;
  ExpectError(RunSparseLosses(problem), "temperature");
  problem.dense.rows = 0;
  Expect(RunSparseLosses(problem).empty(), "no rows are no error");
}

// The first bad row is named, whichever thread finds one first.
void TestFirstBadRow() {
  SetNumThreads(3);
  const Case c{4000, 30,   DataType::kFloat32, DataType::kFloat32, Divergence::kForwardKl,
               1.0f, false};
  SparseData data(c, 10, 3);
  for (size_t row : {3999u, 2500u, 1001u}) {
    data.indices[row * 10] = 30;
    data.dense.soft_weight.Set(row, 1.0f);
    ExpectError(RunSparseLosses(data.Describe()), "Index 30 at row " + std::to_string(row));
  }
}

bool SameBytes(const SparseData& a, const SparseData& b) {
  const auto same = [](const Array& x, const Array& y) {
    return std::memcmp(x.bytes(), y.bytes(), x.size()) == 0;
  };
  return same(a.dense.gradient, b.dense.gradient) && same(a.dense.soft, b.dense.soft);
}

void TestThreadsAndIndices() {
  for (int64_t classes : {130, 5000}) {
    const Case c{classes == 130 ? 700 : 40,
                 classes,
                 DataType::kFloat32,
                 DataType::kFloat32,
                 Divergence::kForwardKl,
                 4.0f,
                 false};
    SetNumThreads(1);
    SparseData alone(c, 7, 4);
    Run(alone);
    for (int threads : {2, 3, 5}) {
      SetNumThreads(threads);
      SparseData data(c, 7, 4);
      SparseProblem problem = data.Describe();
      problem.indices = data.narrow.data();
      problem.indices_are_int64 = false;
      Expect(RunSparseLosses(problem).empty(), "runs");
      Expect(SameBytes(alone, data), "bit-identical for any number of threads and index type");
    }
  }
}

void TestLossesAlone() {
  const Case c{19, 33, DataType::kFloat32, DataType::kFloat32, Divergence::kReverseKl, 2.0f, false};
  SparseData with(c, 5, 4), without(c, 5, 4);
  Run(with);
  SparseProblem problem = without.Describe();
  problem.dense.gradient = nullptr;
  Expect(RunSparseLosses(problem).empty(), "runs");
  Expect(
      std::memcmp(with.dense.soft.bytes(), without.dense.soft.bytes(), with.dense.soft.size()) == 0,
      "the same losses without a gradient");
}

}  // namespace

namespace keras_kd {

std::vector<void (*)()> SparseTests() {
  return {TestValues,      TestTypes,         TestLittleRest,  TestLargeLogits,
          TestCloseModels, TestCommonOffsets, TestMaskedRest,  TestSpecialValues,
          TestEmptyRest,   TestErrors,        TestFirstBadRow, TestThreadsAndIndices,
          TestLossesAlone};
}

}  // namespace keras_kd
