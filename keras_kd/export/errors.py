"""`ExportError`: a file that does not hold what was promised."""


class ExportError(RuntimeError):
    """An export would not be, or do, what was asked for; nothing was written."""


class LeftInFloatError(ExportError):
    """A file has operators in float that were to be integers.

    Args:
        message: In words.
        operators: Their names.
    """

    def __init__(self, message, operators=()):
        super().__init__(message)
        self.operators = tuple(operators)
