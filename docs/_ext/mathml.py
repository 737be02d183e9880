"""Formulas as MathML: browsers set it themselves, so pages need no script from elsewhere."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import pick_math_environment
from docutils.utils.math.latex2mathml import tex2mathml


def _spaced(text: str) -> str:
    r"""A thin space after a function's name, as in ``\log p``: browsers leave none."""
    return re.sub(r"\\(log|exp)\s+(?=\w)", r"\\\1\\,", text)


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(tex2mathml(_spaced(node.astext()), as_block=False))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    text = _spaced(node.astext())
    if "&" in text or "\\\\" in text:
        environment = pick_math_environment(text)
        text = rf"\begin{{{environment}}}{text}\end{{{environment}}}"
    writer.body.append(f'<div class="math">{tex2mathml(text, as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Sphinx's entry."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
