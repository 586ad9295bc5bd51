// The gradient of rows whose statistics an earlier launch has saved: every class stands for itself,
// so nothing is reduced and rows of any length go through one kernel. It reads 8 bytes a class and
// writes 4 in float.
#ifndef KERAS_KD_CSRC_CUDA_SAVED_ROWS_CUH_
#define KERAS_KD_CSRC_CUDA_SAVED_ROWS_CUH_

#include "row.cuh"

namespace keras_kd {
namespace cuda {

constexpr int kSavedThreads = 256;
constexpr int kSavedPieces = 4;  // of a thread, so that a row's statistics serve several

// `lanes` threads work on a row, `parts` times kSavedPieces pieces each.
template <typename T, Divergence kDivergence>
__global__ void __launch_bounds__(kSavedThreads, 2) SavedRows(Task task, int lanes, int parts) {
  constexpr int kPiece = kPieceOf<T>;
  const int rows_per_block = kSavedThreads / lanes;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t group = blockIdx.x / static_cast<unsigned>(parts);
  const int part = static_cast<int>(blockIdx.x % static_cast<unsigned>(parts));
  const Row<T> row(task, group * rows_per_block + thread / lanes);
  if (!row.exists) return;
  const int first = part * kSavedPieces * lanes + thread % lanes;
  const int last = min(row.grid.Pieces(), (part + 1) * kSavedPieces * lanes);
  if (!row.Active()) return row.WriteZeroGradient(first, lanes, last);
  const float* statistics = task.statistics + row.index * kStatistics;
  const Sums sums = Sums::Load(statistics);
  const float mean_score = statistics[Sums::kCount];
  const auto ready = row.template Ready<kDivergence>(sums);
  for (int piece = first; piece < last; piece += lanes) {
    float s[kPiece], t[kPiece], soft[kPiece];
    row.Load(piece, s, t);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) soft[i] = ready.SoftGradient(s[i], t[i], mean_score);
    row.WriteGradient(ready, sums, piece, s, soft);
  }
}

}  // namespace cuda
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CUDA_SAVED_ROWS_CUH_
