"""Arrays whose elements lie on several devices, as the host sees them: piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from autmarg.errors import ModelError


def is_sharded(value: Any) -> bool:
    """Whether a concrete array has different elements on different devices."""
    if not isinstance(value, jax.Array) or isinstance(value, Tracer):
        return False
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return False
    return not value.is_fully_replicated


def shards(value: jax.Array) -> Iterator[tuple[Any, np.ndarray]]:
    """Each distinct piece once: its index in the array, and its elements.

    Raises:
        ModelError: some pieces are with other processes.
    """
    if not value.is_fully_addressable:
        raise ModelError(
            f"an array of shape {value.shape} has elements on devices of other processes: a plan "
            "adds up all rows in every process, so each needs all of them. Expected the same NumPy "
            "array in every process, or an array over this process's own devices "
            "(jax.local_devices())"
        )
    for shard in value.addressable_shards:
        if shard.replica_id == 0:
            yield shard.index, np.asarray(shard.data)


def on_host(value: jax.Array) -> np.ndarray:
    """All elements as one array, without a copy that ``value`` would keep."""
    whole = np.empty(value.shape, value.dtype)
    for index, part in shards(value):
        whole[index] = part
    return whole


def rows_of(values: Any) -> Any:
    """How the first sharded array lies on its mesh along its first axis, or None.

    A ``NamedSharding`` of arrays whose first axis is that of the devices.
    """
    for value in values:
        sharding = getattr(value, "sharding", None)
        if is_sharded(value) and isinstance(sharding, jax.sharding.NamedSharding):
            axes = sharding.spec[0] if len(sharding.spec) else None
            if axes is not None:
                spec = jax.sharding.PartitionSpec(axes)
                devices = np.asarray(sharding.mesh.devices)
                mesh = jax.sharding.Mesh(devices, sharding.mesh.axis_names)
                return jax.sharding.NamedSharding(mesh, spec)
    return None
