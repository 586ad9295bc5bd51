"""`ExportError`: a file that does not hold what was promised."""


class ExportError(RuntimeError):
    """An export would not be, or do, what was asked for; nothing was written."""
