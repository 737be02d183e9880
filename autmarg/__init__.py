"""autmarg integrates Gaussian latent variables out of NumPyro models, exactly."""

from autmarg.analysis.families import Gaussian, register_gaussian
from autmarg.driver import MarginalizedModel, transform
from autmarg.errors import (
    AutmargError,
    ExactnessError,
    InternalError,
    ModelError,
    Place,
    Refusal,
    RequestError,
)
from autmarg.verify import Report, verify

__version__ = "0.1.0"

__all__ = [
    "AutmargError",
    "ExactnessError",
    "Gaussian",
    "InternalError",
    "MarginalizedModel",
    "ModelError",
    "Place",
    "Refusal",
    "Report",
    "RequestError",
    "register_gaussian",
    "transform",
    "verify",
]
