"""What can be told of TensorRT on a machine without it: the command, and whether it parses."""

import importlib
import shlex

from keras_kd.export.errors import ExportError

_TYPICAL_ROWS, _MOST_ROWS = 8, 32


def notes(path, content, signature):
    """What `OnnxExport.notes` say of TensorRT.

    Raises:
        ExportError: TensorRT-RTX is installed, and its parser refuses the file.
    """
    return ("For TensorRT, not executed here:", command(path, signature), _parsed(content))


def command(path, signature):
    """The command that builds an engine of a file."""
    words = [
        "trtexec",
        f"--onnx={path}",
        f"--saveEngine={path.with_suffix('.engine')}",
        # Types as in the file: what is quantized in int8, and nothing else.
        "--stronglyTyped",
    ]
    if any(spec.shape[0] is None for spec in signature.specs):
        for name, rows in (("min", 1), ("opt", _TYPICAL_ROWS), ("max", _MOST_ROWS)):
            words.append(f"--{name}Shapes={_shapes(signature, rows)}")
    return shlex.join(words)


def _shapes(signature, rows):
    named = zip(signature.names, signature.specs, strict=True)
    return ",".join(f"{name}:{_shape(spec.shape[1:], rows)}" for name, spec in named)


def _shape(sizes, rows):
    # An open dimension has no natural size: the user fills it in.
    return "x".join([str(rows), *("SIZE" if size is None else str(size) for size in sizes)])


def _parsed(content):
    try:
        tensorrt = importlib.import_module("tensorrt_rtx")
    except ImportError:
        return (
            "Not parsed by TensorRT: pip install tensorrt-rtx (NVIDIA's own licence, no GPU "
            "needed) lets kd.export try its parser."
        )
    logger = tensorrt.Logger(tensorrt.Logger.INTERNAL_ERROR)
    network = tensorrt.Builder(logger).create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(content):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        raise ExportError(
            f"TensorRT-RTX {tensorrt.__version__} cannot parse the file: "
            + "; ".join(f"{x.node_operator()} {x.node_name()}: {x.desc()}" for x in errors)
        )
    return f"Parsed by TensorRT-RTX {tensorrt.__version__}."
