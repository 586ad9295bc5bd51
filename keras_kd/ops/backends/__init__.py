"""The kernels, by the way they are called: NumPy, TensorFlow operations, XLA."""
