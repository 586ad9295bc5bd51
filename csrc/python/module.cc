// keras_kd._kernels: the CPU kernels on NumPy arrays, on the C interface of libkeras_kd.so.
//
// The library knows no Python; this module, one for each version of Python, is all that does. It
// has the functions of keras_kd/ops/backends/ctypes.py, which computes the same bits where there is
// no module: a call on small arrays takes it 20 times as long.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "arrays.h"
#include "c_api.h"

namespace keras_kd {
namespace python {
namespace {

// Other Python threads run meanwhile: the problem holds plain pointers, into arrays that the caller
// keeps alive.
template <typename AnyProblem>
void Run(int32_t (*kernel)(const AnyProblem*, char*, int64_t), const AnyProblem& problem) {
  char message[512];
  int32_t failed;
  {
    py::gil_scoped_release released;
    failed = kernel(&problem, message, sizeof(message));
  }
  if (failed) throw py::value_error(message);
}

// A loss for each row.
class Losses {
 public:
  explicit Losses(const Shape& rows) : array_(rows) {}
  float* data() { return array_.mutable_data(); }
  int64_t count() const { return array_.size(); }
  py::object array() const { return array_; }

 private:
  py::array_t<float> array_;
};

// What all problems have, but for the teacher's size.
Problem CommonPart(const Logits& student, const Logits& teacher, Losses* soft,
                   const py::object& temperature, const py::object& divergence,
                   const py::object& mixing_weight, const RowWeights& soft_weight) {
  Problem problem;
  problem.rows = soft->count();
  problem.classes = student.classes();
  problem.student = student.array.data();
  problem.teacher = teacher.array.data();
  problem.student_type = problem.gradient_type = student.type;
  problem.teacher_type = teacher.type;
  problem.temperature = Number("temperature", temperature);
  problem.divergence = FindDivergence(divergence);
  problem.mixing_weight = Number("mixing_weight", mixing_weight);
  problem.soft_weight = soft_weight.data();
  problem.soft_weight_is_scalar = soft_weight.is_scalar();
  problem.soft = soft->data();
  return problem;
}

py::object EmptyGradient(const Logits& student, bool is_wanted, void** data) {
  if (!is_wanted) return py::none();
  py::array gradient(student.array.dtype(), ShapeOf(student.array));
  *data = gradient.mutable_data();
  return std::move(gradient);
}

void CheckSameShape(const Logits& student, const Logits& teacher) {
  const Shape left = ShapeOf(student.array), right = ShapeOf(teacher.array);
  if (left == right) return;
  throw py::value_error("`student` and `teacher` must have the same shape. Received: " +
                        Text(left) + " and " + Text(right));
}

py::object SoftTargetLoss(const py::object& student_logits, const py::object& teacher_logits,
                          const py::object& temperature, const py::object& divergence,
                          const py::object& mixing_weight, const py::object& sample_weight,
                          const py::object& gradient) {
  const Logits student("student", student_logits), teacher("teacher", teacher_logits);
  CheckSameShape(student, teacher);
  const Shape rows = student.LeadingShape();
  const RowWeights weight("sample_weight", sample_weight, rows);
  Losses soft(rows);
  Problem problem =
      CommonPart(student, teacher, &soft, temperature, divergence, mixing_weight, weight);
  const py::object slope = EmptyGradient(student, IsTrue(gradient), &problem.gradient);
  Run(keras_kd_losses, problem);
  weight.MultiplyInto(soft.data(), soft.count());
  if (problem.gradient) return py::make_tuple(soft.array(), slope);
  return soft.array();
}

py::object SparseSoftTargetLoss(const py::object& student_logits, const py::object& teacher_logits,
                                const py::object& kept_classes, const py::object& tail_logits,
                                const py::object& temperature, const py::object& divergence,
                                const py::object& mixing_weight, const py::object& sample_weight,
                                const py::object& gradient) {
  const Logits student("student", student_logits), teacher("teacher", teacher_logits);
  const Shape rows = student.LeadingShape();
  if (teacher.LeadingShape() != rows) {
    throw py::value_error(
        "`student` and `teacher` must have the same shape but for the classes. Received: " +
        Text(ShapeOf(student.array)) + " and " + Text(ShapeOf(teacher.array)));
  }
  const Integers indices("indices", kept_classes, ShapeOf(teacher.array));
  const py::array tail = Floats("tail", tail_logits, rows);
  const RowWeights weight("sample_weight", sample_weight, rows);
  Losses soft(rows);
  SparseProblem problem;
  problem.dense =
      CommonPart(student, teacher, &soft, temperature, divergence, mixing_weight, weight);
  problem.kept = teacher.classes();
  problem.indices = indices.array.data();
  problem.indices_are_int64 = indices.are_int64;
  problem.tail = static_cast<const float*>(tail.data());
  const py::object slope = EmptyGradient(student, IsTrue(gradient), &problem.dense.gradient);
  Run(keras_kd_sparse_losses, problem);
  weight.MultiplyInto(soft.data(), soft.count());
  if (problem.dense.gradient) return py::make_tuple(soft.array(), slope);
  return soft.array();
}

py::object HardAndSoftLoss(const py::object& student_logits, const py::object& teacher_logits,
                           const py::object& labels, const py::object& temperature,
                           const py::object& divergence, const py::object& mixing_weight,
                           const py::object& hard_weight, const py::object& soft_weight,
                           const py::object& gradient) {
  const Logits student("student", student_logits), teacher("teacher", teacher_logits);
  CheckSameShape(student, teacher);
  const Shape rows = student.LeadingShape();
  const Integers classes("labels", labels, rows);
  const RowWeights of_hard("hard_weight", hard_weight, rows);
  const RowWeights of_soft("soft_weight", soft_weight, rows);
  Losses hard(rows), soft(rows);
  Problem problem =
      CommonPart(student, teacher, &soft, temperature, divergence, mixing_weight, of_soft);
  problem.labels = classes.array.data();
  problem.labels_are_int64 = classes.are_int64;
  problem.hard_weight = of_hard.data();
  problem.hard_weight_is_scalar = of_hard.is_scalar();
  problem.hard = hard.data();
  const py::object slope = EmptyGradient(student, IsTrue(gradient), &problem.gradient);
  Run(keras_kd_losses, problem);
  if (problem.gradient) return py::make_tuple(hard.array(), soft.array(), slope);
  return py::make_tuple(hard.array(), soft.array());
}

py::object InstructionSets() { return py::str(keras_kd_instruction_sets()).attr("split")(","); }

void SetInstructionSet(const std::string& name) {
  if (keras_kd_set_instruction_set(name.c_str()) == 0) return;
  py::list expected;
  expected.append("auto");
  expected.attr("extend")(InstructionSets());
  throw py::value_error("Invalid value for argument `name`. Expected one of " +
                        std::string(py::repr(expected)) + ". Received: name=" + name);
}

void SetNumThreads(int32_t threads) {
  if (threads < 0) {
    throw py::value_error("`threads` must not be negative. Received: threads=" +
                          std::to_string(threads));
  }
  keras_kd_set_num_threads(threads);
}

// A library that was replaced without this module, or the other way round.
void CheckLibrary() {
  const int32_t found = keras_kd_abi_version();
  if (found == KERAS_KD_ABI_VERSION) return;
  throw py::import_error("libkeras_kd.so speaks interface version " + std::to_string(found) +
                         "; keras_kd._kernels expected " + std::to_string(KERAS_KD_ABI_VERSION));
}

PYBIND11_MODULE(_kernels, module) {
  CheckLibrary();
  module.doc() = "The CPU kernels on NumPy arrays: see keras_kd.ops.numpy.";
  const auto temperature = py::arg("temperature") = 1.0;
  const auto divergence = py::arg("divergence") = "forward_kl";
  const auto mixing_weight = py::arg("mixing_weight") = 0.5;
  const auto sample_weight = py::arg("sample_weight") = py::none();
  const auto gradient = py::arg("gradient") = false;
  module.def("soft_target_loss", &SoftTargetLoss, py::arg("student"), py::arg("teacher"),
             temperature, divergence, mixing_weight, sample_weight, gradient);
  module.def("sparse_soft_target_loss", &SparseSoftTargetLoss, py::arg("student"),
             py::arg("teacher"), py::arg("indices"), py::arg("tail"), temperature, divergence,
             mixing_weight, sample_weight, gradient);
  module.def("hard_and_soft_loss", &HardAndSoftLoss, py::arg("student"), py::arg("teacher"),
             py::arg("labels"), temperature, divergence, mixing_weight,
             py::arg("hard_weight") = py::none(), py::arg("soft_weight") = py::none(), gradient);
  module.def("build_info",
             [] { return py::module_::import("json").attr("loads")(keras_kd_build_info()); });
  module.def("instruction_sets", &InstructionSets);
  module.def("instruction_set", [] { return std::string(keras_kd_instruction_set()); });
  module.def("set_instruction_set", &SetInstructionSet, py::arg("name"));
  module.def("num_threads", &keras_kd_num_threads);
  module.def("set_num_threads", &SetNumThreads, py::arg("threads"));
}

}  // namespace
}  // namespace python
}  // namespace keras_kd
