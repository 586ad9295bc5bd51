"""`Distiller`: fit, step, objective, metrics, saving."""
