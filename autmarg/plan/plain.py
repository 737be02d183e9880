"""Plain regressions: few coefficients that NUTS finds as easily as the scale beside them.

Where the rows are observed, read known multiples of a few coefficients with known priors, and tell
these apart, the posterior has no bad direction: NUTS takes some five steps for a draw, which it
also takes for the scale alone. Integrating the coefficients out then pays only where it makes a
gradient cheaper, as with many rows.
"""

from __future__ import annotations

import numpy as np

from autmarg.plan.groups import Part
from autmarg.plan.order import SMALL_ROOT

# Of the cross-products of columns of length one, up to which NUTS takes no more steps. (A
# regression of 100 rows on 5 covariates, κ = 2: an ESS/s of 32,000 as written, of 15,000 without
# its coefficients, of which one dimension was left.)
_CONDITION = 10.0


def is_plain(part: Part) -> bool:
    """Whether a part is a plain regression."""
    form = part.system.form
    if part.children or form.recurrences or form.correlated or form.columns > SMALL_ROOT:
        return False
    if any(member.parents for member in part.members):
        return False
    stats = part.assembly.stats
    own = stats.second < form.columns
    if stats.first_slot[own].any() or stats.second_slot[own].any():
        return False
    gram = np.zeros((form.columns, form.columns))
    np.add.at(gram, (stats.first[own], stats.second[own]), stats.total[own] / 2)
    gram = gram + gram.T
    size = np.sqrt(np.diagonal(gram))
    if not (size > 0).all():
        return False
    values = np.linalg.eigvalsh(gram / size / size[:, None])
    return bool(values[-1] <= _CONDITION * values[0])
