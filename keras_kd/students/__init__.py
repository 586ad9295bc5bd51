"""Students made from their teacher: `shrink` makes one, `plan` shows how; `add_exits`."""

from keras_kd.students.exits import add_exits
from keras_kd.students.shrinking import plan, shrink

__all__ = ["add_exits", "plan", "shrink"]
