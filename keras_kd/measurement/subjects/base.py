"""`Subject`: what `measure` asks of whatever is measured."""


class Subject:
    """Base class.

    Attributes:
        kind: As of `Measurement`.
        name: Likewise.
    """

    kind = ""
    name = ""

    def promised(self, inputs):
        """`{name: shape}` of the outputs for such inputs, or `None` where only running it tells.

        Args:
            inputs: `keras.KerasTensor`s in the structure of the data.

        Raises:
            ValueError: It cannot take them.
        """
        del inputs

    def predict(self, inputs):
        """Outputs of a batch, `{name: array}` in their order.

        Args:
            inputs: Arrays in the structure of the data.
        """
        raise NotImplementedError

    def size(self, inputs):
        """`(size, notes)` as of `Measurement`, from inputs of one row."""
        del inputs
        return {}, [f"size: left out; a {self.kind} has none that is known."]

    def timed(self, inputs):
        """What runs one row, to be timed.

        Args:
            inputs: Inputs of one row.

        Returns:
            `(call, facts, notes)`: a function, and `runtime`, `threads`, `batch_size`; the function
            is `None` where nothing can be timed.
        """
        del inputs
        return None, {}, [f"latency: left out; that of a {self.kind} is not measured."]
