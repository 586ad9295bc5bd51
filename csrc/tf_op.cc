// The TensorFlow operations, on TensorFlow's C API only: one binary serves TF 2.18 to 2.21, where a
// classic C++ operation does not load one minor version away. They validate, allocate and call the
// kernels of libkeras_kd.so; no mathematics lives here.
//
//   KerasKd>SoftTargetLoss   student, teacher, temperature, soft_weight -> soft, gradient
//   KerasKd>HardAndSoftLoss  student, teacher, labels, temperature, hard_weight, soft_weight
//                            -> hard, soft, gradient
//   KerasKd>ScaleGradient    gradient, upstream -> scaled
//
// Logits are [..., classes]; losses, labels, weights and upstream are [...]. A weight of shape [0]
// means 1 for every row. With with_gradient = false the gradient has shape [0].
#include <cstdio>
#include <string>
#include <vector>

#include "c_api.h"
#include "problem.h"
#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"
#include "tensorflow/c/tf_datatype.h"
#include "tensorflow/c/tf_status.h"
#include "tensorflow/c/tf_tensor.h"

namespace {

using keras_kd::DataType;
using keras_kd::Divergence;
using keras_kd::Problem;
using keras_kd::ScaleProblem;

struct Status {
  TF_Status* status = TF_NewStatus();
  ~Status() { TF_DeleteStatus(status); }
  bool ok() const { return TF_GetCode(status) == TF_OK; }
};

struct Tensor {
  TF_Tensor* tensor = nullptr;
  Tensor() = default;
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;
  ~Tensor() {
    if (tensor) TF_DeleteTensor(tensor);
  }

  template <typename T = void>
  T* data() const {
    return static_cast<T*>(TF_TensorData(tensor));
  }
  TF_DataType type() const { return TF_TensorType(tensor); }
  int64_t size() const { return TF_TensorElementCount(tensor); }
  std::vector<int64_t> shape() const {
    std::vector<int64_t> dims(static_cast<size_t>(TF_NumDims(tensor)));
    for (size_t i = 0; i < dims.size(); ++i) dims[i] = TF_Dim(tensor, static_cast<int>(i));
    return dims;
  }
};

std::string Text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

bool Fail(TF_OpKernelContext* context, const std::string& message) {
  Status status;
  TF_SetStatus(status.status, TF_INVALID_ARGUMENT, message.c_str());
  TF_OpKernelContext_Failure(context, status.status);
  return false;
}

bool Input(TF_OpKernelContext* context, int index, Tensor* input) {
  Status status;
  TF_GetInput(context, index, &input->tensor, status.status);
  if (!status.ok()) TF_OpKernelContext_Failure(context, status.status);
  return status.ok();
}

bool Output(TF_OpKernelContext* context, int index, TF_DataType type,
            const std::vector<int64_t>& shape, Tensor* output) {
  size_t bytes = TF_DataTypeSize(type);
  for (int64_t dim : shape) bytes *= static_cast<size_t>(dim);
  Status status;
  output->tensor = TF_AllocateOutput(context, index, type, shape.data(),
                                     static_cast<int>(shape.size()), bytes, status.status);
  if (!status.ok()) TF_OpKernelContext_Failure(context, status.status);
  return status.ok();
}

bool StorageType(TF_DataType type, DataType* storage) {
  switch (type) {
    case TF_FLOAT: *storage = DataType::kFloat32; return true;
    case TF_HALF: *storage = DataType::kFloat16; return true;
    case TF_BFLOAT16: *storage = DataType::kBFloat16; return true;
    default: return false;
  }
}

struct Attributes {
  Divergence divergence = Divergence::kForwardKl;
  float mixing_weight = 0.5f;
  bool with_gradient = true;
};

void* CreateAttributes(TF_OpKernelConstruction* construction) {
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

void DeleteAttributes(void* attributes) { delete static_cast<Attributes*>(attributes); }

// The inputs and outputs common to both losses, and the problem they describe.
struct LossCall {
  TF_OpKernelContext* context;
  const Attributes& attributes;
  Tensor student, teacher, temperature, soft_weight, hard_weight, labels;
  Tensor soft, hard, gradient;
  Problem problem;
  std::vector<int64_t> leading;

  LossCall(TF_OpKernelContext* context, const Attributes& attributes)
      : context(context), attributes(attributes) {}

  bool ReadLogits() {
    if (!Input(context, 0, &student) || !Input(context, 1, &teacher)) return false;
    const auto shape = student.shape();
    if (shape.empty() || shape != teacher.shape()) {
      return Fail(context,
                  "student_logits and teacher_logits must have the same shape [..., num_classes]. "
                  "Received: student_logits.shape=" +
                      Text(shape) + ", teacher_logits.shape=" + Text(teacher.shape()));
    }
    if (!StorageType(student.type(), &problem.student_type) ||
        !StorageType(teacher.type(), &problem.teacher_type)) {
      return Fail(context, "logits must be float32, float16 or bfloat16.");
    }
    leading.assign(shape.begin(), shape.end() - 1);
    problem.rows = 1;
    for (int64_t dim : leading) problem.rows *= dim;
    problem.classes = shape.back();
    problem.student = student.data();
    problem.teacher = teacher.data();
    problem.divergence = attributes.divergence;
    problem.mixing_weight = attributes.mixing_weight;
    return true;
  }

  bool ReadTemperature(int index) {
    if (!Input(context, index, &temperature)) return false;
    if (temperature.size() != 1) return Fail(context, "temperature must be a scalar.");
    problem.temperature = *temperature.data<float>();
    return true;
  }

  bool ReadWeight(int index, const char* name, Tensor* weight, const float** values) {
    if (!Input(context, index, weight)) return false;
    if (weight->shape() == std::vector<int64_t>{0} && leading != std::vector<int64_t>{0}) {
      return true;
    }
    if (weight->shape() != leading) {
      return Fail(context, std::string(name) + " must have shape " + Text(leading) +
                               ". Received: " + Text(weight->shape()));
    }
    *values = weight->data<float>();
    return true;
  }

  bool ReadLabels(int index) {
    if (!Input(context, index, &labels)) return false;
    if (labels.shape() != leading) {
      return Fail(context, "labels must have the shape of the logits without the classes, " +
                               Text(leading) + ". Received: labels.shape=" + Text(labels.shape()));
    }
    problem.labels = labels.data();
    problem.labels_are_int64 = labels.type() == TF_INT64;
    return true;
  }

  bool AllocateLoss(int index, Tensor* loss, float** values) {
    if (!Output(context, index, TF_FLOAT, leading, loss)) return false;
    *values = loss->data<float>();
    return true;
  }

  bool AllocateGradient(int index) {
    const TF_DataType type = TF_ExpectedOutputDataType(context, index);
    const auto shape = attributes.with_gradient ? student.shape() : std::vector<int64_t>{0};
    if (!Output(context, index, type, shape, &gradient)) return false;
    StorageType(type, &problem.gradient_type);
    problem.gradient = attributes.with_gradient ? gradient.data() : nullptr;
    return true;
  }

  void Run() {
    char message[512];
    if (keras_kd_losses(&problem, message, sizeof message) != 0) Fail(context, message);
  }
};

void ComputeSoftTargetLoss(void* attributes, TF_OpKernelContext* context) {
  LossCall call(context, *static_cast<Attributes*>(attributes));
  Problem& problem = call.problem;
  if (call.ReadLogits() && call.ReadTemperature(2) &&
      call.ReadWeight(3, "soft_weight", &call.soft_weight, &problem.soft_weight) &&
      call.AllocateLoss(0, &call.soft, &problem.soft) && call.AllocateGradient(1)) {
    call.Run();
  }
}

void ComputeHardAndSoftLoss(void* attributes, TF_OpKernelContext* context) {
  LossCall call(context, *static_cast<Attributes*>(attributes));
  Problem& problem = call.problem;
  if (call.ReadLogits() && call.ReadLabels(2) && call.ReadTemperature(3) &&
      call.ReadWeight(4, "hard_weight", &call.hard_weight, &problem.hard_weight) &&
      call.ReadWeight(5, "soft_weight", &call.soft_weight, &problem.soft_weight) &&
      call.AllocateLoss(0, &call.hard, &problem.hard) &&
      call.AllocateLoss(1, &call.soft, &problem.soft) && call.AllocateGradient(2)) {
    call.Run();
  }
}

// Gives back the reference to `gradient`, because TensorFlow hands a buffer on only to the last one
// that holds it, and takes it again if the output got memory of its own.
bool ForwardOrAllocate(TF_OpKernelContext* context, const std::vector<int64_t>& shape,
                       Tensor* gradient, Tensor* scaled) {
  TF_DeleteTensor(gradient->tensor);
  gradient->tensor = nullptr;
  const int candidate = 0;
  int forwarded = -1;
  Status status;
  scaled->tensor =
      TF_ForwardInputOrAllocateOutput(context, &candidate, 1, 0, shape.data(),
                                      static_cast<int>(shape.size()), &forwarded, status.status);
  if (!status.ok()) {
    TF_OpKernelContext_Failure(context, status.status);
    return false;
  }
  return forwarded == candidate || Input(context, candidate, gradient);
}

void ScaleInto(TF_OpKernelContext* context, const Tensor& from, const Tensor& upstream,
               const Tensor& to, int64_t classes) {
  ScaleProblem problem;
  problem.rows = upstream.size();
  problem.classes = classes;
  problem.gradient = from.data();
  problem.upstream = upstream.data<float>();
  problem.out = to.data();
  StorageType(from.type(), &problem.gradient_type);
  StorageType(to.type(), &problem.out_type);
  char message[512];
  if (keras_kd_scale(&problem, message, sizeof message) != 0) Fail(context, message);
}

// In place where nothing else holds the gradient, which is the usual case in a training step; and
// where every upstream value is 1 (a loss that is summed) the memory is not touched at all.
void ComputeScaleGradient(void*, TF_OpKernelContext* context) {
  Tensor gradient, upstream, scaled;
  if (!Input(context, 0, &gradient) || !Input(context, 1, &upstream)) return;
  const auto shape = gradient.shape();
  const std::vector<int64_t> leading(shape.begin(), shape.empty() ? shape.end() : shape.end() - 1);
  if (shape.empty() || upstream.shape() != leading) {
    Fail(context,
         "upstream must have shape " + Text(leading) + ". Received: " + Text(upstream.shape()));
    return;
  }
  const TF_DataType type = TF_ExpectedOutputDataType(context, 0);
  const bool same_type = type == gradient.type();
  if (same_type && keras_kd_all_ones(upstream.data<float>(), upstream.size())) {
    Status status;
    TF_SetOutput(context, 0, gradient.tensor, status.status);
    if (!status.ok()) TF_OpKernelContext_Failure(context, status.status);
    return;
  }
  if (same_type ? !ForwardOrAllocate(context, shape, &gradient, &scaled)
                : !Output(context, 0, type, shape, &scaled)) {
    return;
  }
  ScaleInto(context, gradient.tensor ? gradient : scaled, upstream, scaled, shape.back());
}

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
    RegisterOperation("KerasKd>ScaleGradient", {gradient.c_str(), scaled.c_str()},
                      {"gradient: Tgradient", "upstream: float"}, {"scaled: Tscaled"},
                      ScaleGradientShape);
    RegisterKernel("KerasKd>SoftTargetLoss", "KerasKdSoftTargetLossCpu", CreateAttributes,
                   ComputeSoftTargetLoss, DeleteAttributes);
    RegisterKernel("KerasKd>HardAndSoftLoss", "KerasKdHardAndSoftLossCpu", CreateAttributes,
                   ComputeHardAndSoftLoss, DeleteAttributes);
    RegisterKernel("KerasKd>ScaleGradient", "KerasKdScaleGradientCpu", nullptr,
                   ComputeScaleGradient, nullptr);
  }
} registration;

}  // namespace
