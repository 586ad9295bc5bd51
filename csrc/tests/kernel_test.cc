// The kernels against the formulas in long double, without TensorFlow or Python: meant to be run
// under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../cpu/dispatch.h"
#include "../cpu/launch.h"
#include "../cpu/thread_pool.h"
#include "../dtype.h"
#include "../problem.h"
#include "expect.h"
#include "row_truth.h"

namespace keras_kd {
std::vector<void (*)()> SparseTests();  // of sparse_test.cc
}

namespace {

using namespace keras_kd;  // NOLINT: a test program

void Check(Data& data) {
  const std::string error = RunLosses(data.Describe());
  Expect(error.empty(), error);
  CompareWithTruth(data, [](bool holds, const std::string& what) {
    Expect(holds, std::string(Kernels().name) + " " + what);
  });
}

void Check(const Case& c) {
  Data data(c, 1);
  Check(data);
}

void TestValues() {
  const DataType types[] = {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16};
  const Divergence divergences[] = {Divergence::kForwardKl, Divergence::kReverseKl,
                                    Divergence::kJensenShannon};
  for (int64_t classes : {1, 2, 7, 10, 15, 16, 17, 63, 64, 65, 100, 127, 128, 129, 1000, 1025}) {
    const int64_t rows = classes > 200 ? 3 : 19;
    for (Divergence divergence : divergences) {
      for (bool hard : {false, true}) {
        const float temperature = classes % 2 ? 1.0f : 4.0f;
        for (DataType student : types) {
          for (DataType teacher : types) {
            Check({rows, classes, student, teacher, divergence, temperature, hard});
          }
        }
      }
    }
  }
}

// One logit far above the others: a largest logit that was missed would overflow an exponential.
void TestLargeLogits() {
  for (int64_t classes : {5, 33, 150, 1001}) {
    for (bool hard : {false, true}) {
      Check({9, classes, DataType::kFloat32, DataType::kFloat32, Divergence::kForwardKl, 1.0f, hard,
             300.0f});
    }
  }
}

// A student that is its teacher but for 1e-3 and an offset: a divergence of about 1e-6.
void TestCloseModels() {
  for (int64_t classes : {10, 150}) {
    for (Divergence divergence :
         {Divergence::kForwardKl, Divergence::kReverseKl, Divergence::kJensenShannon}) {
      Data data({9, classes, DataType::kFloat32, DataType::kFloat32, divergence, 1.0f, false}, 6);
      std::mt19937 random(7);
      std::normal_distribution<float> normal(30.0f, 1e-3f);
      for (size_t i = 0; i < data.Elements(); ++i) {
        data.student.Set(i, data.teacher.Get(i) + normal(random));
      }
      Check(data);
    }
  }
}

bool SameBytes(const Data& a, const Data& b) {
  return std::memcmp(a.gradient.bytes(), b.gradient.bytes(), a.gradient.size()) == 0 &&
         std::memcmp(a.soft.bytes(), b.soft.bytes(), a.soft.size()) == 0;
}

void TestScalarWeights() {
  for (int64_t classes : {7, 150}) {
    const Case c{19,   classes, DataType::kFloat32, DataType::kFloat32, Divergence::kForwardKl,
                 2.0f, true};
    Data each(c, 9), same(c, 9);
    for (size_t row = 0; row < each.Rows(); ++row) {
      each.soft_weight.Set(row, 0.75f);
      each.hard_weight.Set(row, 0.5f);
    }
    Array soft(DataType::kFloat32, 1), hard(DataType::kFloat32, 1);
    soft.Set(0, 0.75f);
    hard.Set(0, 0.5f);
    Problem problem = same.Describe();
    problem.soft_weight = static_cast<float*>(soft.data());
    problem.hard_weight = static_cast<float*>(hard.data());
    problem.soft_weight_is_scalar = problem.hard_weight_is_scalar = true;
    Expect(RunLosses(each.Describe()).empty() && RunLosses(problem).empty(), "runs");
    Expect(SameBytes(each, same), "one weight for all rows");
  }
}

// A row of soft weight zero learns from its label, whatever its teacher says.
void TestIgnoredTeachers() {
  for (int64_t classes : {7, 150}) {
    for (Divergence divergence :
         {Divergence::kForwardKl, Divergence::kReverseKl, Divergence::kJensenShannon}) {
      Data data({9, classes, DataType::kFloat32, DataType::kFloat32, divergence, 2.0f, true}, 8);
      const size_t row = 4, first = row * static_cast<size_t>(classes);
      Expect(data.soft_weight.Get(row) == 0.0f && data.hard_weight.Get(row) != 0.0f, "the row");
      Data same({9, classes, DataType::kFloat32, DataType::kFloat32, divergence, 2.0f, true}, 8);
      data.teacher.Set(first + 1, std::numeric_limits<float>::quiet_NaN());
      Expect(RunLosses(data.Describe()).empty() && RunLosses(same.Describe()).empty(), "runs");
      bool equal = data.soft.Get(row) == 0.0f && data.hard.Get(row) == same.hard.Get(row);
      for (size_t i = first; i < first + static_cast<size_t>(classes); ++i) {
        equal = equal && data.gradient.Get(i) == same.gradient.Get(i);
      }
      Expect(equal, "a teacher without weight is not felt");
    }
  }
}

// Rows that no arithmetic may fail on: what comes out is checked for being NaN or not.
void TestSpecialValues() {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (int64_t classes : {7, 150}) {
    for (float special : {inf, -inf, nan, 3e38f, -3e38f, 1e-45f}) {
      for (Divergence divergence :
           {Divergence::kForwardKl, Divergence::kReverseKl, Divergence::kJensenShannon}) {
        Data data({9, classes, DataType::kFloat32, DataType::kFloat32, divergence, 2.0f, true}, 2);
        for (size_t row : {0u, 8u}) data.student.Set(row * data.Elements() / 9 + 3, special);
        Expect(RunLosses(data.Describe()).empty(), "special values are not an error");
        Expect(!std::isnan(data.soft.Get(1)), "a special row leaves its neighbors alone");
        const bool poison = std::isnan(special) || special == inf;
        Expect(std::isnan(data.soft.Get(0)) == poison, "NaN and +inf, and only they, give NaN");
      }
    }
  }
}

void TestErrors() {
  Data data({3, 10, DataType::kFloat32, DataType::kFloat32, Divergence::kForwardKl, 1.0f, true}, 3);
  data.labels[1] = 10;
  Expect(RunLosses(data.Describe()).find("Label 10 at row 1") != std::string::npos, "label range");
  data.labels[1] = -1;
  Expect(RunLosses(data.Describe()).find("Label -1 at row 1") != std::string::npos, "label range");
  data.hard_weight.Set(1, 0.0f);
  Expect(RunLosses(data.Describe()).empty(), "a label of weight zero is not looked at");
  Problem problem = data.Describe();
  for (float bad : {0.0f, -1.0f, std::numeric_limits<float>::quiet_NaN(),
                    std::numeric_limits<float>::infinity()}) {
    problem.temperature = bad;
    Expect(RunLosses(problem).find("temperature") != std::string::npos, "temperature");
  }
  problem = data.Describe();
  problem.rows = 0;
  Expect(RunLosses(problem).empty(), "no rows are no error");
}

void TestThreads() {
  const Case c{700,  130, DataType::kFloat32, DataType::kFloat32, Divergence::kForwardKl,
               4.0f, true};
  SetNumThreads(1);
  Data alone(c, 4);
  RunLosses(alone.Describe());
  for (int threads : {2, 3, 5}) {
    SetNumThreads(threads);
    Data data(c, 4);
    RunLosses(data.Describe());
    Expect(SameBytes(alone, data), "bit-identical for any number of threads");
  }
  std::vector<std::thread> callers;
  std::vector<int> same(6, 0);
  for (size_t i = 0; i < same.size(); ++i) {
    callers.emplace_back([&, i] {
      Data data(c, 4);
      for (int repeat = 0; repeat < 5; ++repeat) RunLosses(data.Describe());
      same[i] = SameBytes(alone, data);
    });
  }
  for (std::thread& caller : callers) caller.join();
  Expect(std::all_of(same.begin(), same.end(), [](int value) { return value == 1; }),
         "several callers at once");
}

#if defined(__SANITIZE_THREAD__)
void TestFork() {}  // ThreadSanitizer does not support threads in the child of a threaded process
#else
void TestFork() {
  SetNumThreads(2);
  const Case c{700,  130, DataType::kFloat32, DataType::kFloat32, Divergence::kForwardKl,
               4.0f, true};
  Data parent(c, 5);
  RunLosses(parent.Describe());
  const pid_t child = fork();
  if (child == 0) {
    Data data(c, 5);
    RunLosses(data.Describe());
    const auto threads = std::filesystem::directory_iterator("/proc/self/task");
    const bool has_pool = std::distance(begin(threads), end(threads)) > 1;
    _exit(SameBytes(parent, data) && has_pool ? 0 : 1);
  }
  int status = 1;
  waitpid(child, &status, 0);
  Expect(WIFEXITED(status) && WEXITSTATUS(status) == 0,
         "the child of a fork computes the same, with threads of its own");
}
#endif

void TestScale() {
  for (DataType from : {DataType::kFloat32, DataType::kBFloat16, DataType::kFloat16}) {
    for (DataType to : {DataType::kFloat32, DataType::kBFloat16, DataType::kFloat16}) {
      const size_t rows = 5, classes = 37;
      Array gradient(from, rows * classes), upstream(DataType::kFloat32, rows);
      Array out(to, rows * classes);
      for (size_t i = 0; i < rows * classes; ++i) gradient.Set(i, static_cast<float>(i % 64));
      for (size_t i = 0; i < rows; ++i) upstream.Set(i, static_cast<float>(i) - 2.0f);
      ScaleProblem problem;
      problem.rows = rows;
      problem.classes = classes;
      problem.gradient = gradient.data();
      problem.gradient_type = from;
      problem.upstream = static_cast<float*>(upstream.data());
      problem.out = out.data();
      problem.out_type = to;
      RunScale(problem);
      for (size_t i = 0; i < rows * classes; ++i) {
        Expect(out.Get(i) == gradient.Get(i) * upstream.Get(i / classes), "scale");
      }
      problem.upstream_is_scalar = true;
      RunScale(problem);
      for (size_t i = 0; i < rows * classes; ++i) {
        Expect(out.Get(i) == gradient.Get(i) * upstream.Get(0), "scale by one value");
      }
    }
  }
}

// Every float16 and a sweep of floats, both ways.
void TestConversions() {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const Float16 half{static_cast<uint16_t>(bits)};
    Float16 back;
    FromFloat(ToFloat(half), &back);
    const bool nan = (bits & 0x7c00u) == 0x7c00u && (bits & 0x3ffu);
    Expect(nan || back.bits == half.bits, "float16 -> float -> float16");
  }
  Float16 half;
  FromFloat(65519.0f, &half);
  Expect(half.bits == 0x7bff, "65519 rounds to the largest float16");
  FromFloat(65520.0f, &half);
  Expect(half.bits == 0x7c00, "65520 rounds to infinity");
  FromFloat(0x1p-25f, &half);
  Expect(half.bits == 0, "half the smallest float16 rounds to even");
  BFloat16 brain;
  FromFloat(FloatOf(0x3f808000u), &brain);
  Expect(brain.bits == 0x3f80, "bfloat16 ties go to even");
  FromFloat(FloatOf(0x3f818000u), &brain);
  Expect(brain.bits == 0x3f82, "bfloat16 ties go to even");
}

}  // namespace

// Arguments: the instruction sets to test; by default all that this machine has.
int main(int argc, char** argv) {
  const std::vector<std::string> wanted(argv + 1, argv + argc);
  int passed = 0;
  TestConversions();
  for (const KernelTable* table : RunnableKernels()) {
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), table->name) == wanted.end()) {
      continue;
    }
    Expect(SetInstructionSet(table->name), "a runnable instruction set can be chosen");
    std::vector<void (*)()> tests{
        TestValues,        TestLargeLogits, TestCloseModels, TestScalarWeights, TestIgnoredTeachers,
        TestSpecialValues, TestErrors,      TestThreads,     TestFork,          TestScale};
    for (void (*test)() : SparseTests()) tests.push_back(test);
    for (void (*test)() : tests) {
      test();
      ++passed;
    }
    std::printf("%s: done\n", table->name);
  }
  Expect(!SetInstructionSet("none"), "an unknown instruction set is refused");
  std::printf("%d groups, %d failures\n", passed, failures);
  return failures == 0 ? 0 : 1;
}
