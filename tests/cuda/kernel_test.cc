// The CUDA kernels, executed on the CPU by the emulator, against the formulas in long double.
//
// What is compiled here is launch.cu itself: which kernel is chosen, its grid, its shared memory
// and its arguments are executed as on a GPU. Meant to be run under AddressSanitizer,
// UndefinedBehaviorSanitizer and ThreadSanitizer: every array has exactly the size that the
// interface states, at odd addresses.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <string>

#include "../../csrc/cuda/cuda_api.h"
#include "../../csrc/tests/row_truth.h"
#include "emulator/cuda_runtime.h"

namespace {

using namespace keras_kd;  // NOLINT: a test program

int failures = 0;
bool few = false;

void Expect(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  if (failures < 20) std::printf("FAILED: %s\n", what.c_str());
}

std::string Run(const Problem& problem) {
  char message[512];
  return keras_kd_cuda_losses(&problem, nullptr, message, sizeof message) == 0 ? "" : message;
}

void Check(Data& data) {
  const std::string error = Run(data.Describe());
  Expect(error.empty(), error);
  if (error.empty()) CompareWithTruth(data, Expect);
}

const DataType kTypes[] = {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16};
const Divergence kDivergences[] = {Divergence::kForwardKl, Divergence::kReverseKl,
                                   Divergence::kJensenShannon};

// Every kernel: parts of a warp, 1, 2 and 4 pieces a thread, cached and streamed blocks.
void TestValues() {
  for (int64_t classes :
       {1, 2, 7, 10, 25, 26, 31, 33, 100, 249, 257, 500, 1000, 1017, 1018, 2001}) {
    if (few && classes != 10 && classes != 33 && classes != 500 && classes != 1018) continue;
    const int64_t rows = classes > 200 ? 2 : 35;
    for (Divergence divergence : kDivergences) {
      for (bool hard : {false, true}) {
        const float temperature = classes % 2 ? 1.0f : 4.0f;
        for (DataType student : kTypes) {
          if (few && (student == DataType::kFloat16 || divergence == Divergence::kReverseKl)) {
            continue;
          }
          const DataType teacher = hard ? student : kTypes[classes % 3];
          Data data({rows, classes, student, teacher, divergence, temperature, hard}, 1);
          Check(data);
        }
      }
    }
  }
}

// Rows too long for the shared memory of a block.
void TestStreamedRows() {
  emulator::SetMaxSharedMemory(4096);
  for (int64_t classes : {1100, 5001}) {
    for (Divergence divergence : kDivergences) {
      for (bool hard : {false, true}) {
        Data data({3, classes, DataType::kFloat32, DataType::kBFloat16, divergence, 2.0f, hard}, 2);
        Check(data);
      }
    }
  }
  emulator::SetMaxSharedMemory(227 << 10);
}

// One logit far above the others, rising along the row: the online sums must be rescaled.
void TestLargeLogits() {
  for (size_t most : {size_t{4096}, size_t{227} << 10}) {
    emulator::SetMaxSharedMemory(most);
    for (int64_t classes : {5, 100, 1100, 5001}) {
      const Divergence divergence = Divergence::kForwardKl;
      Data data(
          {9, classes, DataType::kFloat32, DataType::kFloat32, divergence, 1.0f, true, 300.0f}, 3);
      for (size_t i = 0; i < data.Elements(); ++i) {
        data.student.Set(i, data.student.Get(i) + static_cast<float>(i % 5001));
      }
      Check(data);
    }
  }
}

// A student that is its teacher but for 1e-3 and an offset: a divergence of about 1e-6.
void TestCloseModels() {
  for (int64_t classes : {10, 100, 1100}) {
    for (Divergence divergence : kDivergences) {
      Data data({5, classes, DataType::kFloat32, DataType::kFloat32, divergence, 1.0f, false}, 4);
      std::mt19937 random(7);
      std::normal_distribution<float> normal(30.0f, 1e-3f);
      for (size_t i = 0; i < data.Elements(); ++i) {
        data.student.Set(i, data.teacher.Get(i) + normal(random));
      }
      Check(data);
    }
  }
}

// A row of soft weight zero learns from its label, whatever its teacher says; a row of no weight is
// zero, whatever its logits hold.
void TestIgnoredRows() {
  for (int64_t classes : {7, 100, 1100}) {
    const Divergence divergence = Divergence::kForwardKl;
    Data data({20, classes, DataType::kFloat32, DataType::kFloat32, divergence, 2.0f, true}, 5);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const size_t columns = static_cast<size_t>(classes);
    data.teacher.Set(4 * columns + 1, nan);  // soft weight 0, hard weight 0.5
    data.hard_weight.Set(9, 0.0f);           // soft weight 0 too
    data.student.Set(9 * columns + 2, nan);
    data.labels[9] = -7;
    Expect(Run(data.Describe()).empty(), "runs");
    for (size_t row : {4u, 9u}) {
      Expect(data.soft.Get(row) == 0.0f, "no weight, no soft loss");
      for (size_t i = row * columns; i < (row + 1) * columns; ++i) {
        const float value = data.gradient.Get(i);
        Expect(row == 9 ? value == 0.0f : std::isfinite(value), "the gradient of an ignored row");
      }
    }
    Expect(data.hard.Get(9) == 0.0f && data.hard.Get(4) > 0.0f, "the hard losses");
  }
}

// Teacher and gradient whose addresses fit 16 bytes elsewhere than the student's do.
void TestOtherAddresses() {
  for (int64_t classes : {10, 104, 1104}) {
    const Divergence divergence = Divergence::kForwardKl;
    Data data({3, classes, DataType::kFloat32, DataType::kFloat32, divergence, 2.0f, true}, 10);
    Array teacher(DataType::kFloat32, data.Elements() + 2);
    Array gradient(DataType::kFloat32, data.Elements() + 1);
    for (size_t i = 0; i < data.Elements(); ++i) teacher.Set(i + 2, data.teacher.Get(i));
    Problem problem = data.Describe();
    problem.teacher = static_cast<float*>(teacher.data()) + 2;
    problem.gradient = static_cast<float*>(gradient.data()) + 1;
    Expect(Run(problem).empty(), "runs");
    for (size_t i = 0; i < data.Elements(); ++i) data.gradient.Set(i, gradient.Get(i + 1));
    CompareWithTruth(data, Expect);
  }
}

void TestSpecialValues() {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (size_t most : {size_t{4096}, size_t{227} << 10}) {
    emulator::SetMaxSharedMemory(most);
    for (int64_t classes : {7, 100, 1100}) {
      for (float special : {inf, -inf, nan, 3e38f, -3e38f, 1e-45f}) {
        if (few && special != -inf) continue;
        for (Divergence divergence : kDivergences) {
          Data data({9, classes, DataType::kFloat32, DataType::kFloat32, divergence, 2.0f, true},
                    6);
          for (size_t row : {0u, 8u}) data.student.Set(row * data.Elements() / 9 + 3, special);
          Expect(Run(data.Describe()).empty(), "special values are not an error");
          Expect(!std::isnan(data.soft.Get(1)), "a special row leaves its neighbours alone");
          const bool poison = std::isnan(special) || special == inf;
          Expect(std::isnan(data.soft.Get(0)) == poison, "NaN and +inf, and only they, give NaN");
        }
      }
    }
  }
}

void TestLabelsOutOfRange() {
  Data data({3, 10, DataType::kFloat32, DataType::kFloat32, Divergence::kForwardKl, 1.0f, true}, 7);
  data.labels[1] = 10;
  data.labels[2] = -1;
  Expect(Run(data.Describe()).empty(), "a kernel cannot raise an error");
  Expect(std::isfinite(data.hard.Get(0)), "a label in range");
  Expect(std::isnan(data.hard.Get(1)) && std::isnan(data.hard.Get(2)), "NaN says that it is wrong");
}

// The order in which threads take turns must not show.
void TestOrders() {
  for (int64_t classes : {10, 300, 1100}) {
    const Divergence divergence = Divergence::kJensenShannon;
    const Case c{9, classes, DataType::kFloat32, DataType::kFloat32, divergence, 4.0f, true};
    Data expected(c, 8);
    Expect(Run(expected.Describe()).empty(), "runs");
    for (unsigned seed = 0; seed < (few ? 2 : 4); ++seed) {
      const emulator::Order orders[] = {emulator::Order::kWarps, emulator::Order::kReverse};
      emulator::SetOrder(seed < 2 ? orders[seed] : emulator::Order::kRandom, seed);
      Data data(c, 8);
      Expect(Run(data.Describe()).empty(), "runs");
      const bool same =
          std::memcmp(data.gradient.bytes(), expected.gradient.bytes(), data.gradient.size()) == 0;
      Expect(same, "bit-identical for every order of the threads");
    }
    emulator::SetOrder(emulator::Order::kForward);
  }
}

void TestLaunchErrors() {
  Data data({3, 10, DataType::kFloat32, DataType::kFloat32, Divergence::kForwardKl, 1.0f, false},
            9);
  LastLaunch().next_error = cudaErrorInvalidConfiguration;
  const std::string error = Run(data.Describe());
  Expect(error.find("cudaErrorInvalidConfiguration") != std::string::npos,
         "a failed launch says so");
  Problem problem = data.Describe();
  problem.rows = 0;
  Expect(Run(problem).empty(), "no rows are no error");
  problem = data.Describe();
  problem.gradient_type = DataType::kFloat16;
  Expect(Run(problem).find("student's type") != std::string::npos, "the gradient's type");
  problem = data.Describe();
  problem.gradient = nullptr;
  Expect(Run(problem).empty(), "the loss alone");
}

}  // namespace

// --few: less of everything, for builds that are slow (ThreadSanitizer) or many (seeded bugs).
int main(int argc, char** argv) {
  few = argc > 1 && std::string(argv[1]) == "--few";
  for (void (*test)() : {TestValues, TestStreamedRows, TestLargeLogits, TestCloseModels,
                         TestIgnoredRows, TestOtherAddresses, TestSpecialValues,
                         TestLabelsOutOfRange, TestOrders, TestLaunchErrors}) {
    test();
  }
  const emulator::Counters& count = emulator::Count();
  std::printf("%llu blocks, %llu threads, %d failures\n",
              static_cast<unsigned long long>(count.blocks),
              static_cast<unsigned long long>(count.threads), failures);
  return failures == 0 ? 0 : 1;
}
