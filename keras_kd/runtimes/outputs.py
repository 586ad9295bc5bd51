"""Which outputs of a file teach, and what they are called."""

import re

# What exporters call outputs that nobody named, by a counter of their own.
_COUNTED = re.compile(
    r"((output|out|Identity|(Stateful)?PartitionedCall)(_\d+)?|\d+)(:\d+)?", re.ASCII
)


class FileOutputs:
    """The outputs of a file, one of which teaches, or all of them.

    Args:
        names: Their names, in the file's order.
        output: The name or the index of the one that teaches; `None`: all, where there are several
            as a list.
        who: The teacher's name, for messages.

    Attributes:
        names: All names.
        chosen: The names of those that teach.
        is_list: Whether a list of them is what teaches.

    Raises:
        ValueError: There is no such output.
    """

    def __init__(self, names, output, who):
        self.names = list(names)
        self.chosen = self.names if output is None else [self._found(output, who)]
        self.is_list = len(self.chosen) > 1

    def _found(self, output, who):
        is_index = isinstance(output, int) and not isinstance(output, bool)
        if is_index and 0 <= output < len(self.names):
            return self.names[output]
        if not isinstance(output, str) or output not in self.names:
            raise ValueError(
                f"{who} has the outputs {self.names}. `output` must be the name or the index of "
                "one of them, or None: then all of them teach, as a list. "
                f"Received: output={output!r}"
            )
        return output

    @property
    def given_names(self):
        """The names of those that teach; `None` where an exporter counted them."""
        is_counted = any(_COUNTED.fullmatch(name) for name in self.chosen)
        return None if is_counted else list(self.chosen)

    def name_of(self, output):
        """The name of an output that teaches, by what a loss calls it; `None`: there is none."""
        if output is None or not self.is_list:
            return self.chosen[0]
        if isinstance(output, int):
            return self.chosen[output] if -len(self.chosen) <= output < len(self.chosen) else None
        return output if output in self.chosen else None

    def resolve(self, layer):
        """The name of an output that is tapped.

        Raises:
            ValueError: There is none of that name.
        """
        if layer not in self.names:
            raise ValueError(
                f"The file has no output {str(layer)!r} that could be tapped. It has "
                f"{self.names}; inner values must be outputs of the file."
            )
        return layer

    def split(self, by_name, layers):
        """`(outputs, {layer: value})` as a teacher gives them, of values by name."""
        flat = [by_name[name] for name in self.chosen]
        return (flat if self.is_list else flat[0]), {layer: by_name[layer] for layer in layers}

    def wanted(self, layers):
        """The names of the outputs that must be run for, each once."""
        return list(dict.fromkeys([*self.chosen, *layers]))


def counted_in_order(names):
    """Names in order; `x_10` comes after `x_2`."""
    return sorted(
        names,
        key=lambda name: [
            (part.isdigit(), int(part) if part.isdigit() else part)
            for part in re.split(r"(\d+)", name)
            if part
        ],
    )
