"""Runs `keras_kd._kernels` from a build folder, without TensorFlow: `make native-test` does.

    python tests/ops/module_alone.py build/native-asan/_kernels.cpython-311-x86_64-linux-gnu.so

In the build with AddressSanitizer a read or write outside of an array ends the process. TensorFlow
cannot be imported there in reasonable time, so the tests of pytest do not run there.
"""

import importlib.util
import itertools
import pathlib
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from tests import logits, reference, tolerances


def open_module(path):
    spec = importlib.util.spec_from_file_location("_kernels", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def layouts(array):
    """The array as it is, strided, transposed, read-only and off by a byte."""
    yield array
    yield np.repeat(array, 2, axis=1)[:, ::2]
    yield np.asfortranarray(array)
    frozen = array.copy()
    frozen.setflags(write=False)
    yield frozen
    buffer = np.zeros(array.nbytes + 1, np.uint8)
    moved = buffer[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    yield moved


def check_values(kernels):
    for classes, pair in itertools.product((1, 7, 16, 33, 200), logits.DTYPE_PAIRS):
        student, teacher = logits.near_teacher(5, classes, 2.0, dtypes=pair)
        truth = reference.soft_target_loss(student, teacher, 2.0)
        slope = reference.soft_target_gradient(student, teacher, 2.0)
        for left, right in zip(layouts(student), layouts(teacher), strict=True):
            loss, gradient = kernels.soft_target_loss(left, right, 2.0, gradient=True)
            tolerances.assert_loss(loss, truth, 2.0)
            tolerances.assert_gradient(gradient, slope, student, teacher, 2.0)
            for weight in (2.0, np.full(5, 2, np.float16), np.full(5, 2, np.float32)):
                loss = kernels.soft_target_loss(left, right, 2.0, sample_weight=weight)
                tolerances.assert_loss(loss, 2 * truth, 2.0)


def check_labels_and_indices(kernels):
    student, teacher = logits.near_teacher(5, 33)
    for dtype in (np.int32, np.int64, np.uint8):
        kept, indices, tail = logits.keep_largest(teacher, 4, index_dtype=dtype)
        for left, right in zip(layouts(kept), layouts(indices), strict=True):
            loss = kernels.sparse_soft_target_loss(student, left, right, tail, gradient=True)[0]
            sparse = reference.sparse_soft_target_loss(student, kept, indices, tail)
            np.testing.assert_allclose(loss, sparse, rtol=1e-4, atol=1e-6)
            for weight in (None, 2.0, [1], np.arange(5), np.arange(10.0, dtype=np.float32)[::2]):
                hard, _, _ = kernels.hard_and_soft_loss(
                    *(student, teacher, right[:, 0]),
                    hard_weight=weight,
                    soft_weight=weight,
                    gradient=True,
                )
                skipped = hard == 0
                expected = reference.hard_loss(student, indices[:, 0].astype(int))
                np.testing.assert_allclose(hard[~skipped], expected[~skipped], rtol=1e-4)


def check_no_elements(kernels):
    for shape in ((0, 5), (3, 0, 5), (0, 0)):
        empty = np.zeros(shape, np.float32)
        loss, gradient = kernels.soft_target_loss(empty, empty, gradient=True)
        assert loss.shape == shape[:-1]
        assert gradient.shape == shape


def check_wrong_arguments(kernels):
    good = np.zeros((3, 4), np.float32)
    wrong = [
        (good, good[:2]),
        (good.astype(float), good),
        (good[:, :0], good[:, :0]),
        (good, good, 0.0),
        (good, good, "one"),
        (good, good, 1.0, "kl"),
        (good, good, 1.0, "jsd", 0.5, np.ones(2)),
        (np.float32(0), good),
        (None, good),
    ]
    for args in wrong * 100:  # an object that an error leaves behind, or takes with it, adds up
        try:
            kernels.soft_target_loss(*args)
        except ValueError:
            continue
        raise AssertionError(f"no error: {args}")


def check_threads(kernels):
    problems = [logits.near_teacher(100 + i, 50 + i, seed=i) for i in range(16)]
    expected = [kernels.soft_target_loss(*each, gradient=True) for each in problems]

    def same(i):
        found = kernels.soft_target_loss(*problems[i], gradient=True)
        return all(a.tobytes() == b.tobytes() for a, b in zip(found, expected[i], strict=True))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(same, list(range(16)) * 10))


def main():
    kernels = open_module(sys.argv[1])
    for check in (
        check_values,
        check_labels_and_indices,
        check_no_elements,
        check_wrong_arguments,
        check_threads,
    ):
        check(kernels)
        print(f"{check.__name__}: passed")
    print(kernels.build_info())


if __name__ == "__main__":
    main()
