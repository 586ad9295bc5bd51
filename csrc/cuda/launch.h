// Chooses the kernels for a task and starts them: once for each type of the student's logits, each
// compiled in a file of its own (launch_*.cu).
#ifndef KERAS_KD_CSRC_CUDA_LAUNCH_H_
#define KERAS_KD_CSRC_CUDA_LAUNCH_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "task.h"

namespace keras_kd {
namespace cuda {

// What the choice depends on.
struct Device {
  int processors = 0;     // streaming multiprocessors
  int shared_memory = 0;  // bytes a block may ask for
};

template <typename T>
struct Launch {
  const Task& task;
  Device device;
  cudaStream_t stream;

  // Bytes of device memory that Losses() works with; 0: none.
  int64_t WorkspaceBytes() const;
  // With less workspace than that, rows are not split.
  cudaError_t Losses(void* workspace, int64_t workspace_bytes) const;
  // The gradient from the task's statistics.
  cudaError_t Gradient() const;

 private:
  template <Divergence kDivergence>
  cudaError_t Warps() const;
  template <Divergence kDivergence>
  cudaError_t Blocks() const;
  template <Divergence kDivergence>
  cudaError_t Parts(void* workspace, int parts) const;
  template <Divergence kDivergence>
  cudaError_t Saved() const;
  int PartsOfRow() const;
};

}  // namespace cuda
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CUDA_LAUNCH_H_
