// Warps a multiprocessor holds at once, by NVIDIA's calculator: for each line of input
// "architecture registers threads shared-bytes" a line of output.
#include <cstddef>
#include <cstdlib>
#include <iostream>

#include "cuda_runtime_api.h"
// After it.
#include "cuda_occupancy.h"

namespace {

struct Limits {
  int architecture, threads;
  size_t shared;  // KiB of a multiprocessor
};
// CUDA C++ programming guide, technical specifications by compute capability.
const Limits kLimits[] = {{75, 1024, 64},  {80, 2048, 164},  {86, 1536, 100}, {89, 1536, 100},
                          {90, 2048, 228}, {100, 2048, 228}, {120, 1536, 100}};

int Warps(const Limits& limits, int registers, int threads, size_t shared) {
  const bool reserves = limits.architecture >= 80;  // 1 KiB a block, for the system
  cudaOccDeviceProp device;
  device.computeMajor = limits.architecture / 10;
  device.computeMinor = limits.architecture % 10;
  device.maxThreadsPerBlock = 1024;
  device.maxThreadsPerMultiprocessor = limits.threads;
  device.regsPerBlock = device.regsPerMultiprocessor = 65536;
  device.warpSize = 32;
  device.sharedMemPerBlock = 48 << 10;
  device.sharedMemPerMultiprocessor = limits.shared << 10;
  device.numSms = 1;
  device.reservedSharedMemPerBlock = reserves ? 1024 : 0;
  device.sharedMemPerBlockOptin = (limits.shared << 10) - device.reservedSharedMemPerBlock;
  cudaOccFuncAttributes kernel;
  kernel.maxThreadsPerBlock = 1024;
  kernel.numRegs = registers;
  kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
  kernel.maxDynamicSharedSizeBytes = device.sharedMemPerBlockOptin;
  kernel.numBlockBarriers = 1;
  cudaOccDeviceState state;
  state.carveoutConfig = SHAREDMEM_CARVEOUT_MAX_SHARED;
  cudaOccResult result;
  const cudaOccError error =
      cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, shared);
  return error == CUDA_OCC_SUCCESS ? result.activeBlocksPerMultiprocessor * threads / 32 : 0;
}

}  // namespace

int main() {
  int architecture, registers, threads;
  size_t shared;
  while (std::cin >> architecture >> registers >> threads >> shared) {
    int warps = -1;
    for (const Limits& limits : kLimits) {
      if (limits.architecture == architecture) warps = Warps(limits, registers, threads, shared);
    }
    if (warps < 0) {
      std::cerr << "no limits are known for sm_" << architecture << "\n";
      return 1;
    }
    std::cout << warps << "\n";
  }
}
