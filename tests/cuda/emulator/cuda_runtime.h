// Stands in for CUDA's <cuda_runtime.h> when a .cu file is compiled by a C++ compiler: the part of
// the language and of the runtime that the kernels use, on top of the emulator.
#ifndef KERAS_KD_TESTS_CUDA_EMULATOR_CUDA_RUNTIME_H_
#define KERAS_KD_TESTS_CUDA_EMULATOR_CUDA_RUNTIME_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>

#include "emulator.h"

#define __device__
#define __global__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define KERAS_KD_DYNAMIC_SHARED(type, name) \
  type* name = static_cast<type*>(emulator::DynamicShared())

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Set before each thread runs.
extern emulator::Index threadIdx, blockIdx;

#define KERAS_KD_HERE \
  emulator::Place { __builtin_FILE(), __builtin_LINE() }

inline void __syncthreads(emulator::Place place = KERAS_KD_HERE) { emulator::SyncBlock(place); }
inline void __syncwarp(unsigned mask = ~0u, emulator::Place place = KERAS_KD_HERE) {
  emulator::SyncLanes(emulator::WarpCall::kSync, mask, 0, 0, place);
}
template <typename T>
T ShuffleAs(emulator::WarpCall call, unsigned mask, T value, int argument, emulator::Place place) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = emulator::SyncLanes(call, mask, bits, argument, place);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, emulator::Place place = KERAS_KD_HERE) {
  return ShuffleAs(emulator::WarpCall::kShuffleXor, mask, value, lanes, place);
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, emulator::Place place = KERAS_KD_HERE) {
  return ShuffleAs(emulator::WarpCall::kShuffleIndex, mask, value, lane, place);
}
template <typename T>
T __ldg(const T* from) {
  if (reinterpret_cast<uintptr_t>(from) % alignof(T) != 0) throw emulator::Error("misaligned load");
  return *from;
}

// ---- the runtime ----

using cudaStream_t = struct CUstream_st*;
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorLaunchFailure = 719
};
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin = 97 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

// What the last launch asked for, so that a test can see it; and an error it shall meet.
struct LaunchRecord {
  cudaLaunchConfig_t config;
  cudaError_t next_error = cudaSuccess;
  std::string failure;  // of the emulated kernel
};
LaunchRecord& LastLaunch();

cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
const char* cudaGetErrorString(cudaError_t status);
const char* cudaGetErrorName(cudaError_t status);
// Whether a launch of this configuration would start; for cudaLaunchKernelEx.
cudaError_t CheckLaunch(const cudaLaunchConfig_t& config, const void* kernel);

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const cudaError_t status = CheckLaunch(*config, reinterpret_cast<const void*>(kernel));
  if (status != cudaSuccess) return status;
  const std::tuple<Parameters...> values(arguments...);
  const auto index = [](dim3 d) { return emulator::Index{d.x, d.y, d.z}; };
  try {
    emulator::Launch(index(config->gridDim), index(config->blockDim), config->dynamicSmemBytes,
                     [&] { std::apply(kernel, values); });
  } catch (const emulator::Error& error) {
    LastLaunch().failure = error.what();
    return cudaErrorLaunchFailure;
  }
  return cudaSuccess;
}

#endif  // KERAS_KD_TESTS_CUDA_EMULATOR_CUDA_RUNTIME_H_
