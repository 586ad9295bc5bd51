"""Operators of `.tflite` files that Keras 3 does not make, by hand from their shapes."""

import types

import pytest

from keras_kd.runtimes import tflite_costs

GATES, INPUTS, UNITS, STEPS, ROWS, PROJECTED = 4, 3, 5, 7, 2, 6
# Weights of the input, then of the state, one of each for each gate.
FUSED = [(UNITS, INPUTS)] * GATES + [(UNITS, UNITS)] * GATES


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "macs"),
    [
        (
            "UNIDIRECTIONAL_SEQUENCE_LSTM",
            [(ROWS, STEPS, INPUTS), *FUSED, None, None, None, (UNITS,)],
            [(ROWS, STEPS, UNITS)],
            ROWS * STEPS * GATES * UNITS * (INPUTS + UNITS),
        ),
        (
            "UNIDIRECTIONAL_SEQUENCE_LSTM",
            [(ROWS, STEPS, INPUTS), *FUSED, *[(UNITS,)] * 7, (PROJECTED, UNITS)],
            [(ROWS, STEPS, PROJECTED)],
            ROWS * STEPS * (GATES * UNITS * (INPUTS + UNITS) + PROJECTED * UNITS),
        ),
        (
            "LSTM",
            [(ROWS, INPUTS), (ROWS, UNITS), (GATES * UNITS, INPUTS + UNITS), (20,), (ROWS, UNITS)],
            [(ROWS, UNITS)],
            ROWS * GATES * UNITS * (INPUTS + UNITS),
        ),
        (
            "UNIDIRECTIONAL_SEQUENCE_RNN",
            [(ROWS, STEPS, INPUTS), (UNITS, INPUTS), (UNITS, UNITS), (UNITS,), (ROWS, UNITS)],
            [(ROWS, STEPS, UNITS)],
            ROWS * STEPS * UNITS * (INPUTS + UNITS),
        ),
        ("SVDF", [(ROWS, 3), (8, 3), (8, 10), (4,)], [(ROWS, 4)], ROWS * (8 * 3 + 8 * 10)),
        (
            "CONV_3D_TRANSPOSE",
            [(5,), (2, 3, 3, 4, 6), (1, 4, 5, 5, 6)],
            [(1, 8, 10, 10, 4)],
            4 * 5 * 5 * 6 * 2 * 3 * 3 * 4,
        ),
        ("STABLEHLO_DOT_GENERAL", [(1, 2), (2, 3)], [(1, 3)], None),
        ("CUSTOM:MyMatMul", [(1, 2)], [(1, 3)], None),
        ("UNKNOWN_300", [(1, 2)], [(1, 3)], None),
        ("FULLY_CONNECTED", [(1, 2), None], [(1, 3)], None),
        ("MUL", [(1, 2), (1, 2)], [(1, 2)], 0),
    ],
)
def test_by_hand(name, inputs, outputs, macs):
    assert tflite_costs.count_multiply_adds(name, inputs, outputs, None) == macs


@pytest.mark.parametrize(("turned", "shape"), [(False, (2, 5, 7)), (True, (2, 7, 5))])
def test_a_matrix_product_of_either_order(turned, shape):
    options = types.SimpleNamespace(adjX=turned, adjY=False)
    inputs, outputs = [shape, (2, 7, 3)], [(2, 5, 3)]
    assert (
        tflite_costs.count_multiply_adds("BATCH_MATMUL", inputs, outputs, options) == 2 * 5 * 7 * 3
    )
