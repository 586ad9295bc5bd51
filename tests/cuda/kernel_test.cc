// The CUDA kernels, executed on the CPU by the emulator, against the formulas in long double.
//
// What is compiled here are the .cu files themselves: which kernel is chosen, its grid, its shared
// memory and its arguments are executed as on a GPU. Meant to be run under AddressSanitizer,
// UndefinedBehaviorSanitizer and ThreadSanitizer: every array has exactly the size that the
// interface states, at odd addresses.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "../../csrc/cuda/cuda_api.h"
#include "../../csrc/tests/expect.h"
#include "../../csrc/tests/row_truth.h"
#include "emulator/cuda_runtime.h"

namespace {

using namespace keras_kd;  // NOLINT: a test program

// How much: as a test of the plain build, of one under a sanitizer, of one that is slow.
enum class Amount { kAll, kSome, kFew } amount = Amount::kSome;
bool few() { return amount == Amount::kFew; }

// The device: its multiprocessors and the most shared memory of a block.
void SetDevice(int processors, size_t shared_memory) {
  Machine().processors = processors;
  emulator::SetMaxSharedMemory(shared_memory);
}
// With this little shared memory long rows are streamed.
constexpr size_t kLittle = 4096, kPlenty = 227 << 10;
// With this many multiprocessors a few rows are split.
constexpr int kOne = 1, kMany = 16;

std::string Run(const cuda::Task& task) {
  char message[512];
  int64_t bytes = 0;
  if (keras_kd_cuda_workspace(&task, &bytes, message, sizeof message) != 0) return message;
  std::vector<char> workspace(static_cast<size_t>(bytes), '\xff');
  const int failed = keras_kd_cuda_losses(&task, bytes ? workspace.data() : nullptr, bytes, nullptr,
                                          message, sizeof message);
  return failed ? message : "";
}
std::string Run(const Problem& problem) { return Run(cuda::Task{problem}); }

void Check(Data& data) {
  const std::string error = Run(data.Describe());
  Expect(error.empty(), error);
  if (error.empty()) CompareWithTruth(data, Expect);
}

const DataType kTypes[] = {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16};
const Divergence kDivergences[] = {Divergence::kForwardKl, Divergence::kReverseKl,
                                   Divergence::kJensenShannon};

// Every kernel with every pair of types; odd lengths at the temperature of 1, where the hard loss
// needs no exponentials of its own.
void CheckAll(int64_t rows, int64_t classes, bool hard) {
  const float temperature = classes % 2 ? 1.0f : 4.0f;
  for (Divergence divergence : kDivergences) {
    for (DataType student : kTypes) {
      for (DataType teacher : kTypes) {
        // The few are of float students: the code of the others is the same.
        if (few() && (student != DataType::kFloat32 || teacher == DataType::kFloat16)) continue;
        if (few() && divergence == Divergence::kReverseKl) continue;
        Data data({rows, classes, student, teacher, divergence, temperature, hard}, 1);
        Check(data);
      }
    }
  }
}

// Parts of a warp, whole warps, blocks that cache their row.
void TestValues() {
  SetDevice(kOne, kPlenty);
  for (int64_t classes : {1, 7, 10, 31, 32, 33, 64, 100, 200, 500, 1000, 1001, 1024, 1025, 8000}) {
    if (few() && classes != 10 && classes != 33 && classes != 500 && classes != 1025) continue;
    const int64_t rows = classes > 200 ? 3 : classes > 64 ? 37 : 70;  // more than a block's
    for (bool hard : {false, true}) {
      if (amount == Amount::kAll || few() || hard == (classes % 2 == 0)) {
        CheckAll(rows, classes, hard);
      }
    }
  }
}

// Rows too long for the shared memory of a block, and a length that is so on every device.
void TestStreamedRows() {
  SetDevice(kOne, kLittle);
  for (int64_t classes : {1100, 12001}) CheckAll(2, few() ? 1100 : classes, classes == 1100);
  SetDevice(kOne, kPlenty);
  if (!few()) CheckAll(1, 32003, true);
}

void TestSplitRows() {
  SetDevice(kMany, kPlenty);
  for (int64_t classes : {3001, 8000}) {
    if (amount != Amount::kAll && classes == 8000) continue;
    CheckAll(5, classes, classes % 2 == 0);
  }
  if (few()) return SetDevice(kOne, kPlenty);
  for (Divergence divergence : kDivergences) {
    Data data({1, 131072, DataType::kFloat32, DataType::kBFloat16, divergence, 2.0f, true}, 2);
    Check(data);
  }
  if (amount == Amount::kAll) CheckAll(1, 131072, false);
  SetDevice(kOne, kPlenty);
}

// The gradient from what a launch without gradient has saved, with other weights than its own.
void TestSavedStatistics() {
  for (int processors : {kOne, kMany}) {
    SetDevice(processors, kPlenty);
    for (int64_t classes : {1, 10, 33, 300, 1024, 3001}) {
      if (few() && classes != 33 && classes != 3001) continue;
      for (Divergence divergence : kDivergences) {
        for (DataType student : kTypes) {
          if (few() && student != DataType::kFloat32) continue;
          Data data({6, classes, student, DataType::kFloat32, divergence, 3.0f, true}, 3);
          std::vector<float> statistics(6 * cuda::kStatistics, -1.0f);
          cuda::Task task{data.Describe(), nullptr, statistics.data()};
          task.problem.gradient = nullptr;
          Expect(Run(task).empty(), "the losses");
          for (size_t row = 0; row < 6; ++row) {
            data.soft_weight.Set(row, 2.0f * data.soft_weight.Get(row));
          }
          task.problem = data.Describe();
          char message[512];
          Expect(keras_kd_cuda_gradient(&task, nullptr, message, sizeof message) == 0, message);
          CompareWithTruth(data, Expect);
        }
      }
    }
  }
  SetDevice(kOne, kPlenty);
}

// The temperature where XLA keeps it; losses alone.
void TestTemperatureInMemory() {
  for (int64_t classes : {10, 1100}) {
    Data data(
        {4, classes, DataType::kFloat32, DataType::kFloat32, Divergence::kForwardKl, 2.5f, true},
        11);
    const float temperature = 2.5f;
    cuda::Task task{data.Describe(), &temperature};
    task.problem.temperature = -1.0f;
    Expect(Run(task).empty(), "runs");
    CompareWithTruth(data, Expect);
    const float soft = data.soft.Get(1);
    data.soft.Set(1, -1.0f);
    task.problem.gradient = nullptr;
    Expect(Run(task).empty(), "the losses alone");
    Expect(data.soft.Get(1) == soft, "the losses alone are those with a gradient");
  }
}

// One logit far above the others, rising along the row: the online sums must be rescaled.
void TestLargeLogits() {
  for (size_t most : {kLittle, kPlenty}) {
    SetDevice(most == kPlenty ? kMany : kOne, most);
    for (int64_t classes : {5, 100, 1100, 5001}) {
      if (few() && classes == 5001) continue;
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
  for (int64_t classes : {7, 100, 1100, 3001}) {
    SetDevice(classes == 3001 ? 32 : kOne, kPlenty);  // 10 rows, which are split
    const Divergence divergence = Divergence::kForwardKl;
    Data data({10, classes, DataType::kFloat32, DataType::kFloat32, divergence, 2.0f, true}, 5);
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
  SetDevice(kOne, kPlenty);
}

// A gradient in float of 16-bit logits, as loss scaling wants it.
void TestFloatGradient() {
  for (DataType student : {DataType::kFloat16, DataType::kBFloat16}) {
    for (int64_t classes : {10, 300, 1100}) {
      Data data({3, classes, student, student, Divergence::kReverseKl, 2.0f, true}, 12);
      Array gradient(DataType::kFloat32, data.Elements());
      Problem problem = data.Describe();
      problem.gradient = gradient.data();
      problem.gradient_type = DataType::kFloat32;
      Expect(Run(problem).empty(), "runs");
      for (size_t row = 0; row < data.Rows(); ++row) {
        const RowTruth truth = Truth(data, row);
        for (size_t k = 0; k < truth.gradient.size(); ++k) {
          const Real found = gradient.Get(row * truth.gradient.size() + k);
          Expect(std::fabs(found - truth.gradient[k]) <= 8e-6L, "a gradient in float");
        }
      }
    }
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
  for (size_t most : {kLittle, kPlenty}) {
    SetDevice(kOne, most);
    for (int64_t classes : {7, 100, 1100}) {
      for (float special : {inf, -inf, nan, 3e38f, -3e38f, 1e-45f}) {
        if (few() && special != -inf) continue;
        for (Divergence divergence : kDivergences) {
          const size_t rows = classes > 100 ? 3 : 9;
          Data data({static_cast<int64_t>(rows), classes, DataType::kFloat32, DataType::kFloat32,
                     divergence, 2.0f, true},
                    6);
          for (size_t row : {size_t{0}, rows - 1}) {
            data.student.Set(row * data.Elements() / rows + 3, special);
          }
          Expect(Run(data.Describe()).empty(), "special values are not an error");
          Expect(!std::isnan(data.soft.Get(1)), "a special row leaves its neighbors alone");
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
  Expect(std::isfinite(data.gradient.Get(0)), "the gradient of a label in range");
  Expect(std::isnan(data.gradient.Get(10)) && std::isnan(data.gradient.Get(29)),
         "the gradient says it too");
}

void TestInvalidTemperatures() {
  for (int64_t classes : {10, 1100}) {
    for (float temperature : {0.0f, -2.0f, std::numeric_limits<float>::infinity(),
                              std::numeric_limits<float>::quiet_NaN()}) {
      Data data(
          {2, classes, DataType::kFloat32, DataType::kFloat32, Divergence::kForwardKl, 1.0f, false},
          14);
      const cuda::Task task{data.Describe(), &temperature};
      Expect(Run(task).empty(), "a kernel cannot raise an error");
      Expect(std::isnan(data.soft.Get(0)) && std::isnan(data.gradient.Get(0)),
             "NaN says that the temperature is wrong");
    }
  }
}

// The order in which threads take turns must not show.
void TestOrders() {
  for (int64_t classes : {10, 300, 1100, 3001}) {
    SetDevice(classes == 3001 ? 32 : kOne, kPlenty);
    const Divergence divergence = Divergence::kJensenShannon;
    const Case c{9, classes, DataType::kFloat32, DataType::kFloat32, divergence, 4.0f, true};
    Data expected(c, 8);
    Expect(Run(expected.Describe()).empty(), "runs");
    for (unsigned seed = 0; seed < (few() ? 2 : 4); ++seed) {
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
  SetDevice(kOne, kPlenty);
}

void TestLaunchErrors() {
  Data data({3, 10, DataType::kFloat32, DataType::kFloat32, Divergence::kForwardKl, 1.0f, false},
            9);
  Machine().next_error = cudaErrorInvalidConfiguration;
  ExpectError(Run(data.Describe()), "cudaErrorInvalidConfiguration");
  Problem problem = data.Describe();
  problem.rows = 0;
  Expect(Run(problem).empty(), "no rows are no error");
  problem = data.Describe();
  problem.gradient_type = DataType::kBFloat16;
  ExpectError(Run(problem), "student's type");
  problem = data.Describe();
  problem.rows = int64_t{1} << 31;
  ExpectError(Run(problem), "rows");
  problem = data.Describe();
  problem.classes = 0;
  ExpectError(Run(problem), "classes");
  char message[512];
  const cuda::Task task{data.Describe()};
  Expect(keras_kd_cuda_gradient(&task, nullptr, message, sizeof message) == 1, "no statistics");
  ExpectError(message, "statistics");
}

// The reasons why a machine cannot run the kernels; the first that holds is reported.
void TestCheck() {
  const auto check = [] {
    char message[512];
    const int failed = keras_kd_cuda_check(message, sizeof message);
    Expect((message[0] != '\0') == (failed != 0), "a reason, and only then");
    return std::string(message);
  };
  const EmulatedMachine before = Machine();
  Expect(check().empty(), "a new driver and GPU");
  Machine().architecture = 70;
  ExpectError(check(), "compute capability 7.0, expected one that this library has code for");
  Machine().devices = 0;
  ExpectError(check(), "cudaErrorNoDevice");
  Machine().driver_version = 12040;
  ExpectError(check(), "the NVIDIA driver serves CUDA 12.4, this library needs");
  Machine().driver_version = 0;
  ExpectError(check(), "no NVIDIA driver");
  Machine() = before;
  const std::string info = keras_kd_cuda_build_info();
  ExpectError(info, "\"architectures\": \"");
}

// What ThreadSanitizer needs to see of blocks and of their reductions, and no more.
void TestRaces() {
  for (int64_t classes : {10, 1100, 3001}) {
    SetDevice(classes == 3001 ? kMany : kOne, kPlenty);
    Data data({2, classes, DataType::kFloat32, DataType::kFloat32, Divergence::kJensenShannon, 2.0f,
               true},
              13);
    Check(data);
  }
  SetDevice(kOne, kPlenty);
}

}  // namespace

// --all: also every length in each of three orders of the threads. --few: less of everything, for
// builds that are slow (ThreadSanitizer) or many (seeded bugs); --races: less still.
int main(int argc, char** argv) {
  const std::string option = argc > 1 ? argv[1] : "";
  if (option == "--all") amount = Amount::kAll;
  if (option == "--few") amount = Amount::kFew;
  const bool races = option == "--races";
  if (races) TestRaces();
  for (void (*test)() :
       {TestValues, TestStreamedRows, TestSplitRows, TestSavedStatistics, TestTemperatureInMemory,
        TestLargeLogits, TestCloseModels, TestIgnoredRows, TestFloatGradient, TestOtherAddresses,
        TestSpecialValues, TestLabelsOutOfRange, TestInvalidTemperatures, TestOrders,
        TestLaunchErrors, TestCheck}) {
    if (!races) test();
  }
  if (amount == Amount::kAll) {
    for (emulator::Order order : {emulator::Order::kReverse, emulator::Order::kRandom}) {
      emulator::SetOrder(order, 1);
      for (void (*test)() : {TestValues, TestStreamedRows, TestSplitRows}) test();
    }
  }
  const emulator::Counters& count = emulator::Count();
  std::printf("%llu blocks, %llu threads, %d failures\n",
              static_cast<unsigned long long>(count.blocks),
              static_cast<unsigned long long>(count.threads), failures);
  return failures == 0 ? 0 : 1;
}
