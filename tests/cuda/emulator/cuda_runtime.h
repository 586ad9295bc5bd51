// Stands in for CUDA's <cuda_runtime.h> when a .cu file is compiled by a C++ compiler: the part of
// the language and of the runtime that the kernels use, on top of the emulator.
#ifndef KERAS_KD_TESTS_CUDA_EMULATOR_CUDA_RUNTIME_H_
#define KERAS_KD_TESTS_CUDA_EMULATOR_CUDA_RUNTIME_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <tuple>

#include "emulator.h"

#define __device__
#define __global__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define KERAS_KD_DYNAMIC_SHARED(type, name) \
  type* name = static_cast<type*>(emulator::DynamicShared())

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline int min(int a, int b) { return a < b ? a : b; }

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Set before each thread runs.
extern emulator::Index threadIdx, blockIdx, blockDim;

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

template <typename T>
void __stwb(T* to, T value) {
  if (reinterpret_cast<uintptr_t>(to) % alignof(T) != 0) throw emulator::Error("misaligned store");
  *to = value;
}

// ---- the runtime ----

using cudaStream_t = struct CUstream_st*;
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorNoDevice = 100,
  cudaErrorLaunchFailure = 719
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
#define CUDART_VERSION 13000
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

// The machine that is played; a test may set it.
struct EmulatedMachine {
  int driver_version = CUDART_VERSION;  // 0: no driver
  int devices = 1;
  int architecture = 90;
  int processors = 4;
  cudaError_t next_error = cudaSuccess;  // what the next launch returns
  // Runs launches in place of the emulator, if set: (symbol of the kernel, x, y, z of the grid and
  // of the block, bytes of shared memory, parameters as a kernel is given them, their bytes).
  // Returns 0, or what is not 0 for a failed launch.
  int (*launcher)(const char*, const unsigned*, const unsigned*, uint64_t, const void*, uint64_t);
};
EmulatedMachine& Machine();

// What the last launch asked for.
struct LaunchRecord {
  cudaLaunchConfig_t config;
  int launches = 0;
  std::string failure;  // of the emulated kernel
};
LaunchRecord& LastLaunch();

cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
const char* cudaGetErrorString(cudaError_t status);
const char* cudaGetErrorName(cudaError_t status);
// Whether a launch of this configuration would start; for cudaLaunchKernelEx.
cudaError_t CheckLaunch(const cudaLaunchConfig_t& config, const void* kernel);

// Hands a launch to Machine().launcher.
cudaError_t RunElsewhere(const cudaLaunchConfig_t& config, const void* kernel,
                         const std::string& parameters);

// Appends a parameter at the next address that its type may have, as a kernel finds it.
template <typename T>
void AppendParameter(std::string* parameters, const T& value) {
  parameters->resize((parameters->size() + alignof(T) - 1) / alignof(T) * alignof(T));
  parameters->append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const void* address = reinterpret_cast<const void*>(kernel);
  const cudaError_t status = CheckLaunch(*config, address);
  if (status != cudaSuccess) return status;
  const std::tuple<Parameters...> values(arguments...);
  if (Machine().launcher) {
    std::string parameters;
    std::apply([&](const auto&... value) { (AppendParameter(&parameters, value), ...); }, values);
    return RunElsewhere(*config, address, parameters);
  }
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
