// The emulated part of the CUDA runtime: one device, whose limits a test may set.
#include <map>

#include "cuda_runtime.h"

namespace {

// What every device grants a kernel without being asked.
constexpr size_t kGranted = 48 << 10;
std::map<const void*, size_t> granted;

}  // namespace

LaunchRecord& LastLaunch() {
  static LaunchRecord record;
  return record;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (attribute != cudaDevAttrMaxSharedMemoryPerBlockOptin || device != 0) {
    return cudaErrorInvalidValue;
  }
  *value = static_cast<int>(emulator::MaxSharedMemory());
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
      static_cast<size_t>(value) > emulator::MaxSharedMemory()) {
    return cudaErrorInvalidValue;
  }
  granted[kernel] = static_cast<size_t>(value);
  return cudaSuccess;
}

const char* cudaGetErrorName(cudaError_t status) {
  switch (status) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
  }
  return "unknown";
}

const char* cudaGetErrorString(cudaError_t status) {
  if (status == cudaErrorLaunchFailure) return LastLaunch().failure.c_str();
  return cudaGetErrorName(status);
}

cudaError_t CheckLaunch(const cudaLaunchConfig_t& config, const void* kernel) {
  LaunchRecord& record = LastLaunch();
  record.config = config;
  record.failure.clear();
  if (record.next_error != cudaSuccess) {
    const cudaError_t status = record.next_error;
    record.next_error = cudaSuccess;
    return status;
  }
  const auto found = granted.find(kernel);
  const size_t most = found == granted.end() ? kGranted : std::max(kGranted, found->second);
  const dim3 &grid = config.gridDim, &block = config.blockDim;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > 0x7fffffff || grid.y > 65535 ||
      grid.z > 65535 || threads < 1 || threads > 1024 || config.dynamicSmemBytes > most) {
    return cudaErrorInvalidConfiguration;
  }
  return cudaSuccess;
}
