"""Plans and programs for people to look at."""

from autmarg.report.entries import entries
from autmarg.report.graph import after, before, to_dot, to_json
from autmarg.report.html import fragment, page
from autmarg.report.latex import to_latex
from autmarg.report.reasons import explain
from autmarg.report.structure import figure
from autmarg.report.table import plan_table, rich_table

__all__ = [
    "after",
    "before",
    "entries",
    "explain",
    "figure",
    "fragment",
    "page",
    "plan_table",
    "rich_table",
    "to_dot",
    "to_json",
    "to_latex",
]
