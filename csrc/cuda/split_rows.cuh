// Few long rows: each is split over several blocks, so that all of the GPU works. Three launches,
// because blocks wait for one another only at a launch's end; a fourth writes the gradients of
// reverse KL and Jensen-Shannon (saved_rows.cuh). Parts are combined in one order: no atomics, the
// same numbers in every run.
#ifndef KERAS_KD_CSRC_CUDA_SPLIT_ROWS_CUH_
#define KERAS_KD_CSRC_CUDA_SPLIT_ROWS_CUH_

#include "block_rows.cuh"

namespace keras_kd {
namespace cuda {

constexpr int kSplitThreads = 256;

// In device memory, between the launches: for each row and part, its Sums, and then the two parts
// of its divergence. Plain floats, so that its layout is that of any compiler.
struct Split {
  int parts;
  float* memory;
  int64_t rows;

  static constexpr int kSums = Sums::kCount, kAll = kSums + 2;
  static int64_t Floats(int64_t rows, int64_t parts) { return rows * parts * kAll; }

  __device__ float* SumsOf(int64_t row, int part) const {
    return memory + (row * parts + part) * kSums;
  }
  __device__ float* DivergenceOf(int64_t row, int part) const {
    return memory + rows * parts * kSums + (row * parts + part) * 2;
  }
  // The pieces of a part: as many for each, but for the last.
  __device__ int Begin(int pieces, int part) const {
    const int each = (pieces + parts - 1) / parts;
    return min(pieces, each * part);
  }
};

// The sums of a whole row, which each warp of a block computes again.
template <typename T>
__device__ Sums Combine(const Row<T>& row, const Split& split) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const float scale = kLog2E / row.temperature;
  const float hard_scale = row.OwnHard() ? kLog2E : scale;
  Sums all{-kInfinity, -kInfinity, 0.0f, 0.0f, 0.0f};
  for (int part = lane; part < split.parts; part += kWarp) {
    const float* sums = split.SumsOf(row.index, part);
    all.student_largest = fmaxf(all.student_largest, sums[0]);
    all.teacher_largest = fmaxf(all.teacher_largest, sums[1]);
  }
  all.student_largest = OverWarp<Largest>(all.student_largest);
  all.teacher_largest = OverWarp<Largest>(all.teacher_largest);
  for (int part = lane; part < split.parts; part += kWarp) {
    const Sums sums = Sums::Load(split.SumsOf(row.index, part));
    all.student += Moved(sums.student, sums.student_largest, all.student_largest, scale);
    all.teacher += Moved(sums.teacher, sums.teacher_largest, all.teacher_largest, scale);
    all.hard += Moved(sums.hard, sums.student_largest, all.student_largest, hard_scale);
  }
  all.student = OverWarp<Add>(all.student);
  all.teacher = OverWarp<Add>(all.teacher);
  all.hard = OverWarp<Add>(all.hard);
  return all;
}

// Block (part, row): the sums of a part.
template <typename T>
__global__ void __launch_bounds__(kSplitThreads, 2) SplitSums(Task task, Split split) {
  KERAS_KD_DYNAMIC_SHARED(float, shared);
  const int part = static_cast<int>(blockIdx.x);
  const Row<T> row(task, blockIdx.y);
  if (!row.Active()) return;  // the whole block
  const int pieces = row.grid.Pieces();
  BlockRow<T, false> held(row, shared, split.Begin(pieces, part), split.Begin(pieces, part + 1));
  held.FindSums();
  if (threadIdx.x == 0) held.sums.Store(split.SumsOf(row.index, part));
}

// Block (part, row): the divergence of a part; the gradient too where it needs no more.
template <typename T, Divergence kDivergence>
__global__ void __launch_bounds__(kSplitThreads, 2) SplitDivergence(Task task, Split split) {
  KERAS_KD_DYNAMIC_SHARED(float, shared);
  const int part = static_cast<int>(blockIdx.x);
  const Row<T> row(task, blockIdx.y);
  const int pieces = row.grid.Pieces();
  const int begin = split.Begin(pieces, part), end = split.Begin(pieces, part + 1);
  if (!row.Active()) {  // the whole block
    return row.WriteZeroGradient(begin + static_cast<int>(threadIdx.x), kSplitThreads, end);
  }
  BlockRow<T, false> held(row, shared, begin, end);
  held.sums = Combine(row, split);
  float parts[2];
  held.Diverge(row.template Ready<kDivergence>(held.sums), parts);
  if (threadIdx.x != 0) return;
  float* to = split.DivergenceOf(row.index, part);
  to[0] = parts[0], to[1] = parts[1];
}

// A warp a row: losses and statistics of the whole.
template <typename T, Divergence kDivergence>
__global__ void __launch_bounds__(kWarp) SplitLosses(Task task, Split split) {
  const Row<T> row(task, blockIdx.x);
  const int lane = static_cast<int>(threadIdx.x);
  if (!row.Active()) {
    if (lane == 0) row.WriteZeroLosses();
    return;
  }
  const Sums sums = Combine(row, split);
  float first = 0.0f, second = 0.0f;
  for (int part = lane; part < split.parts; part += kWarp) {
    const float* parts = split.DivergenceOf(row.index, part);
    first += parts[0];
    second += parts[1];
  }
  first = OverWarp<Add>(first);
  second = OverWarp<Add>(second);
  const auto ready = row.template Ready<kDivergence>(sums);
  if (lane == 0) row.WriteLosses(sums, ready.Loss(first, second), ready.MeanScore(first, second));
}

}  // namespace cuda
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CUDA_SPLIT_ROWS_CUH_
