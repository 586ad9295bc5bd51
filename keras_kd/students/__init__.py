"""Students made from their teacher: `shrink` makes one, `plan` shows how; `add_exits`.

`trim_vocabulary` and `VocabularyMap` leave out words that are not in use.
"""

from keras_kd.students.exits import add_exits
from keras_kd.students.shrinking import plan, shrink, trim_vocabulary
from keras_kd.students.vocabulary import VocabularyMap

__all__ = ["VocabularyMap", "add_exits", "plan", "shrink", "trim_vocabulary"]
