// The C interface: checks a task, finds its type and the device, and turns errors into text.
#include "cuda_api.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdio>
#include <cstring>

#include "launch.h"

#ifndef KERAS_KD_VERSION
#define KERAS_KD_VERSION "unknown"
#endif
#ifndef KERAS_KD_CUDA_ARCHITECTURES  // with a space between
#define KERAS_KD_CUDA_ARCHITECTURES "sm_75 compute_75"
#endif

namespace keras_kd {
namespace cuda {
namespace {

// Whether the library has code for a compute capability such as 86: machine code of the same
// generation, not newer, or PTX that is not newer.
bool Serves(int capability) {
  for (const char* at = KERAS_KD_CUDA_ARCHITECTURES; at; at = std::strchr(at, ' ')) {
    at += *at == ' ';
    int built = 0;
    if (std::sscanf(at, "sm_%d", &built) == 1 && built / 10 == capability / 10 &&
        built <= capability) {
      return true;
    }
    if (std::sscanf(at, "compute_%d", &built) == 1 && built <= capability) return true;
  }
  return false;
}

int32_t Fail(const char* reason, char* message, int64_t size) {
  std::snprintf(message, static_cast<size_t>(size), "keras_kd on CUDA: %s", reason);
  return 1;
}

int32_t Finish(cudaError_t status, char* message, int64_t size) {
  if (status == cudaSuccess) {
    std::snprintf(message, static_cast<size_t>(size), "%s", "");
    return 0;
  }
  std::snprintf(message, static_cast<size_t>(size), "keras_kd on CUDA: %s (%s)",
                cudaGetErrorString(status), cudaGetErrorName(status));
  return 1;
}

// Empty, or what is wrong.
const char* Wrong(const Task& task) {
  const Problem& problem = task.problem;
  if (problem.gradient && problem.gradient_type != problem.student_type &&
      problem.gradient_type != DataType::kFloat32) {
    return "the gradient must have the student's type or be float32";
  }
  // A grid has at most 2^31 - 1 blocks; columns are 32-bit, and pieces reach past the last one.
  if (problem.rows < 0 || problem.rows > 0x7fffffff) return "more than 2147483647 rows";
  if (problem.classes < 1 || problem.classes > 0x7fff0000) {
    return "a row must have from 1 to 2147418112 classes";
  }
  return "";
}

cudaError_t Find(Device* device) {
  int current = 0;
  cudaError_t status = cudaGetDevice(&current);
  if (status != cudaSuccess) return status;
  status = cudaDeviceGetAttribute(&device->processors, cudaDevAttrMultiProcessorCount, current);
  if (status != cudaSuccess) return status;
  return cudaDeviceGetAttribute(&device->shared_memory, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                current);
}

// Calls body(launch) with the Launch<T> of the student's type.
template <typename Body>
int32_t WithLaunch(const Task& task, void* stream, char* message, int64_t size, Body body) {
  const char* wrong = Wrong(task);
  if (wrong[0] != '\0') return Fail(wrong, message, size);
  if (task.problem.rows == 0) return Finish(cudaSuccess, message, size);
  Device device;
  cudaError_t status = Find(&device);
  if (status != cudaSuccess) return Finish(status, message, size);
  const auto queue = static_cast<cudaStream_t>(stream);
  switch (task.problem.student_type) {
    case DataType::kFloat32: status = body(Launch<float>{task, device, queue}); break;
    case DataType::kFloat16: status = body(Launch<__half>{task, device, queue}); break;
    case DataType::kBFloat16: status = body(Launch<__nv_bfloat16>{task, device, queue}); break;
    default: return Fail("logits must be float32, float16 or bfloat16", message, size);
  }
  return Finish(status, message, size);
}

}  // namespace
}  // namespace cuda
}  // namespace keras_kd

using keras_kd::cuda::Fail;
using keras_kd::cuda::Finish;
using keras_kd::cuda::Task;

int32_t keras_kd_cuda_abi_version() { return KERAS_KD_CUDA_ABI_VERSION; }

const char* keras_kd_cuda_build_info() {
  static char text[512];
  std::snprintf(text, sizeof text,
                "{\"version\": \"%s\", \"cuda\": \"%d.%d\", \"architectures\": \"%s\"}",
                KERAS_KD_VERSION, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10,
                KERAS_KD_CUDA_ARCHITECTURES);
  return text;
}

int32_t keras_kd_cuda_check(char* message, int64_t size) {
  int driver = 0, devices = 0, device = 0, major = 0, minor = 0;
  cudaError_t status = cudaDriverGetVersion(&driver);
  if (status != cudaSuccess) return Finish(status, message, size);
  if (driver == 0) return Fail("no NVIDIA driver is installed", message, size);
  // Within a major version an older driver serves newer libraries.
  if (driver / 1000 < CUDART_VERSION / 1000) {
    std::snprintf(message, static_cast<size_t>(size),
                  "keras_kd on CUDA: the NVIDIA driver serves CUDA %d.%d, this library needs a "
                  "driver for CUDA %d.0 or newer. Remedy: update the driver.",
                  driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000);
    return 1;
  }
  status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess) return Finish(status, message, size);
  if (devices == 0) return Fail("no GPU is visible to CUDA", message, size);
  for (device = 0; device < devices; ++device) {
    status = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (status != cudaSuccess) return Finish(status, message, size);
    status = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    if (status != cudaSuccess) return Finish(status, message, size);
    if (!keras_kd::cuda::Serves(major * 10 + minor)) {
      std::snprintf(message, static_cast<size_t>(size),
                    "keras_kd on CUDA: GPU %d has compute capability %d.%d, expected one that this "
                    "library has code for: %s",
                    device, major, minor, KERAS_KD_CUDA_ARCHITECTURES);
      return 1;
    }
  }
  return Finish(cudaSuccess, message, size);
}

int32_t keras_kd_cuda_losses(const Task* task, void* workspace, int64_t workspace_bytes,
                             void* stream, char* message, int64_t size) {
  return keras_kd::cuda::WithLaunch(*task, stream, message, size, [&](const auto& launch) {
    return launch.Losses(workspace, workspace ? workspace_bytes : 0);
  });
}

int32_t keras_kd_cuda_workspace(const Task* task, int64_t* bytes, char* message, int64_t size) {
  *bytes = 0;
  return keras_kd::cuda::WithLaunch(*task, nullptr, message, size, [&](const auto& launch) {
    *bytes = launch.WorkspaceBytes();
    return cudaSuccess;
  });
}

int32_t keras_kd_cuda_gradient(const Task* task, void* stream, char* message, int64_t size) {
  if (!task->statistics || !task->problem.gradient) {
    return Fail("the gradient needs statistics, and memory to be written to", message, size);
  }
  return keras_kd::cuda::WithLaunch(*task, stream, message, size,
                                    [](const auto& launch) { return launch.Gradient(); });
}
