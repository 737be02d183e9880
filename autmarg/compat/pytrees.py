"""JAX's pytrees from inside: nodes with their classes, static data and children."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.tree_util import PyTreeDef, default_registry


class TreeNode(NamedTuple):
    """The class of a pytree's node and its static data."""

    kind: type
    static: Any


def node_of(tree: Any) -> TreeNode | None:
    """The outermost node of a structure, None for a leaf (or for None)."""
    data = tree.node_data()
    return None if data is None else TreeNode(*data)


def tree_of(node: TreeNode | None, children: Sequence[Any], leaves: int) -> Any:
    """The structure of a node and its children; of no node that of a leaf, or of none."""
    if node is None:
        return jax.tree.structure(0 if leaves else None)
    return PyTreeDef.from_node_data_and_children(default_registry, node, children)


def one_level(value: Any) -> tuple[list[Any], Any] | None:
    """Children and static data of the node that a value is, None for a leaf."""
    node = default_registry.flatten_one_level(value)
    return None if node is None else (list(node[0]), node[1])


__all__ = ["PyTreeDef", "TreeNode", "node_of", "one_level", "tree_of"]
