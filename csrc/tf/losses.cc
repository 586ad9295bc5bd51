// SoftTargetLoss and HardAndSoftLoss: read and check the inputs, allocate, call the kernels.
#include "../c_api.h"
#include "kernels.h"
#include "loss_call.h"

namespace keras_kd {
namespace tf {
void* CreateLossAttributes(TF_OpKernelConstruction* construction) {
  Status status;
  int32_t divergence = 0;
  float mixing_weight = 0.5f;
  TF_Bool with_gradient = 1;
  TF_OpKernelConstruction_GetAttrInt32(construction, "divergence", &divergence, status.status);
  if (status.ok()) {
    TF_OpKernelConstruction_GetAttrFloat(construction, "mixing_weight", &mixing_weight,
                                         status.status);
  }
  if (status.ok()) {
    TF_OpKernelConstruction_GetAttrBool(construction, "with_gradient", &with_gradient,
                                        status.status);
  }
  if (!status.ok()) {
    TF_OpKernelConstruction_Failure(construction, status.status);
    return nullptr;
  }
  return new Attributes{static_cast<Divergence>(divergence), mixing_weight, with_gradient != 0};
}

void DeleteLossAttributes(void* attributes) { delete static_cast<Attributes*>(attributes); }

void ComputeSoftTargetLoss(void* attributes, TF_OpKernelContext* context) {
  LossCall call(context, *static_cast<Attributes*>(attributes));
  Problem& problem = call.problem;
  if (call.ReadLogits() && call.ReadTemperature(2) &&
      call.ReadWeight(3, "soft_weight", &call.soft_weight, &problem.soft_weight,
                      &problem.soft_weight_is_scalar) &&
      call.AllocateLoss(0, &call.soft, &problem.soft) && call.AllocateGradient(1)) {
    call.Run(keras_kd_losses, problem);
  }
}

void ComputeHardAndSoftLoss(void* attributes, TF_OpKernelContext* context) {
  LossCall call(context, *static_cast<Attributes*>(attributes));
  Problem& problem = call.problem;
  if (call.ReadLogits() && call.ReadLabels(2) && call.ReadTemperature(3) &&
      call.ReadWeight(4, "hard_weight", &call.hard_weight, &problem.hard_weight,
                      &problem.hard_weight_is_scalar) &&
      call.ReadWeight(5, "soft_weight", &call.soft_weight, &problem.soft_weight,
                      &problem.soft_weight_is_scalar) &&
      call.AllocateLoss(0, &call.hard, &problem.hard) &&
      call.AllocateLoss(1, &call.soft, &problem.soft) && call.AllocateGradient(2)) {
    call.Run(keras_kd_losses, problem);
  }
}

}  // namespace tf
}  // namespace keras_kd
