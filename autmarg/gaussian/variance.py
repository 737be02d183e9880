"""How much the data say about a member: its variance between levels beside that of the noise."""

from __future__ import annotations

import numpy as np

from autmarg.gaussian.affine import AffineForm
from autmarg.gaussian.cross_products import CrossProducts
from autmarg.gaussian.residual import Features


def variance_ratios(form: AffineForm, stats: CrossProducts) -> dict[str, float]:
    """The F ratio of each member, as in an analysis of variance; none where nothing is known.

    That is where data are not known, and where there are as many columns as rows: a fit that leaves
    no residuals says nothing of the noise.

    With s_j = Σ a² over the rows of column j, r the data less the least-squares fit of everything
    but the member, and σ² the residual variance,

        F = mean_j (Σ a r)² / (s_j σ²),

    of the columns that are alike in their blocks, the largest. Its mean is 1 + n τ²/σ² for an
    intercept with n rows a level (Searle, Casella & McCulloch 1992, Variance Components, ch. 3).
    All rows weigh the same.
    """
    features = Features.of(form, stats)
    free = stats.n - form.columns
    if not features.data.any() or free < 1:
        return {}
    fit = features.least_squares(stats.total)[-1]
    left, right = features.left, features.right
    half = np.where(left == right, stats.total, stats.total / 2)
    all_of_it = np.where(features.data, 1.0, fit)
    squares = float((stats.total * all_of_it[left] * all_of_it[right]).sum())
    noise = squares / free
    # By the normal equations, a'r is what the member's own fit gives: no difference of large sums.
    own = (features.group[left] == features.group[right]) & ~features.data[left]
    own &= ~features.data[right]
    sums = np.bincount(left[own], half[own] * fit[right[own]], len(fit))
    own &= left != right
    sums += np.bincount(right[own], half[own] * fit[left[own]], len(fit))
    present = features.size > 0
    ratio = np.zeros(len(fit))
    ratio[present] = np.square(sums[present] / features.size[present]) / max(noise, 1e-300)
    found = {}
    for number, member in enumerate(form.members, 1):
        mine = (features.group == number) & (features.column < form.columns) & present
        place = (features.column[mine] - member.offset) % member.size
        counts = np.maximum(np.bincount(place, minlength=member.size), 1)
        means = np.bincount(place, ratio[mine], member.size) / counts
        found[member.name] = float(means.max())
    return found
