// The custom calls of XLA on a GPU, from the call frame to the kernels, without XLA and without a
// GPU: this program plays XLA (its table of functions, its call frames), the emulator plays the
// device. Executed are the handlers' registration, the order of operands, results and attributes,
// shapes, the stream, and the memory that is asked for between.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "../../csrc/cuda/cuda_api.h"
#include "../../csrc/tests/expect.h"
#include "../../csrc/tests/row_truth.h"
#include "../../csrc/xla/handlers.h"
#include "emulator/cuda_runtime.h"

struct XLA_FFI_Error {
  std::string message;
};

namespace {

using namespace keras_kd;  // NOLINT: a test program

// ---- XLA, played ----

std::map<std::string, XLA_FFI_Handler*> handlers;  // by platform and name
int allocations = 0;
bool memory_is_short = false;
char stream_tag;
void* const kStream = &stream_tag;

XLA_FFI_Api FakeApi() {
  XLA_FFI_Api api{};
  api.struct_size = XLA_FFI_Api_STRUCT_SIZE;
  api.XLA_FFI_Error_Create = [](XLA_FFI_Error_Create_Args* args) {
    return new XLA_FFI_Error{args->message};
  };
  api.XLA_FFI_Error_GetMessage = [](XLA_FFI_Error_GetMessage_Args* args) {
    args->message = args->error->message.c_str();
  };
  api.XLA_FFI_Error_Destroy = [](XLA_FFI_Error_Destroy_Args* args) { delete args->error; };
  api.XLA_FFI_Handler_Register = [](XLA_FFI_Handler_Register_Args* args) -> XLA_FFI_Error* {
    const std::string platform(args->platform.ptr, args->platform.len);
    handlers[platform + " " + std::string(args->name.ptr, args->name.len)] = args->bundle.execute;
    return nullptr;
  };
  api.XLA_FFI_Stream_Get = [](XLA_FFI_Stream_Get_Args* args) -> XLA_FFI_Error* {
    args->stream = kStream;
    return nullptr;
  };
  api.XLA_FFI_DeviceMemory_Allocate =
      [](XLA_FFI_DeviceMemory_Allocate_Args* args) -> XLA_FFI_Error* {
    if (memory_is_short) return new XLA_FFI_Error{"out of memory"};
    ++allocations;
    args->data = ::operator new(args->size);
    return nullptr;
  };
  api.XLA_FFI_DeviceMemory_Free = [](XLA_FFI_DeviceMemory_Free_Args* args) -> XLA_FFI_Error* {
    --allocations;
    ::operator delete(args->data);
    return nullptr;
  };
  return api;
}

// The operands and results of one call.
class Call {
 public:
  explicit Call(const XLA_FFI_Api* api) : api_(api) {}

  void Operand(XLA_FFI_DataType type, void* data, std::vector<int64_t> shape) {
    operands_.push_back(MakeBuffer(type, data, std::move(shape)));
  }
  void Result(XLA_FFI_DataType type, void* data, std::vector<int64_t> shape) {
    results_.push_back(MakeBuffer(type, data, std::move(shape)));
  }

  // Empty, or the error.
  std::string Run(XLA_FFI_Handler* handler, int32_t divergence, float mixing_weight) {
    std::vector<XLA_FFI_ArgType> operand_types(operands_.size(), XLA_FFI_ArgType_BUFFER);
    std::vector<XLA_FFI_RetType> result_types(results_.size(), XLA_FFI_RetType_BUFFER);
    std::vector<void*> operands = Pointers(operands_), results = Pointers(results_);
    // Sorted by name, as XLA has them.
    XLA_FFI_Scalar values[] = {{XLA_FFI_DataType_S32, &divergence},
                               {XLA_FFI_DataType_F32, &mixing_weight}};
    XLA_FFI_ByteSpan names[] = {{"divergence", 10}, {"mixing_weight", 13}};
    XLA_FFI_ByteSpan* name_pointers[] = {names, names + 1};
    void* value_pointers[] = {values, values + 1};
    XLA_FFI_AttrType value_types[] = {XLA_FFI_AttrType_SCALAR, XLA_FFI_AttrType_SCALAR};

    XLA_FFI_CallFrame frame{};
    frame.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE;
    frame.api = api_;
    frame.stage = XLA_FFI_ExecutionStage_EXECUTE;
    frame.args = {XLA_FFI_Args_STRUCT_SIZE, nullptr, static_cast<int64_t>(operands.size()),
                  operand_types.data(), operands.data()};
    frame.rets = {XLA_FFI_Rets_STRUCT_SIZE, nullptr, static_cast<int64_t>(results.size()),
                  result_types.data(), results.data()};
    frame.attrs = {
        XLA_FFI_Attrs_STRUCT_SIZE, nullptr, 2, value_types, name_pointers, value_pointers};
    XLA_FFI_Error* error = handler(&frame);
    const std::string message = error ? error->message : "";
    delete error;
    return message;
  }

 private:
  struct Shaped {
    XLA_FFI_Buffer buffer;
    std::vector<int64_t> shape;
  };
  static Shaped MakeBuffer(XLA_FFI_DataType type, void* data, std::vector<int64_t> shape) {
    const auto rank = static_cast<int64_t>(shape.size());
    return {{XLA_FFI_Buffer_STRUCT_SIZE, nullptr, type, data, rank, nullptr}, std::move(shape)};
  }
  static std::vector<void*> Pointers(std::vector<Shaped>& all) {
    std::vector<void*> pointers;
    for (Shaped& one : all) {
      one.buffer.dims = one.shape.data();
      pointers.push_back(&one.buffer);
    }
    return pointers;
  }

  const XLA_FFI_Api* api_;
  std::vector<Shaped> operands_, results_;
};

XLA_FFI_DataType TypeOf(DataType type) {
  return type == DataType::kFloat32   ? XLA_FFI_DataType_F32
         : type == DataType::kFloat16 ? XLA_FFI_DataType_F16
                                      : XLA_FFI_DataType_BF16;
}

// A call as ops/xla.py writes it, of logits [1, rows, classes].
Call Describe(const XLA_FFI_Api* api, Data& data, float* temperature) {
  const std::vector<int64_t> rows{1, data.c.rows}, shape{1, data.c.rows, data.c.classes};
  Call call(api);
  call.Operand(TypeOf(data.c.student_type), data.student.data(), shape);
  call.Operand(TypeOf(data.c.teacher_type), data.teacher.data(), shape);
  if (data.c.hard) call.Operand(XLA_FFI_DataType_S64, data.labels.data(), rows);
  call.Operand(XLA_FFI_DataType_F32, temperature, {});
  if (data.c.hard) call.Operand(XLA_FFI_DataType_F32, data.hard_weight.data(), rows);
  call.Operand(XLA_FFI_DataType_F32, data.soft_weight.data(), rows);
  if (data.c.hard) call.Result(XLA_FFI_DataType_F32, data.hard.data(), rows);
  call.Result(XLA_FFI_DataType_F32, data.soft.data(), rows);
  call.Result(TypeOf(data.c.student_type), data.gradient.data(), shape);
  return call;
}

XLA_FFI_Handler* HandlerOf(bool hard) {
  return handlers.at(hard ? "CUDA keras_kd_hard_and_soft_loss" : "CUDA keras_kd_soft_target_loss");
}

// ---- The tests. ----

void TestValues(const XLA_FFI_Api* api) {
  for (int64_t classes : {10, 1100, 5001}) {
    for (bool hard : {false, true}) {
      for (int divergence = 0; divergence < 3; ++divergence) {
        Data data({4, classes, DataType::kBFloat16, DataType::kFloat32,
                   static_cast<Divergence>(divergence), 2.0f, hard},
                  1);
        float temperature = 2.0f;
        Call call = Describe(api, data, &temperature);
        const int before = LastLaunch().launches;
        Expect(call.Run(HandlerOf(hard), divergence, 0.3f).empty(), "runs");
        Expect(LastLaunch().launches > before, "a kernel was started");
        Expect(LastLaunch().config.stream == kStream, "on XLA's stream");
        Expect(allocations == 0, "memory is given back");
        CompareWithTruth(data, Expect);
      }
    }
  }
}

// Losses alone, scalar weights, and no memory for rows that would be split.
void TestLessOfIt(const XLA_FFI_Api* api) {
  memory_is_short = true;
  Data data({4, 5001, DataType::kFloat32, DataType::kFloat32, Divergence::kForwardKl, 3.0f, false},
            2);
  for (size_t row = 0; row < 4; ++row) data.soft_weight.Set(row, 0.5f);
  float temperature = 3.0f, half = 0.5f;
  Call call(api);
  call.Operand(XLA_FFI_DataType_F32, data.student.data(), {4, 5001});
  call.Operand(XLA_FFI_DataType_F32, data.teacher.data(), {4, 5001});
  call.Operand(XLA_FFI_DataType_F32, &temperature, {});
  call.Operand(XLA_FFI_DataType_F32, &half, {});
  call.Result(XLA_FFI_DataType_F32, data.soft.data(), {4});
  Call without = call;
  call.Result(XLA_FFI_DataType_F32, data.gradient.data(), {4, 5001});
  Expect(call.Run(HandlerOf(false), 0, 0.5f).empty(), "runs");
  CompareWithTruth(data, Expect);
  const float first = data.soft.Get(0);
  data.soft.Set(0, -1.0f);
  without.Result(XLA_FFI_DataType_F32, nullptr, {0});
  Expect(without.Run(HandlerOf(false), 0, 0.5f).empty(), "runs without gradient");
  Expect(std::fabs(data.soft.Get(0) - first) <= 1e-6f * first, "the same loss");
  memory_is_short = false;
}

void TestErrors(const XLA_FFI_Api* api) {
  Data data({4, 10, DataType::kFloat32, DataType::kFloat32, Divergence::kForwardKl, 2.0f, true}, 3);
  float temperature = 2.0f;
  Machine().next_error = cudaErrorInvalidConfiguration;
  ExpectError(Describe(api, data, &temperature).Run(HandlerOf(true), 0, 0.5f),
              "cudaErrorInvalidConfiguration");
  ExpectError(Describe(api, data, &temperature).Run(HandlerOf(false), 0, 0.5f), "arguments");
  ExpectError(Describe(api, data, &temperature).Run(HandlerOf(true), 7, 0.5f),
              "cudaErrorInvalidValue");
  data.c.classes = 0;
  ExpectError(Describe(api, data, &temperature).Run(HandlerOf(true), 0, 0.5f), "classes");
}

}  // namespace

int main() {
  Machine().processors = 16;  // four rows of 5001 are split
  const XLA_FFI_Api api = FakeApi();
  const xla_ffi::CudaLibrary library{keras_kd_cuda_losses, keras_kd_cuda_workspace};
  Expect(xla_ffi::RegisterCuda(&api, library).empty(), "registers");
  Expect(handlers.size() == 2, "two handlers");
  Expect(!xla_ffi::RegisterCuda(nullptr, library).empty(), "a reason where XLA has no FFI");
  TestValues(&api);
  TestLessOfIt(&api);
  TestErrors(&api);
  std::printf("%d launches, %d failures\n", LastLaunch().launches, failures);
  return failures == 0 ? 0 : 1;
}
