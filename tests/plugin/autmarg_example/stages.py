"""An elimination stage that takes one column at a time, as in a textbook."""

from __future__ import annotations

from autmarg.gaussian.stages import BatchedBlocks


class OneColumn(BatchedBlocks):
    """The first column that is left, while there are more than two."""

    @property
    def structure(self):
        return f"column {int(self.columns[0, 0])} by itself"

    @classmethod
    def next(cls, pattern, members):
        if len(pattern.columns) <= 2:
            return None
        return cls.plan(pattern, pattern.columns[:1].reshape(1, 1))
