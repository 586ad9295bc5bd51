// What the operations compute, registered by registration.cc.
#ifndef KERAS_KD_CSRC_TF_KERNELS_H_
#define KERAS_KD_CSRC_TF_KERNELS_H_

#include "tensorflow/c/kernels.h"

namespace keras_kd {
namespace tf {

void* CreateLossAttributes(TF_OpKernelConstruction* construction);
void DeleteLossAttributes(void* attributes);
void ComputeSoftTargetLoss(void* attributes, TF_OpKernelContext* context);
void ComputeHardAndSoftLoss(void* attributes, TF_OpKernelContext* context);
void ComputeSparseSoftTargetLoss(void* attributes, TF_OpKernelContext* context);
void ComputeScaleGradient(void* attributes, TF_OpKernelContext* context);

}  // namespace tf
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_TF_KERNELS_H_
