"""Do the C++ and CUDA tests notice a bug? See `__main__.py`."""
