"""Arrays whose elements are equal whatever the inputs are, each class of equal elements once.

This is value numbering (Alpern, Wegman & Zadeck 1988, Detecting equality of variables in programs,
POPL), element by element: two elements of an array get one number where they are the same function
of the same elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

Ints = np.ndarray

_LEAST = 64  # elements of an array in which equal ones are looked for
_WORTH = 2  # elements for each class, from which classes are evaluated instead


@dataclass(frozen=True, eq=False)
class Known:
    """An array that is known; ``number`` is its own on the tape, if it has one."""

    array: np.ndarray
    number: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape


@dataclass(frozen=True, eq=False)
class Elements:
    """An array that is not known.

    Attributes:
        number: on the tape, of the array itself, or of one value for each class, [k].
        shape: of the array.
        index: in that shape, the class of each element; None where ``number`` is the array itself.
    """

    number: int
    shape: tuple[int, ...]
    index: Ints | None = None

    @property
    def classes(self) -> Ints:
        """The class of each element, [n]."""
        size = int(np.prod(self.shape))
        return np.arange(size) if self.index is None else self.index.reshape(-1)


@dataclass(frozen=True, eq=False)
class Sum:
    """Σ weight · elements + known, in one shape: a sum that is not written as long as it is linear.

    Attributes:
        terms: (weight, elements); a weight is one number or an array in the sum's shape.
        known: one number, or an array in that shape.
    """

    terms: tuple[tuple[np.ndarray, Elements], ...]
    known: np.ndarray
    shape: tuple[int, ...]

    def mapped(
        self, elements: Iterable[Elements], array: Callable[[np.ndarray], np.ndarray],
        shape: tuple[int, ...],
    ) -> Sum:  # fmt: skip
        """The sum of other elements, its arrays moved as they are."""
        weights = (array(w) if w.ndim else w for w, _ in self.terms)
        known = array(self.known) if self.known.ndim else self.known
        return Sum(tuple(zip(weights, elements, strict=True)), known, shape)


Value = Known | Elements | Sum


def labels(array: np.ndarray) -> Ints:
    """Which elements of a known array are the same number, to the bit, [n]."""
    flat = np.ascontiguousarray(array).reshape(-1)
    kind = "u" if flat.itemsize <= 8 else "V"
    return np.unique(flat.view(f"{kind}{flat.itemsize}"), return_inverse=True)[1].reshape(-1)


def pays(classes: int, size: int) -> bool:
    """Whether so many classes are better evaluated than all elements."""
    return size >= _LEAST and _WORTH * classes <= size


__all__ = ["Elements", "Known", "Sum", "Value", "labels", "pays"]
