// C interface of libkeras_kd_cuda.so, which links neither TensorFlow nor a CUDA library. No
// exception crosses it, and no failure ends the process.
#ifndef KERAS_KD_CSRC_CUDA_CUDA_API_H_
#define KERAS_KD_CSRC_CUDA_CUDA_API_H_

#include <cstdint>

#include "task.h"

#define KERAS_KD_CUDA_EXPORT extern "C" __attribute__((visibility("default")))

// Raised whenever a struct or a function of this interface changes.
#define KERAS_KD_CUDA_ABI_VERSION 1

KERAS_KD_CUDA_EXPORT int32_t keras_kd_cuda_abi_version();
// JSON: package version, CUDA version, architectures ("sm_90 compute_90": the latter is PTX).
KERAS_KD_CUDA_EXPORT const char* keras_kd_cuda_build_info();

// Functions that return 0, or 1 with the reason in message[0:size] (always terminated).

// Whether the library can work here: a driver, new enough, and a device that it has code for.
KERAS_KD_CUDA_EXPORT int32_t keras_kd_cuda_check(char* message, int64_t size);

// Starts the kernels on a stream (a cudaStream_t): losses and, where the problem has a gradient,
// the gradient. All pointers are to device memory of the current device; it is not waited for.
// Labels out of range and temperatures that are not positive give NaN. `workspace`: device memory
// of as many bytes as keras_kd_cuda_workspace() says, used until the work is done; without it
// (null) few long rows are slower.
KERAS_KD_CUDA_EXPORT int32_t keras_kd_cuda_losses(const keras_kd::cuda::Task* task, void* workspace,
                                                  int64_t workspace_bytes, void* stream,
                                                  char* message, int64_t size);
KERAS_KD_CUDA_EXPORT int32_t keras_kd_cuda_workspace(const keras_kd::cuda::Task* task,
                                                     int64_t* bytes, char* message, int64_t size);

// The gradient from the statistics that keras_kd_cuda_losses saved of the same logits; weights may
// be others. `soft` and `hard` are not used. For callers in C that keep no gradient between forward
// and backward pass: the package itself computes both at once.
KERAS_KD_CUDA_EXPORT int32_t keras_kd_cuda_gradient(const keras_kd::cuda::Task* task, void* stream,
                                                    char* message, int64_t size);

#endif  // KERAS_KD_CSRC_CUDA_CUDA_API_H_
