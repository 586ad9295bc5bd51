// Sum and maximum over neighboring threads of a warp, and over a block.
#ifndef KERAS_KD_CSRC_CUDA_LANES_CUH_
#define KERAS_KD_CSRC_CUDA_LANES_CUH_

#include <cuda_runtime.h>

namespace keras_kd {
namespace cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Over `lanes` threads (a power of two, known at run time only), the same in all of them: a
// butterfly adds in an order of its own, but in the same one every time.
struct Add {
  static constexpr float kNothing = 0.0f;
  static __device__ __forceinline__ float Of(float a, float b) { return a + b; }
};
struct Largest {
  static constexpr float kNothing = -__builtin_huge_valf();
  static __device__ __forceinline__ float Of(float a, float b) { return fmaxf(a, b); }
};
template <typename Operation>
__device__ __forceinline__ float OverLanes(float value, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) {
    value = Operation::Of(value, __shfl_xor_sync(kAllLanes, value, step));
  }
  return value;
}

template <typename Operation>
__device__ __forceinline__ float OverWarp(float value) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    value = Operation::Of(value, __shfl_xor_sync(kAllLanes, value, step));
  }
  return value;
}

constexpr int kSlots = 3;       // values reduced at once
constexpr int kMostWarps = 16;  // of a block
constexpr int kMostThreads = kWarp * kMostWarps;
constexpr int kSlotFloats = kSlots * kMostWarps;

// Over a block of whole warps, the same in every thread and in every run. `slots` is shared memory
// of kSlotFloats.
template <typename Operation, int kCount>
__device__ void OverBlock(float (&values)[kCount], float* slots) {
  static_assert(kCount <= kSlots, "more values than slots");
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  __syncthreads();  // the slots of the reduction before have been read
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float value = OverWarp<Operation>(values[i]);
    if (lane == 0) slots[i * kMostWarps + warp] = value;
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float value = lane < warps ? slots[i * kMostWarps + lane] : Operation::kNothing;
    values[i] = OverWarp<Operation>(value);
  }
}

}  // namespace cuda
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CUDA_LANES_CUH_
