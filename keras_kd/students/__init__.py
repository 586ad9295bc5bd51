"""Students made of their teacher: `shrink` makes one, `plan` says how, `add_exits` for itself."""

from keras_kd.students.exits import add_exits
from keras_kd.students.shrinking import plan, shrink

__all__ = ["add_exits", "plan", "shrink"]
