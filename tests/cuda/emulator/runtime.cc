// The emulated part of the CUDA runtime: one device, whose limits a test may set.
#include <dlfcn.h>

#include <algorithm>
#include <map>

#include "cuda_runtime.h"

namespace {

// What every device grants a kernel without being asked.
constexpr size_t kGranted = 48 << 10;
std::map<const void*, size_t> granted;

}  // namespace

EmulatedMachine& Machine() {
  static EmulatedMachine machine{};
  return machine;
}

LaunchRecord& LastLaunch() {
  static LaunchRecord record;
  return record;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = Machine().driver_version;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = Machine().devices;
  return *count == 0 ? cudaErrorNoDevice : cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  const EmulatedMachine& machine = Machine();
  if (device < 0 || device >= machine.devices) return cudaErrorInvalidValue;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = machine.processors; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = machine.architecture / 10; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = machine.architecture % 10; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(emulator::MaxSharedMemory());
      return cudaSuccess;
  }
  return cudaErrorInvalidValue;
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
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
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
  ++record.launches;
  record.failure.clear();
  cudaError_t status = cudaSuccess;
  std::swap(status, Machine().next_error);
  if (status != cudaSuccess) return status;
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

cudaError_t RunElsewhere(const cudaLaunchConfig_t& config, const void* kernel,
                         const std::string& parameters) {
  Dl_info symbol{};
  if (dladdr(kernel, &symbol) == 0 || !symbol.dli_sname) {
    LastLaunch().failure = "a kernel has no exported symbol";
    return cudaErrorLaunchFailure;
  }
  const unsigned grid[] = {config.gridDim.x, config.gridDim.y, config.gridDim.z};
  const unsigned block[] = {config.blockDim.x, config.blockDim.y, config.blockDim.z};
  const int failed = Machine().launcher(symbol.dli_sname, grid, block, config.dynamicSmemBytes,
                                        parameters.data(), parameters.size());
  return failed ? cudaErrorLaunchFailure : cudaSuccess;
}

// For a caller in Python.
extern "C" void emulator_set_launcher(decltype(EmulatedMachine::launcher) launcher) {
  Machine().launcher = launcher;
}
extern "C" void emulator_set_machine(int processors, uint64_t shared_memory) {
  Machine().processors = processors;
  emulator::SetMaxSharedMemory(shared_memory);
}
