"""`ExportError`: a file that does not hold what was promised is not written."""


class ExportError(RuntimeError):
    """No file was written, because it could not be made or is not what was asked for."""
