"""Shapes of all tensors of a `.tflite` file, as they are when it runs."""

from keras_kd.measurement.runtimes import tflite_format
from keras_kd.teachers import host


def read(path, details, arrays):
    """Runs the file once and reads the shapes.

    A file tells 1 for a dimension that may have any size, also where it is the number of rows
    times the number of steps; only a run shows the shape.

    Args:
        path: The file.
        details: Indices of the input tensors.
        arrays: Their values, of the file's types.

    Returns:
        For each graph `{index of a tensor: its shape}`.

    Raises:
        ValueError: LiteRT's own kernels, which keep the shapes, cannot run the file.
    """
    litert = host.needs("ai_edge_litert.interpreter", "A .tflite file", "litert")
    # XNNPACK would swallow the tensors between its operators.
    plain = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = litert.Interpreter(model_path=path, experimental_op_resolver_type=plain)
    try:
        for index, array in zip(details, arrays, strict=True):
            interpreter.resize_tensor_input(index, array.shape)
        interpreter.allocate_tensors()
        for index, array in zip(details, arrays, strict=True):
            interpreter.set_tensor(index, array)
        interpreter.invoke()
    except RuntimeError as error:
        raise ValueError(f"LiteRT cannot run it without XNNPACK: {error}") from error
    graphs = tflite_format.parsed(path).subgraphs
    return [_of_graph(interpreter, number) for number in range(len(graphs))]


def _of_graph(interpreter, number):
    return {
        detail["index"]: tuple(int(size) for size in detail["shape"])
        for detail in interpreter.get_tensor_details(number)
    }
