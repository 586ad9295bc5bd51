"""`.onnx` files: converted, quantized, read back and compared."""
