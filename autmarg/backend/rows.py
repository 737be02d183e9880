"""ArviZ's question for the log-likelihood of each row, which a joint density cannot answer.

``arviz.from_numpyro(mcmc)`` evaluates the log-density of every observed site and takes its elements
for those of rows. A site whose rows were made dependent by integration has one number, which is
right for users who want it (see "Observed sites" in docs/using.md).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from autmarg.compat.arviz import stacklevel_of_asker


def leaves_out_rows(model: str, names: Sequence[str]) -> bool:
    """Whether ArviZ asks for values of each row; if so, a warning says that there are none.

    Args:
        model: the user's name for it.
        names: observed sites with one joint density.
    """
    stacklevel = stacklevel_of_asker()
    if stacklevel is None:
        return False
    warnings.warn(
        f"arviz.from_numpyro leaves {list(names)} of '{model}' out of log_likelihood: their rows "
        "have one joint density after integration, which is no value for each row. Call "
        "marg.to_arviz(mcmc), which has the log-likelihood of each row, and all sites",
        stacklevel=stacklevel,
    )
    return True


__all__ = ["leaves_out_rows"]
