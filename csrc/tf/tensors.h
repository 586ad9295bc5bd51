// Tensors and errors of TensorFlow's C API, owned and typed; shared by the operations.
#ifndef KERAS_KD_CSRC_TF_TENSORS_H_
#define KERAS_KD_CSRC_TF_TENSORS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "../problem.h"
#include "tensorflow/c/kernels.h"
#include "tensorflow/c/tf_datatype.h"
#include "tensorflow/c/tf_status.h"
#include "tensorflow/c/tf_tensor.h"

namespace keras_kd {
namespace tf {

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

inline std::string Text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

inline bool Fail(TF_OpKernelContext* context, const std::string& message) {
  Status status;
  TF_SetStatus(status.status, TF_INVALID_ARGUMENT, message.c_str());
  TF_OpKernelContext_Failure(context, status.status);
  return false;
}

inline bool Input(TF_OpKernelContext* context, int index, Tensor* input) {
  Status status;
  TF_GetInput(context, index, &input->tensor, status.status);
  if (!status.ok()) TF_OpKernelContext_Failure(context, status.status);
  return status.ok();
}

inline bool Output(TF_OpKernelContext* context, int index, TF_DataType type,
                   const std::vector<int64_t>& shape, Tensor* output) {
  size_t bytes = TF_DataTypeSize(type);
  for (int64_t dim : shape) bytes *= static_cast<size_t>(dim);
  Status status;
  output->tensor = TF_AllocateOutput(context, index, type, shape.data(),
                                     static_cast<int>(shape.size()), bytes, status.status);
  if (!status.ok()) TF_OpKernelContext_Failure(context, status.status);
  return status.ok();
}

inline bool StorageType(TF_DataType type, DataType* storage) {
  switch (type) {
    case TF_FLOAT: *storage = DataType::kFloat32; return true;
    case TF_HALF: *storage = DataType::kFloat16; return true;
    case TF_BFLOAT16: *storage = DataType::kBFloat16; return true;
    default: return false;
  }
}

}  // namespace tf
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_TF_TENSORS_H_
