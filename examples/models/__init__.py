"""The reference models, each in the spellings that NumPyro users write.

`REFERENCE` has the thirteen models of the experiments in Lai, Domke and Sheldon (2024) and Lai,
Burroni, Guan and Sheldon (2023) that are linear and Gaussian in part; `VARIANTS` has related ones;
`PUBLISHED` has likelihoods whose optimum is published.
"""

from __future__ import annotations

from examples.models.crossed import DILLON, DUTCH, EEG, ENGLISH, MANDARIN, MANDARIN2
from examples.models.electric import ELECTRIC
from examples.models.fibrosis import FIBROSIS
from examples.models.gg05 import GG05
from examples.models.grouseticks import GROUSETICKS
from examples.models.independent import DUTCH_INDEPENDENT
from examples.models.insteval import INSTEVAL, INSTEVAL_SCALES
from examples.models.published import PUBLISHED, Published
from examples.models.pupil import PUPIL
from examples.models.reference import Reference
from examples.models.stroop import STROOP

REFERENCE: dict[str, Reference] = {
    reference.name: reference
    for reference in (
        INSTEVAL,
        GROUSETICKS,
        ELECTRIC,
        FIBROSIS,
        DILLON,
        DUTCH,
        ENGLISH,
        EEG,
        GG05,
        MANDARIN,
        MANDARIN2,
        PUPIL,
        STROOP,
    )
}

VARIANTS: dict[str, Reference] = {
    reference.name: reference for reference in (INSTEVAL_SCALES, DUTCH_INDEPENDENT)
}

__all__ = ["PUBLISHED", "REFERENCE", "VARIANTS", "Published", "Reference"]
