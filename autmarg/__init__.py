"""autmarg integrates Gaussian latent variables out of NumPyro models, exactly."""

from autmarg.analysis.families import Gaussian, register_gaussian
from autmarg.compare import Comparison, compare
from autmarg.compat.executables import enable_cache
from autmarg.conjugacy.registry import register_rule
from autmarg.driver import MarginalizedModel, transform
from autmarg.errors import (
    AutmargError,
    ExactnessError,
    InconclusiveError,
    InternalError,
    ModelError,
    PassError,
    Place,
    Refusal,
    RequestError,
    UnprovedRuleError,
    WrongRuleError,
)
from autmarg.gaussian.stages import register_stage
from autmarg.gaussian.terms import register_term
from autmarg.passes.default import default_passes
from autmarg.passes.pipeline import Pass, Passes, Step
from autmarg.sampling.kernel import IndependenceSampler
from autmarg.sampling.posterior import Posterior
from autmarg.verify import Report, verify

__version__ = "0.1.0"

__all__ = [
    "AutmargError",
    "Comparison",
    "ExactnessError",
    "Gaussian",
    "InconclusiveError",
    "IndependenceSampler",
    "InternalError",
    "MarginalizedModel",
    "ModelError",
    "Pass",
    "PassError",
    "Passes",
    "Place",
    "Posterior",
    "Refusal",
    "Report",
    "RequestError",
    "Step",
    "UnprovedRuleError",
    "WrongRuleError",
    "compare",
    "default_passes",
    "enable_cache",
    "register_gaussian",
    "register_rule",
    "register_stage",
    "register_term",
    "transform",
    "verify",
]
