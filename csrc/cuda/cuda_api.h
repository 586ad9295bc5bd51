// C interface of libkeras_kd_cuda.so. No exception crosses it, and no failure ends the process.
#ifndef KERAS_KD_CSRC_CUDA_CUDA_API_H_
#define KERAS_KD_CSRC_CUDA_CUDA_API_H_

#include <cstdint>

#include "../problem.h"

// Starts the kernel on a stream (a cudaStream_t): losses and gradient of device arrays. Labels out
// of range give NaN. Returns 0, or 1 with the reason in message[0:size] (always terminated).
extern "C" __attribute__((visibility("default"))) int32_t
keras_kd_cuda_losses(const keras_kd::Problem* problem, void* stream, char* message, int64_t size);

#endif  // KERAS_KD_CSRC_CUDA_CUDA_API_H_
