"""What is foreign and private is named in compat/ alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import autmarg
from autmarg.compat.jaxprs import Op, Param

PACKAGE = Path(autmarg.__file__).parent
FILES = [p for p in PACKAGE.rglob("*.py") if p.relative_to(PACKAGE).parts[0] != "compat"]
PRIVATE_MODULES = (
    "jax._src", "jax.extend", "jax.interpreters", "numpyro.util", "numpyro.distributions.util",
    "numpyro.distributions.distribution", "numpyro.contrib.control_flow.scan",
)  # fmt: skip
PRIVATE_NAMES = {"compute_log_probs", "initialization", "default_registry"}
# Of named tuples, of the interpreter, of notebooks: documented where they come from.
DOCUMENTED = {"_replace", "_asdict", "_fields", "_getframe", "_repr_png_"}
# Of IPython, for the name of a notebook's cell: errors.py imports nothing, compat included.
IN_ERRORS = {"_filename_map"}
# No word of another meaning.
SPELLED = {str(name) for name in (*Op, *Param) if "_" in name or "-" in name}
NAMING = (".op", "primitive.name", "equation.name", "eqn.name")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def imported(node: ast.AST) -> Iterator[str]:
    """Private names of other packages that an import brings."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name.startswith(PRIVATE_MODULES))
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        if node.module.startswith(PRIVATE_MODULES):
            yield node.module
        if node.module.partition(".")[0] not in ("autmarg", "__future__"):
            names = (alias.name for alias in node.names)
            yield from (name for name in names if is_private(name) or name in PRIVATE_NAMES)


def attributes(node: ast.AST) -> Iterator[str]:
    """Private attributes that are read, by a dot or by ``getattr``."""
    if isinstance(node, ast.Attribute):
        names = [node.attr]
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
        names = [a.value for a in node.args[1:2] if isinstance(a, ast.Constant)]
    else:
        names = []
    yield from (name for name in names if isinstance(name, str) and is_private(name))


def defined(tree: ast.AST) -> Iterator[str]:
    """Names that a file gives to something itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr


def spelled(tree: ast.AST) -> Iterator[object]:
    """Primitives and their parameters that are written as strings."""
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=word) if word in SPELLED:
                yield word
            case (
                ast.Subscript(value=owner, slice=ast.Constant(value=word))
                | ast.Call(
                    func=ast.Attribute(value=owner, attr="get"), args=[ast.Constant(value=word), *_]
                )
            ) if word in {*Param} and ast.unparse(owner).endswith("params"):
                yield word
            case ast.Compare(left=left, comparators=others) if ast.unparse(left).endswith(NAMING):
                inside = (w for other in others for w in ast.walk(other))
                words = (w.value for w in inside if isinstance(w, ast.Constant))
                yield from (word for word in words if word in {*Op})


def test_nothing_outside_names_a_private_thing_of_another_package():
    trees = {path: ast.parse(path.read_text()) for path in FILES}
    own = {name for tree in trees.values() for name in defined(tree)} | DOCUMENTED | IN_ERRORS
    found = [
        f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)} {name}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        for name in (*imported(node), *(a for a in attributes(node) if a not in own))
    ]
    assert not found


def test_nothing_outside_spells_a_primitive():
    found = {path.name: [*spelled(ast.parse(path.read_text()))] for path in FILES}
    assert not {name: words for name, words in found.items() if words}


def test_nothing_sets_an_option_of_the_whole_process():
    updates = [
        f"{path.name}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("config.update")
    ]
    assert not updates
