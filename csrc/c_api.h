// C interface of libkeras_kd.so: the kernels on plain pointers, for ctypes and for the library
// that holds the TensorFlow operations. No exception crosses it.
#ifndef KERAS_KD_CSRC_C_API_H_
#define KERAS_KD_CSRC_C_API_H_

#include <cstdint>

#include "problem.h"

#define KERAS_KD_EXPORT extern "C" __attribute__((visibility("default")))

// Raised whenever a struct or a function of this interface changes: the Python side and the
// TensorFlow library refuse a library of another version.
#define KERAS_KD_ABI_VERSION 3

KERAS_KD_EXPORT int32_t keras_kd_abi_version();
// JSON: package version, compiler, instruction sets in the library, its ABI version.
KERAS_KD_EXPORT const char* keras_kd_build_info();

// 0, or 1 with the reason in message[0:size] (always terminated).
KERAS_KD_EXPORT int32_t keras_kd_losses(const keras_kd::Problem* problem, char* message,
                                        int64_t size);
KERAS_KD_EXPORT int32_t keras_kd_sparse_losses(const keras_kd::SparseProblem* problem,
                                               char* message, int64_t size);
KERAS_KD_EXPORT int32_t keras_kd_scale(const keras_kd::ScaleProblem* problem, char* message,
                                       int64_t size);
KERAS_KD_EXPORT int32_t keras_kd_all_ones(const float* values, int64_t count);
KERAS_KD_EXPORT void keras_kd_triad(const float* a, const float* b, float factor, float* out,
                                    int64_t count);

// Comma-separated names this processor can execute; the one in use; 0 or 1 (cannot execute it).
KERAS_KD_EXPORT const char* keras_kd_instruction_sets();
KERAS_KD_EXPORT const char* keras_kd_instruction_set();
KERAS_KD_EXPORT int32_t keras_kd_set_instruction_set(const char* name);

KERAS_KD_EXPORT void keras_kd_set_num_threads(int32_t threads);
KERAS_KD_EXPORT int32_t keras_kd_num_threads();

#endif  // KERAS_KD_CSRC_C_API_H_
