"""The checker of the IR's invariants: what it complains of."""

from __future__ import annotations

from dataclasses import replace

import pytest

import autmarg
from autmarg.backend.compiled import compile_program
from autmarg.ir.verifier import check
from autmarg.passes.default import default_passes
from tests.support.compiled import traced


def test_the_checker_complains():
    program = traced("three_levels")
    with pytest.raises(autmarg.InternalError, match="two nodes of one name"):
        check(program.replace_nodes([*program.nodes, program.nodes[0]]))
    with pytest.raises(autmarg.InternalError, match="'nobody'"):
        stray = replace(program.nodes[-1], parents=frozenset({"nobody"}))
        check(program.replace_nodes([*program.nodes[:-1], stray]))
    with pytest.raises(autmarg.InternalError, match="undeclared plates"):
        stray = replace(program.nodes[-1], plates=("nowhere",))
        check(program.replace_nodes([*program.nodes[:-1], stray]))
    rewritten = compile_program(program, default_passes()).program
    with pytest.raises(autmarg.InternalError, match="still sampled"):
        check(rewritten.replace_nodes([*rewritten.nodes, program.nodes[0]]))
