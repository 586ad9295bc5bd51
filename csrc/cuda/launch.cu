// Chooses the kernel for a problem and starts it.
//
//   C <= 25        four threads a row      C + 7, because a row may begin anywhere in a piece
//   C <= 1017      a warp a row            1, 2 or 4 pieces a thread, in registers
//   fits a block   a block a row           both rows in shared memory
//   larger         a block a row           rows read again in each sweep
#include <cstdio>
#include <cstring>

#include "block_rows.cuh"
#include "cuda_api.h"
#include "warp_rows.cuh"

namespace keras_kd {
namespace cuda {
namespace {

struct Launch {
  const Problem& problem;
  cudaStream_t stream;

  cudaError_t Start(void (*kernel)(Problem), int64_t blocks, int threads, int64_t shared) const {
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = static_cast<size_t>(shared);
    config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, problem);
  }

  template <typename T, Divergence kDivergence, int kLanes, int kPieces>
  cudaError_t Warps() const {
    constexpr int64_t kRows = kWarp * kWarpsPerBlock / kLanes;
    return Start(WarpRows<T, kDivergence, kLanes, kPieces>, (problem.rows + kRows - 1) / kRows,
                 kWarp * kWarpsPerBlock, 0);
  }

  template <typename T, Divergence kDivergence>
  cudaError_t Blocks() const {
    int device = 0, most = 0;
    cudaError_t status = cudaGetDevice(&device);
    if (status != cudaSuccess) return status;
    status = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (status != cudaSuccess) return status;
    const int64_t cached = SharedBytes(MostPieces(problem.classes));
    if (cached > most) {
      return Start(BlockRows<T, kDivergence, false>, problem.rows, kBlockThreads, kReductionBytes);
    }
    const auto kernel = BlockRows<T, kDivergence, true>;
    status =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(cached));
    if (status != cudaSuccess) return status;
    return Start(kernel, problem.rows, kBlockThreads, cached);
  }

  template <typename T, Divergence kDivergence>
  cudaError_t ByClasses() const {
    const int64_t pieces = MostPieces(problem.classes);
    if (pieces <= 4) return Warps<T, kDivergence, 4, 1>();
    if (pieces <= kWarp) return Warps<T, kDivergence, kWarp, 1>();
    if (pieces <= 2 * kWarp) return Warps<T, kDivergence, kWarp, 2>();
    if (pieces <= 4 * kWarp) return Warps<T, kDivergence, kWarp, 4>();
    return Blocks<T, kDivergence>();
  }

  template <typename T>
  cudaError_t ByDivergence() const {
    switch (problem.divergence) {
      case Divergence::kForwardKl: return ByClasses<T, Divergence::kForwardKl>();
      case Divergence::kReverseKl: return ByClasses<T, Divergence::kReverseKl>();
      case Divergence::kJensenShannon: return ByClasses<T, Divergence::kJensenShannon>();
    }
    return cudaErrorInvalidValue;
  }

  cudaError_t Run() const {
    switch (problem.student_type) {
      case DataType::kFloat32: return ByDivergence<float>();
      case DataType::kFloat16: return ByDivergence<__half>();
      case DataType::kBFloat16: return ByDivergence<__nv_bfloat16>();
    }
    return cudaErrorInvalidValue;
  }
};

// Empty, or what is wrong.
const char* Check(const Problem& problem) {
  if (problem.gradient && problem.gradient_type != problem.student_type) {
    return "the gradient must have the student's type";
  }
  // A grid has at most 2^31 - 1 blocks.
  if (problem.rows > 0x7fffffff) return "more than 2147483647 rows";
  if (problem.classes < 1) return "rows without classes";
  return "";
}

}  // namespace
}  // namespace cuda
}  // namespace keras_kd

int32_t keras_kd_cuda_losses(const keras_kd::Problem* problem, void* stream, char* message,
                             int64_t size) {
  std::snprintf(message, static_cast<size_t>(size), "%s", "");
  if (problem->rows == 0) return 0;
  const char* wrong = keras_kd::cuda::Check(*problem);
  if (wrong[0] != '\0') {
    std::snprintf(message, static_cast<size_t>(size), "keras_kd on CUDA: %s", wrong);
    return 1;
  }
  const cudaError_t status =
      keras_kd::cuda::Launch{*problem, static_cast<cudaStream_t>(stream)}.Run();
  if (status == cudaSuccess) return 0;
  std::snprintf(message, static_cast<size_t>(size), "keras_kd on CUDA: %s (%s)",
                cudaGetErrorString(status), cudaGetErrorName(status));
  return 1;
}
