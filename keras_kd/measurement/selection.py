"""One of several outputs."""


def chosen(outputs, output, who):
    """`((index, name), array)` of one of several outputs.

    Raises:
        ValueError: There are several and none is chosen, or not that one.
    """
    names = list(outputs)
    if output is None and len(names) == 1:
        output = names[0]
    if isinstance(output, int) and not isinstance(output, bool) and 0 <= output < len(names):
        output = names[output]
    if output not in names:
        raise ValueError(
            f"{who} has the outputs {names}. Choose one of them with `output`, by its name or its "
            f"index. Received: output={output!r}"
        )
    return (names.index(output), output), outputs[output]
