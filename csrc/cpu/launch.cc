#include "launch.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "dispatch.h"
#include "thread_pool.h"

namespace keras_kd {
namespace {

// A piece of work worth handing to another thread: below it, waking one costs more than it saves.
constexpr int64_t kElementsPerPiece = 16 * 1024;

// Results larger than this are streamed past the caches: nothing could keep them until they are
// read again, and a normal store would read every line first (a third of the triad's traffic).
constexpr int64_t kStreamBytes = 24 * 1024 * 1024;

// Scratch that stays with its thread, so that a training step does not pay for fresh pages.
float* Scratch(int64_t floats) {
  struct Free {
    void operator()(float* memory) const { std::free(memory); }
  };
  thread_local std::unique_ptr<float, Free> memory;
  thread_local int64_t size = 0;
  if (size < floats) {
    const int64_t rounded = (floats + 1023) / 1024 * 1024;
    memory.reset(
        static_cast<float*>(std::aligned_alloc(64, static_cast<size_t>(rounded) * sizeof(float))));
    size = memory ? rounded : 0;
  }
  return memory.get();
}

int64_t RowsPerPiece(int64_t rows, int64_t classes, int64_t multiple) {
  const int64_t enough = std::max<int64_t>(1, kElementsPerPiece / std::max<int64_t>(1, classes));
  // Eight pieces a thread at most: a late thread then costs an eighth of its share.
  const int64_t balanced = rows / (8 * NumThreads());
  const int64_t grain = std::max(enough, balanced);
  return (grain + multiple - 1) / multiple * multiple;
}

std::string CheckLabels(const Problem& problem) {
  if (!problem.labels) return "";
  for (int64_t row = 0; row < problem.rows; ++row) {
    if (problem.HardWeight(row) == 0.0f) continue;
    const int64_t label = problem.Label(row);
    if (label >= 0 && label < problem.classes) continue;
    return "Label " + std::to_string(label) + " at row " + std::to_string(row) +
           " is out of range: expected 0 <= label < " + std::to_string(problem.classes) +
           ", the number of classes.";
  }
  return "";
}

std::string CheckScalars(const Problem& problem) {
  if (!(problem.temperature > 0.0f) || std::isinf(problem.temperature)) {
    return "Invalid value for argument `temperature`. Expected a positive, finite number. "
           "Received: temperature=" +
           std::to_string(problem.temperature);
  }
  if (problem.divergence == Divergence::kJensenShannon &&
      !(problem.mixing_weight > 0.0f && problem.mixing_weight < 1.0f)) {
    return "Invalid value for argument `mixing_weight`. Expected a number between 0 and 1, both "
           "excluded. Received: mixing_weight=" +
           std::to_string(problem.mixing_weight);
  }
  if (problem.classes < 1) return "Expected at least one class. Received logits of no classes.";
  return "";
}

bool Streams(const Problem& problem) {
  return problem.gradient &&
         problem.rows * problem.classes * static_cast<int64_t>(SizeOf(problem.gradient_type)) >=
             kStreamBytes;
}

// Calls run(begin, end, scratch) over pieces of the rows, each thread with its own scratch;
// `elements` of a row say how much work it is.
template <typename Run>
std::string RunRows(int64_t rows, int64_t elements, int64_t floats, const Run& run) {
  if (!Scratch(floats)) return "Out of memory: a scratch of " + std::to_string(floats) + " floats.";
  std::atomic<bool> out_of_memory{false};
  ParallelFor(rows, RowsPerPiece(rows, elements, Kernels().lanes), [&](int64_t begin, int64_t end) {
    if (float* scratch = Scratch(floats)) {
      run(begin, end, scratch);
    } else {
      out_of_memory = true;
    }
  });
  return out_of_memory ? "Out of memory for a thread's scratch." : "";
}

std::string CheckKept(const SparseProblem& problem) {
  const int64_t kept = problem.kept, classes = problem.dense.classes;
  if (kept >= 1 && kept <= classes) return "";
  return "Expected at least one and at most " + std::to_string(classes) +
         " classes, the student's, in teacher_logits. Received: " + std::to_string(kept);
}

// A bit for each class.
struct ClassSet {
  uint32_t* words;
  bool Has(int64_t label) const { return words[label / 32] >> (label % 32) & 1u; }
  void Flip(int64_t label) const { words[label / 32] ^= 1u << (label % 32); }
};

// The place of the first index of a row that is out of range or there for the second time, or
// `kept`. Leaves `seen` empty, as it was.
int64_t BadIndex(const SparseProblem& problem, int64_t row, const ClassSet& seen) {
  int64_t good = 0;
  for (; good < problem.kept; ++good) {
    const int64_t index = problem.Index(row, good);
    if (index < 0 || index >= problem.dense.classes || seen.Has(index)) break;
    seen.Flip(index);
  }
  for (int64_t i = 0; i < good; ++i) seen.Flip(problem.Index(row, i));
  return good;
}

std::string BadIndexMessage(const SparseProblem& problem, int64_t row, int64_t place) {
  const int64_t index = problem.Index(row, place), classes = problem.dense.classes;
  const std::string what = "Index " + std::to_string(index) + " at row " + std::to_string(row);
  if (index >= 0 && index < classes) {
    return what + " is there twice: expected distinct indices in each row of teacher_indices.";
  }
  return what + " is out of range: expected 0 <= index < " + std::to_string(classes) +
         ", the number of classes.";
}

// Each thread looks through some rows; the first bad row is reported, whoever finds it.
std::string CheckIndices(const SparseProblem& problem) {
  const int64_t words = (problem.dense.classes + 31) / 32;
  std::atomic<int64_t> first_bad{problem.dense.rows};
  const auto check = [&](int64_t begin, int64_t end, float* scratch) {
    const ClassSet seen{reinterpret_cast<uint32_t*>(scratch)};
    std::memset(scratch, 0, static_cast<size_t>(words) * sizeof(uint32_t));
    for (int64_t row = begin; row < end; ++row) {
      if (problem.dense.Skipped(row) || BadIndex(problem, row, seen) == problem.kept) continue;
      int64_t before = first_bad;
      while (row < before && !first_bad.compare_exchange_weak(before, row)) {
      }
      return;
    }
  };
  const std::string error = RunRows(problem.dense.rows, problem.kept, words, check);
  if (!error.empty() || first_bad == problem.dense.rows) return error;
  std::vector<uint32_t> bits(static_cast<size_t>(words));
  return BadIndexMessage(problem, first_bad, BadIndex(problem, first_bad, {bits.data()}));
}

}  // namespace

std::string RunLosses(const Problem& problem) {
  if (problem.rows == 0) return "";
  std::string error = CheckScalars(problem);
  if (error.empty()) error = CheckLabels(problem);
  if (!error.empty()) return error;
  const KernelTable& kernels = Kernels();
  const bool stream = Streams(problem);
  return RunRows(problem.rows, problem.classes, kernels.scratch_floats(problem.classes),
                 [&](int64_t begin, int64_t end, float* scratch) {
                   kernels.losses(problem, begin, end, scratch, stream);
                 });
}

std::string RunSparseLosses(const SparseProblem& problem) {
  const Problem& dense = problem.dense;
  if (dense.rows == 0) return "";
  std::string error = CheckScalars(dense);
  if (error.empty()) error = CheckKept(problem);
  if (error.empty()) error = CheckIndices(problem);
  if (!error.empty()) return error;
  const KernelTable& kernels = Kernels();
  const bool stream = Streams(dense);
  return RunRows(dense.rows, dense.classes,
                 kernels.sparse_scratch_floats(dense.classes, problem.kept),
                 [&](int64_t begin, int64_t end, float* scratch) {
                   kernels.sparse_losses(problem, begin, end, scratch, stream);
                 });
}

std::string RunScale(const ScaleProblem& problem) {
  const KernelTable& kernels = Kernels();
  ParallelFor(problem.rows, RowsPerPiece(problem.rows, problem.classes, 1),
              [&](int64_t begin, int64_t end) { kernels.scale(problem, begin, end); });
  return "";
}

void RunTriad(const float* a, const float* b, float factor, float* out, int64_t count) {
  const KernelTable& kernels = Kernels();
  const bool stream = count * static_cast<int64_t>(sizeof(float)) >= kStreamBytes;
  ParallelFor(count, RowsPerPiece(count, 1, 64), [&](int64_t begin, int64_t end) {
    kernels.triad(a + begin, b + begin, factor, out + begin, end - begin, stream);
  });
}

bool AllOnes(const float* values, int64_t count) {
  return std::all_of(values, values + count, [](float value) { return value == 1.0f; });
}

}  // namespace keras_kd
