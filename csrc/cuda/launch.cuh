// The members of Launch<T>.
//
//   C <= 32          2 threads a row, 16 columns each
//   C <= 1024        2, 4, 8, 16 or 32 threads a row, up to 32 columns each, in registers
//   fits a block     a block a row: both rows in shared memory
//   larger           a block a row: rows read again in the second sweep
//   few long rows    several blocks a row, if there is a workspace
#ifndef KERAS_KD_CSRC_CUDA_LAUNCH_CUH_
#define KERAS_KD_CSRC_CUDA_LAUNCH_CUH_

#include "block_rows.cuh"
#include "launch.h"
#include "saved_rows.cuh"
#include "split_rows.cuh"
#include "warp_rows.cuh"

namespace keras_kd {
namespace cuda {

// Columns of a thread of WarpRows.
constexpr int kFewColumns = 16, kManyColumns = 32;
constexpr int64_t kMostWarpClasses = kWarp * kManyColumns;
constexpr int kMostParts = 64;
constexpr int64_t kGrantedShared = 48 << 10;  // a block may have this much without being asked

template <typename... Parameters, typename... Arguments>
cudaError_t Start(cudaStream_t stream, dim3 blocks, int threads, int64_t shared,
                  void (*kernel)(Parameters...), Arguments... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<size_t>(shared);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

// Calls body(std::integral_constant) for a divergence.
template <typename Body>
cudaError_t WithDivergence(Divergence divergence, Body body) {
  switch (divergence) {
    case Divergence::kForwardKl:
      return body(std::integral_constant<Divergence, Divergence::kForwardKl>());
    case Divergence::kReverseKl:
      return body(std::integral_constant<Divergence, Divergence::kReverseKl>());
    case Divergence::kJensenShannon:
      return body(std::integral_constant<Divergence, Divergence::kJensenShannon>());
  }
  return cudaErrorInvalidValue;
}

inline dim3 BlocksFor(int64_t items, int64_t per_block) {
  return dim3(static_cast<unsigned>((items + per_block - 1) / per_block));
}

// As few threads a row as hold it: what a row spends for each of its threads is spent less often,
// and more of their columns are columns of the row.
template <typename T>
template <Divergence kDivergence>
cudaError_t Launch<T>::Warps() const {
  const bool is_short = task.problem.classes <= 2 * kFewColumns;
  int lanes = 2;
  while (!is_short && lanes * kManyColumns < task.problem.classes) lanes *= 2;
  const auto kernel =
      is_short ? WarpRows<T, kDivergence, kFewColumns> : WarpRows<T, kDivergence, kManyColumns>;
  return Start(stream, BlocksFor(task.problem.rows, kWarpRowThreads / lanes), kWarpRowThreads, 0,
               kernel, task, lanes);
}

template <typename T>
template <Divergence kDivergence>
cudaError_t Launch<T>::Blocks() const {
  const int64_t bytes = CachedBytes<T>(task.problem);
  const dim3 blocks = BlocksFor(task.problem.rows, 1);
  if (bytes > device.shared_memory) {
    return Start(stream, blocks, kMostThreads, kSlotBytes, BlockRows<T, kDivergence, false>, task);
  }
  // Where only one or two blocks fit a multiprocessor, each brings more warps.
  const int threads = bytes > device.shared_memory / 3 ? kMostThreads : kMostThreads / 2;
  const auto kernel = BlockRows<T, kDivergence, true>;
  if (bytes > kGrantedShared) {
    // All that the device has, not `bytes`: the limit is the kernel's, and threads that start it
    // for rows of other lengths would lower it for each other.
    const cudaError_t status =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, device.shared_memory);
    if (status != cudaSuccess) return status;
  }
  return Start(stream, blocks, threads, bytes, kernel, task);
}

// Into how many parts a row is split: two blocks for each multiprocessor, each with a piece for
// every thread; 1: not at all.
template <typename T>
int Launch<T>::PartsOfRow() const {
  const Problem& problem = task.problem;
  if (problem.classes <= kMostWarpClasses || problem.rows * 2 > device.processors) return 1;
  const int64_t pieces = Grid<kPieceOf<T>>::PiecesOf(static_cast<int>(problem.classes));
  const int64_t wanted = (2 * device.processors + problem.rows - 1) / problem.rows;
  int64_t parts = pieces / kSplitThreads;
  if (parts > wanted) parts = wanted;
  if (parts > kMostParts) parts = kMostParts;
  return parts < 1 ? 1 : static_cast<int>(parts);
}

template <typename T>
int64_t Launch<T>::WorkspaceBytes() const {
  const int parts = PartsOfRow();
  if (parts == 1) return 0;
  const int64_t rows = task.problem.rows;
  return (Split::Floats(rows, parts) + rows * kStatistics) * static_cast<int64_t>(sizeof(float));
}

template <typename T>
template <Divergence kDivergence>
cudaError_t Launch<T>::Parts(void* workspace, int parts) const {
  const int64_t rows = task.problem.rows;
  const Split split{parts, static_cast<float*>(workspace), rows};
  const dim3 blocks(static_cast<unsigned>(parts), static_cast<unsigned>(rows));
  const bool later = kDivergence != Divergence::kForwardKl && task.problem.gradient;
  Task with_statistics = task;
  if (later && !task.statistics) {
    with_statistics.statistics = split.memory + Split::Floats(rows, parts);
  }
  cudaError_t status = Start(stream, blocks, kSplitThreads, kSlotBytes, SplitSums<T>, task, split);
  if (status != cudaSuccess) return status;
  status = Start(stream, blocks, kSplitThreads, kSlotBytes, SplitDivergence<T, kDivergence>, task,
                 split);
  if (status != cudaSuccess) return status;
  status = Start(stream, BlocksFor(rows, 1), kWarp, 0, SplitLosses<T, kDivergence>, with_statistics,
                 split);
  if (status != cudaSuccess || !later) return status;
  return Launch{with_statistics, device, stream}.template Saved<kDivergence>();
}

template <typename T>
template <Divergence kDivergence>
cudaError_t Launch<T>::Saved() const {
  const int64_t pieces = Grid<kPieceOf<T>>::PiecesOf(static_cast<int>(task.problem.classes));
  int lanes = 1;
  while (lanes < kSavedThreads && lanes * kSavedPieces < pieces) lanes *= 2;
  const int64_t parts = (pieces + lanes * kSavedPieces - 1) / (lanes * kSavedPieces);
  const int64_t rows_per_block = kSavedThreads / lanes;
  const int64_t blocks = (task.problem.rows + rows_per_block - 1) / rows_per_block * parts;
  if (blocks > 0x7fffffff) return cudaErrorInvalidConfiguration;
  return Start(stream, BlocksFor(blocks, 1), kSavedThreads, 0, SavedRows<T, kDivergence>, task,
               lanes, static_cast<int>(parts));
}

template <typename T>
cudaError_t Launch<T>::Losses(void* workspace, int64_t workspace_bytes) const {
  return WithDivergence(task.problem.divergence, [&](auto divergence) {
    if (task.problem.classes <= kMostWarpClasses) return Warps<divergence()>();
    const int parts = PartsOfRow();
    if (parts == 1 || workspace_bytes < WorkspaceBytes()) return Blocks<divergence()>();
    return Parts<divergence()>(workspace, parts);
  });
}

template <typename T>
cudaError_t Launch<T>::Gradient() const {
  return WithDivergence(task.problem.divergence,
                        [&](auto divergence) { return Saved<divergence()>(); });
}

}  // namespace cuda
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CUDA_LAUNCH_CUH_
