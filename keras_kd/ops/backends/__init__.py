"""The kernels, one module for each way to call them: NumPy, TensorFlow operations, XLA."""
