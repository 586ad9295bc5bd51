// The TensorFlow operations, on TensorFlow's C API only: one binary serves TF 2.18 to 2.21, where a
// classic C++ operation does not load one minor version away. They validate, allocate and call the
// kernels of libkeras_kd.so; no mathematics lives here.
//
//   KerasKd>SoftTargetLoss   student, teacher, temperature, soft_weight -> soft, gradient
//   KerasKd>HardAndSoftLoss  student, teacher, labels, temperature, hard_weight, soft_weight
//                            -> hard, soft, gradient
//   KerasKd>SparseSoftTargetLoss  student, teacher, indices, tail, temperature, soft_weight
//                            -> soft, gradient
//   KerasKd>ScaleGradient    gradient, upstream -> scaled
//
// Logits are [..., classes], those of a sparse teacher and its indices [..., kept]; losses, labels,
// tails, weights and upstream are [...]. A weight of shape [0]
// means 1 for every row; a scalar weight or upstream is one value for every row. With with_gradient
// = false the gradient has shape [0].
#include <cstdio>
#include <string>
#include <vector>

#include "kernels.h"
#include "tensorflow/c/ops.h"
#include "tensors.h"

namespace keras_kd {
namespace tf {
namespace {

// ---- shape inference: what is wrong is said when the graph is built, where shapes are known ----

struct Shape {
  TF_ShapeHandle* handle = TF_NewShapeHandle();
  ~Shape() { TF_DeleteShapeHandle(handle); }
};

// All dimensions but the last of input `index`.
void Leading(TF_ShapeInferenceContext* context, int index, TF_ShapeHandle* leading,
             TF_Status* status) {
  Shape input;
  TF_ShapeInferenceContextGetInput(context, index, input.handle, status);
  if (TF_GetCode(status) != TF_OK) return;
  TF_ShapeInferenceContextWithRankAtLeast(context, input.handle, 1, input.handle, status);
  if (TF_GetCode(status) != TF_OK) return;
  TF_ShapeInferenceContextSubshape(context, input.handle, 0, -1, leading, status);
}

// `losses` outputs of the leading shape; the gradient's shape depends on an attribute that the C
// API cannot read here, so Python sets it.
void LossShapes(TF_ShapeInferenceContext* context, TF_Status* status, int losses) {
  TF_ShapeInferenceContextSetUnknownShape(context, status);  // of every output
  if (TF_GetCode(status) != TF_OK) return;
  Shape leading;
  Leading(context, 0, leading.handle, status);
  for (int i = 0; i < losses && TF_GetCode(status) == TF_OK; ++i) {
    TF_ShapeInferenceContextSetOutput(context, i, leading.handle, status);
  }
}

void SoftTargetLossShape(TF_ShapeInferenceContext* context, TF_Status* status) {
  LossShapes(context, status, 1);
}
void HardAndSoftLossShape(TF_ShapeInferenceContext* context, TF_Status* status) {
  LossShapes(context, status, 2);
}
void ScaleGradientShape(TF_ShapeInferenceContext* context, TF_Status* status) {
  Shape gradient;
  TF_ShapeInferenceContextGetInput(context, 0, gradient.handle, status);
  if (TF_GetCode(status) != TF_OK) return;
  TF_ShapeInferenceContextSetOutput(context, 0, gradient.handle, status);
}

// ---- registration, when the library is loaded ----

using ShapeFunction = void (*)(TF_ShapeInferenceContext*, TF_Status*);
using Names = std::vector<const char*>;

void RegisterOperation(const char* name, const Names& attributes, const Names& inputs,
                       const Names& outputs, ShapeFunction shape) {
  TF_OpDefinitionBuilder* builder = TF_NewOpDefinitionBuilder(name);
  for (const char* spec : attributes) TF_OpDefinitionBuilderAddAttr(builder, spec);
  for (const char* spec : inputs) TF_OpDefinitionBuilderAddInput(builder, spec);
  for (const char* spec : outputs) TF_OpDefinitionBuilderAddOutput(builder, spec);
  TF_OpDefinitionBuilderSetShapeInferenceFunction(builder, shape);
  Status status;
  TF_RegisterOpDefinition(builder, status.status);
  if (!status.ok()) std::fprintf(stderr, "keras_kd: %s: %s\n", name, TF_Message(status.status));
}

void RegisterKernel(const char* operation, const char* kernel,
                    void* (*create)(TF_OpKernelConstruction*),
                    void (*compute)(void*, TF_OpKernelContext*), void (*destroy)(void*)) {
  Status status;
  TF_KernelBuilder* builder = TF_NewKernelBuilder(operation, "CPU", create, compute, destroy);
  TF_RegisterKernelBuilder(kernel, builder, status.status);
  if (!status.ok()) {
    std::fprintf(stderr, "keras_kd: %s: %s\n", operation, TF_Message(status.status));
  }
}

struct Registration {
  Registration() {
    const char* float_types = "{float, half, bfloat16}";
    const std::string student = std::string("Tstudent: ") + float_types;
    const std::string teacher = std::string("Tteacher: ") + float_types;
    const std::string gradient = std::string("Tgradient: ") + float_types;
    const std::string scaled = std::string("Tscaled: ") + float_types;
    const Names loss_attributes{student.c_str(),
                                teacher.c_str(),
                                gradient.c_str(),
                                "divergence: int = 0",
                                "mixing_weight: float = 0.5",
                                "with_gradient: bool = true"};
    RegisterOperation(
        "KerasKd>SoftTargetLoss", loss_attributes,
        {"student: Tstudent", "teacher: Tteacher", "temperature: float", "soft_weight: float"},
        {"soft: float", "gradient: Tgradient"}, SoftTargetLossShape);
    Names label_attributes = loss_attributes;
    label_attributes.push_back("Tlabels: {int32, int64}");
    RegisterOperation("KerasKd>HardAndSoftLoss", label_attributes,
                      {"student: Tstudent", "teacher: Tteacher", "labels: Tlabels",
                       "temperature: float", "hard_weight: float", "soft_weight: float"},
                      {"hard: float", "soft: float", "gradient: Tgradient"}, HardAndSoftLossShape);
    Names index_attributes = loss_attributes;
    index_attributes.push_back("Tindices: {int32, int64}");
    RegisterOperation("KerasKd>SparseSoftTargetLoss", index_attributes,
                      {"student: Tstudent", "teacher: Tteacher", "indices: Tindices", "tail: float",
                       "temperature: float", "soft_weight: float"},
                      {"soft: float", "gradient: Tgradient"}, SoftTargetLossShape);
    RegisterOperation("KerasKd>ScaleGradient", {gradient.c_str(), scaled.c_str()},
                      {"gradient: Tgradient", "upstream: float"}, {"scaled: Tscaled"},
                      ScaleGradientShape);
    RegisterKernel("KerasKd>SoftTargetLoss", "KerasKdSoftTargetLossCpu", CreateLossAttributes,
                   ComputeSoftTargetLoss, DeleteLossAttributes);
    RegisterKernel("KerasKd>HardAndSoftLoss", "KerasKdHardAndSoftLossCpu", CreateLossAttributes,
                   ComputeHardAndSoftLoss, DeleteLossAttributes);
    RegisterKernel("KerasKd>SparseSoftTargetLoss", "KerasKdSparseSoftTargetLossCpu",
                   CreateLossAttributes, ComputeSparseSoftTargetLoss, DeleteLossAttributes);
    RegisterKernel("KerasKd>ScaleGradient", "KerasKdScaleGradientCpu", nullptr,
                   ComputeScaleGradient, nullptr);
  }
} registration;

}  // namespace
}  // namespace tf
}  // namespace keras_kd
