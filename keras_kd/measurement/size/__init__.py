"""How large a model is: parameters, bytes, multiplications, memory."""
