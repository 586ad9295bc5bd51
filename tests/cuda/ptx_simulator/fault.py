"""What a launch raises when the program is at fault."""


class Fault(Exception):  # noqa: N818 (the program is at fault, not the simulator)
    """The program did what a GPU forbids or leaves undefined.

    The text names the block, the thread, the line of the PTX file and the instruction.
    """

    @classmethod
    def at(cls, instruction, place, what):
        """Returns the fault of `place` (text: block and thread) in `instruction`."""
        return cls(f"{place}: {what} [PTX line {instruction.line}: {instruction.text}]")
