// The same kernels inside an XLA computation (jit_compile=True), through XLA's typed FFI: a C
// interface, so the binary is not tied to a TensorFlow version. Registered with
// keras_kd_register_xla once TensorFlow is loaded; see keras_kd/ops/xla.py for the calling side.
#include <dlfcn.h>

#include <algorithm>
#include <string>

#include "c_api.h"
#include "xla/ffi/api/c_api.h"

// TensorFlow 2.18 and 2.20 refuse handlers of a newer minor version ("handler's API version (0.2)
// is incompatible"); nothing used here is newer than 0.1.
#undef XLA_FFI_API_MINOR
#define XLA_FFI_API_MINOR 1

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using keras_kd::DataType;
using keras_kd::Problem;

bool StorageType(ffi::DataType type, DataType* storage) {
  switch (type) {
    case ffi::F32: *storage = DataType::kFloat32; return true;
    case ffi::F16: *storage = DataType::kFloat16; return true;
    case ffi::BF16: *storage = DataType::kBFloat16; return true;
    default: return false;
  }
}

// A weight of no elements means 1 for every row, a scalar one value for every row.
bool Weight(const ffi::Buffer<ffi::F32>& weight, int64_t rows, const float** values,
            bool* is_scalar) {
  *is_scalar = weight.dimensions().size() == 0;
  const int64_t count = static_cast<int64_t>(weight.element_count());
  *values = count == 0 ? nullptr : weight.typed_data();
  return *is_scalar || count == 0 || count == rows;
}

ffi::Error Run(Problem problem, const ffi::AnyBuffer& student, const ffi::AnyBuffer& teacher,
               float temperature, const ffi::Buffer<ffi::F32>* hard_weight,
               const ffi::Buffer<ffi::F32>& soft_weight, ffi::Buffer<ffi::F32>& soft,
               ffi::AnyBuffer& gradient, int32_t divergence, float mixing_weight) {
  const auto shape = student.dimensions();
  const auto other = teacher.dimensions();
  if (shape.size() == 0 || !std::equal(shape.begin(), shape.end(), other.begin(), other.end())) {
    return ffi::Error::InvalidArgument(
        "student_logits and teacher_logits must have the same shape [..., num_classes].");
  }
  if (!StorageType(student.element_type(), &problem.student_type) ||
      !StorageType(teacher.element_type(), &problem.teacher_type) ||
      !StorageType(gradient.element_type(), &problem.gradient_type)) {
    return ffi::Error::InvalidArgument("keras_kd: logits must be float32, float16 or bfloat16.");
  }
  problem.classes = shape.back();
  problem.rows = 1;
  for (size_t axis = 0; axis + 1 < shape.size(); ++axis) problem.rows *= shape[axis];
  if (static_cast<int64_t>(soft.element_count()) != problem.rows) {
    return ffi::Error::InvalidArgument("keras_kd: the loss must have one element a row.");
  }
  problem.student = student.untyped_data();
  problem.teacher = teacher.untyped_data();
  problem.temperature = temperature;
  problem.divergence = static_cast<keras_kd::Divergence>(divergence);
  problem.mixing_weight = mixing_weight;
  if (!Weight(soft_weight, problem.rows, &problem.soft_weight, &problem.soft_weight_is_scalar) ||
      (hard_weight &&
       !Weight(*hard_weight, problem.rows, &problem.hard_weight, &problem.hard_weight_is_scalar))) {
    return ffi::Error::InvalidArgument("keras_kd: a weight must have one element a row.");
  }
  problem.soft = soft.typed_data();
  problem.gradient = gradient.element_count() == 0 ? nullptr : gradient.untyped_data();
  char message[512];
  if (keras_kd_losses(&problem, message, sizeof message) != 0) {
    return ffi::Error::InvalidArgument(message);
  }
  return ffi::Error::Success();
}

ffi::Error SoftTargetLoss(ffi::AnyBuffer student, ffi::AnyBuffer teacher,
                          ffi::Buffer<ffi::F32> temperature, ffi::Buffer<ffi::F32> soft_weight,
                          ffi::Result<ffi::Buffer<ffi::F32>> soft,
                          ffi::Result<ffi::AnyBuffer> gradient, int32_t divergence,
                          float mixing_weight) {
  return Run(Problem{}, student, teacher, *temperature.typed_data(), nullptr, soft_weight, *soft,
             *gradient, divergence, mixing_weight);
}

ffi::Error HardAndSoftLoss(ffi::AnyBuffer student, ffi::AnyBuffer teacher, ffi::AnyBuffer labels,
                           ffi::Buffer<ffi::F32> temperature, ffi::Buffer<ffi::F32> hard_weight,
                           ffi::Buffer<ffi::F32> soft_weight,
                           ffi::Result<ffi::Buffer<ffi::F32>> hard,
                           ffi::Result<ffi::Buffer<ffi::F32>> soft,
                           ffi::Result<ffi::AnyBuffer> gradient, int32_t divergence,
                           float mixing_weight) {
  Problem problem;
  problem.labels = labels.untyped_data();
  problem.labels_are_int64 = labels.element_type() == ffi::S64;
  problem.hard = hard->typed_data();
  return Run(problem, student, teacher, *temperature.typed_data(), &hard_weight, soft_weight, *soft,
             *gradient, divergence, mixing_weight);
}

XLA_FFI_DEFINE_HANDLER(kSoftTargetLoss, SoftTargetLoss,
                       ffi::Ffi::Bind()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<ffi::Buffer<ffi::F32>>()
                           .Arg<ffi::Buffer<ffi::F32>>()
                           .Ret<ffi::Buffer<ffi::F32>>()
                           .Ret<ffi::AnyBuffer>()
                           .Attr<int32_t>("divergence")
                           .Attr<float>("mixing_weight"));

XLA_FFI_DEFINE_HANDLER(kHardAndSoftLoss, HardAndSoftLoss,
                       ffi::Ffi::Bind()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<ffi::Buffer<ffi::F32>>()
                           .Arg<ffi::Buffer<ffi::F32>>()
                           .Arg<ffi::Buffer<ffi::F32>>()
                           .Ret<ffi::Buffer<ffi::F32>>()
                           .Ret<ffi::Buffer<ffi::F32>>()
                           .Ret<ffi::AnyBuffer>()
                           .Attr<int32_t>("divergence")
                           .Attr<float>("mixing_weight"));

// TensorFlow exports the FFI's table under a C name since 2.21, under a C++ one before.
const XLA_FFI_Api* FindApi() {
  for (const char* library : {"libtensorflow_framework.so.2", "libtensorflow_cc.so.2"}) {
    void* handle = dlopen(library, RTLD_NOLOAD | RTLD_NOW);
    if (!handle) continue;
    for (const char* name : {"XLA_FFI_GetApi", "_ZN3xla3ffi12GetXlaFfiApiEv"}) {
      if (void* function = dlsym(handle, name)) {
        return reinterpret_cast<const XLA_FFI_Api* (*)()>(function)();
      }
    }
  }
  return nullptr;
}

std::string Register(const XLA_FFI_Api* api, const char* name, XLA_FFI_Handler* handler) {
  XLA_FFI_Error* error = ffi::Ffi::RegisterStaticHandler(api, name, "Host", handler);
  if (!error) return "";
  const std::string message = ffi::internal::GetErrorMessage(api, error);
  ffi::internal::DestroyError(api, error);
  return std::string(name) + ": " + message;
}

}  // namespace

// Empty on success, else why the kernels cannot be used inside XLA.
KERAS_KD_EXPORT const char* keras_kd_register_xla() {
  static const std::string problem = [] {
    const XLA_FFI_Api* api = FindApi();
    if (!api) return std::string("this TensorFlow does not export XLA's FFI");
    std::string error = Register(api, "keras_kd_soft_target_loss", kSoftTargetLoss);
    if (error.empty()) error = Register(api, "keras_kd_hard_and_soft_loss", kHardAndSoftLoss);
    return error;
  }();
  return problem.c_str();
}

KERAS_KD_EXPORT int32_t keras_kd_tf_abi_version() { return KERAS_KD_ABI_VERSION; }
