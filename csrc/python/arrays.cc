#include "arrays.h"

#include <atomic>
#include <cmath>
#include <limits>

namespace keras_kd {
namespace python {
namespace {

using Constants = py::detail::npy_api::constants;

constexpr int kNumpyHalf = 23;  // NPY_HALF, for which pybind11 has no name

// What an argument that is not an array as the kernels take it goes through: microseconds each.
struct NumpyFunctions {
  py::object asarray, require, broadcast_to, float32, int64;
};

const NumpyFunctions& Numpy() {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<NumpyFunctions> storage;
  return storage
      .call_once_and_store_result([] {
        const py::module_ numpy = py::module_::import("numpy");
        return NumpyFunctions{numpy.attr("asarray"), numpy.attr("require"),
                              numpy.attr("broadcast_to"), py::dtype::of<float>(),
                              py::dtype::of<int64_t>()};
      })
      .get_stored();
}

py::array Steal(py::object array) { return py::reinterpret_steal<py::array>(array.release()); }

py::array AsArray(const py::object& value) {
  if (py::isinstance<py::array>(value)) return py::reinterpret_borrow<py::array>(value);
  return Steal(Numpy().asarray(value));
}

// '=' is this machine's byte order; '|' is that of single bytes.
bool IsNative(const py::dtype& dtype) {
  const char order = dtype.byteorder();
  return order == '=' || order == '|';
}

bool IsPlain(const py::array& array) {
  // The kernels read elements through pointers to them: one that starts in the middle of an
  // element, as in a packed record, must not reach them.
  constexpr int needed = Constants::NPY_ARRAY_C_CONTIGUOUS_ | Constants::NPY_ARRAY_ALIGNED_;
  return (array.flags() & needed) == needed;
}

py::array Plain(const py::array& array) {
  const py::dtype dtype = array.dtype();
  if (IsNative(dtype) && IsPlain(array)) return array;
  return Steal(Numpy().require(array, dtype.attr("newbyteorder")("="), "CA"));
}

py::array PlainOf(const py::object& dtype, const py::array& array) {
  return Steal(Numpy().require(array, dtype, "CA"));
}

std::string NameOf(const py::dtype& dtype) { return py::str(dtype.attr("name")); }

bool FindType(const py::dtype& dtype, DataType* type) {
  const int number = dtype.num();
  // ml_dtypes gets its number from NumPy when it is imported: it is looked up by name once.
  static std::atomic<int> bfloat16{-1};
  if (number == Constants::NPY_FLOAT_) {
    *type = DataType::kFloat32;
  } else if (number == kNumpyHalf) {
    *type = DataType::kFloat16;
  } else if (number == bfloat16) {
    *type = DataType::kBFloat16;
  } else if (NameOf(dtype) == "bfloat16") {
    bfloat16 = number;
    *type = DataType::kBFloat16;
  } else {
    return false;
  }
  return true;
}

py::array PlainFloats(const py::object& value) {
  if (py::isinstance<py::array>(value)) {
    const py::array array = py::reinterpret_borrow<py::array>(value);
    const py::dtype dtype = array.dtype();
    if (dtype.num() == Constants::NPY_FLOAT_ && IsNative(dtype) && IsPlain(array)) return array;
  }
  return PlainOf(Numpy().float32, Steal(Numpy().asarray(value, Numpy().float32)));
}

bool BroadcastsTo(const Shape& shape, const Shape& rows) {
  if (shape.size() > rows.size()) return false;
  const size_t skipped = rows.size() - shape.size();
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] != 1 && shape[i] != rows[skipped + i]) return false;
  }
  return true;
}

void CheckShape(const char* name, const py::array& array, const Shape& shape) {
  const Shape found = ShapeOf(array);
  if (found == shape) return;
  throw py::value_error("`" + std::string(name) + "` must have shape " + Text(shape) +
                        ". Received: shape " + Text(found));
}

}  // namespace

Shape ShapeOf(const py::array& array) { return {array.shape(), array.shape() + array.ndim()}; }

std::string Text(const Shape& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

Logits::Logits(const char* name, const py::object& value) : array(AsArray(value)) {
  if (!FindType(array.dtype(), &type)) {
    throw py::value_error("Invalid dtype for argument `" + std::string(name) +
                          "`. Expected one of ('float32', 'float16', 'bfloat16'). Received: " +
                          NameOf(array.dtype()));
  }
  if (array.ndim() < 1) {
    throw py::value_error("`" + std::string(name) +
                          "` must have at least one dimension, the classes.");
  }
  array = Plain(array);
}

Shape Logits::LeadingShape() const { return {array.shape(), array.shape() + array.ndim() - 1}; }

Integers::Integers(const char* name, const py::object& value, const Shape& shape)
    : array(AsArray(value)) {
  const py::dtype dtype = array.dtype();
  if (dtype.kind() != 'i' && dtype.kind() != 'u') {
    throw py::value_error("Invalid dtype for argument `" + std::string(name) +
                          "`. Expected integers. Received: " + NameOf(dtype));
  }
  CheckShape(name, array, shape);
  const bool is_kept = dtype.kind() == 'i' && dtype.itemsize() >= 4 && IsNative(dtype);
  are_int64 = !is_kept || dtype.itemsize() == 8;
  array = is_kept ? Plain(array) : PlainOf(Numpy().int64, array);
}

py::array Floats(const char* name, const py::object& value, const Shape& shape) {
  const py::array array = PlainFloats(value);
  CheckShape(name, array, shape);
  return array;
}

RowWeights::RowWeights(const char* name, const py::object& value, const Shape& rows) {
  if (value.is_none()) return;
  if (PyFloat_CheckExact(value.ptr())) {
    const double number = PyFloat_AS_DOUBLE(value.ptr());
    // NumPy warns of a number that float32 cannot hold: it is left to NumPy.
    if (!(std::fabs(number) > std::numeric_limits<float>::max())) {
      scalar_ = static_cast<float>(number);
      is_scalar_ = true;
      return;
    }
  }
  py::array array = PlainFloats(value);
  const Shape shape = ShapeOf(array);
  if (!BroadcastsTo(shape, rows)) {
    throw py::value_error("`" + std::string(name) + "` must broadcast to shape " + Text(rows) +
                          ". Received: shape " + Text(shape));
  }
  if (array.size() == 1) {
    scalar_ = *static_cast<const float*>(array.data());
    is_scalar_ = true;
    return;
  }
  if (shape != rows) {
    py::tuple target(rows.size());
    for (size_t i = 0; i < rows.size(); ++i) target[i] = rows[i];
    array = PlainOf(Numpy().float32, Steal(Numpy().broadcast_to(array, target)));
  }
  data_ = static_cast<const float*>(array.data());
  owner_ = array;
}

void RowWeights::MultiplyInto(float* losses, int64_t rows) const {
  const float* weights = data();
  if (!weights) return;
  for (int64_t row = 0; row < rows; ++row) {
    const float weight = weights[is_scalar_ ? 0 : row];
    losses[row] = weight == 0.0f ? 0.0f : losses[row] * weight;
  }
}

float Number(const char* name, const py::object& value) {
  const double number = PyFloat_AsDouble(value.ptr());
  if (number == -1.0 && PyErr_Occurred()) {
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) throw py::error_already_set();
    PyErr_Clear();
    throw py::value_error("Invalid value for argument `" + std::string(name) +
                          "`. Expected a number. Received: " + name + "=" +
                          std::string(py::repr(value)));
  }
  return static_cast<float>(number);
}

Divergence FindDivergence(const py::object& value) {
  std::string names;
  int32_t number = 0;
  for (const char* name : kDivergenceNames) {
    if (PyUnicode_Check(value.ptr()) && PyUnicode_CompareWithASCIIString(value.ptr(), name) == 0) {
      return static_cast<Divergence>(number);
    }
    names += (number ? ", '" : "'") + std::string(name) + "'";
    ++number;
  }
  throw py::value_error("Invalid value for argument `divergence`. Expected one of (" + names +
                        "). Received: divergence=" + std::string(py::str(value)));
}

bool IsTrue(const py::object& value) {
  const int truth = PyObject_IsTrue(value.ptr());
  if (truth < 0) throw py::error_already_set();
  return truth == 1;
}

}  // namespace python
}  // namespace keras_kd
