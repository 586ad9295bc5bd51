// The kernels for students whose logits are float32.
#include "launch.cuh"

template struct keras_kd::cuda::Launch<float>;
