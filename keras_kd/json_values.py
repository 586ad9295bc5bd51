"""Values as JSON can hold them."""

import math

import numpy as np


def plain(value):
    """With Python's numbers and keys of text; numbers that are not finite become `None`."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
