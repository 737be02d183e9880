"""Read rules (``grammar/rules.lark``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, reduce
from typing import Any, NoReturn

import sympy
from lark import Lark, Token
from lark.exceptions import UnexpectedCharacters, UnexpectedInput

from autmarg.conjugacy.families import (
    ASSUMPTIONS,
    FAMILIES,
    NONNEGATIVE,
    POSITIVE,
    UNIT,
    Expr,
    Family,
    onehot,
)
from autmarg.conjugacy.language import Largest, Rule, Smallest, Statement, SumOver
from autmarg.errors import ModelError
from autmarg.grammar_files import read

_FUNCTIONS = {"log": sympy.log, "exp": sympy.exp, "sqrt": sympy.sqrt, "onehot": onehot}
_OVER = {"sum": SumOver, "max": Largest, "min": Smallest}
_ELEMENTWISE = {"max": sympy.Max, "min": sympy.Min}
_OPERATIONS = {
    "add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b, "power": lambda a, b: a**b, "negate": lambda a: -a,
}  # fmt: skip
_CONDITIONS = {(">",): POSITIVE, (">=",): NONNEGATIVE, ("<", "<"): UNIT}
_WORDS = {
    "NAME": "a name", "NUMBER": "a number", "LPAR": "'('", "RPAR": "')'", "COMMA": "','",
    "TILDE": "'~'", "COMPARISON": "'>', '>=', '<' or '<='", "$END": "the end",
}  # fmt: skip
_BEGINS = {"NAME", "NUMBER", "LPAR", "MINUS"}  # an expression


@cache
def _parser() -> Lark:
    return Lark(
        read("rules.lark"), parser="lalr", propagate_positions=True, maybe_placeholders=True
    )


def parse(text: str) -> tuple[Rule, ...]:
    """The rules of a text, not yet proved.

    Raises:
        ModelError: not in the language; says line, column, what was found and what was expected.
    """
    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        _syntax(text, error)
    return tuple(_RuleReader(text, rule).rule() for rule in tree.children)


def _syntax(text: str, error: UnexpectedInput) -> NoReturn:
    allowed = set(getattr(error, "accepts", None) or getattr(error, "allowed", None) or ())
    allowed = allowed or set(getattr(error, "expected", ()))
    expected = []
    if allowed >= _BEGINS:
        expected, allowed = ["an expression"], allowed - _BEGINS
    elif allowed >= {"PLUS", "STAR"}:
        signs = {t.name for t in _parser().terminals if _is_operator(t.pattern.value)}
        expected, allowed = ["an operator"], allowed - signs
    expected += sorted(_WORDS.get(name) or _spelled(name) for name in allowed)
    token = getattr(error, "token", None)
    if isinstance(error, UnexpectedCharacters):
        found, line, column = repr(text[error.pos_in_stream]), error.line, error.column
    elif token is None or token.type == "$END":
        lines = text.rstrip().splitlines() or [""]
        found, line, column = "the end", len(lines), len(lines[-1]) + 1
    else:
        found, line, column = repr(str(token)), token.line, token.column
    fault(text, line, column, f"found {found}, expected {' or '.join(expected)}")


def _is_operator(pattern: str) -> bool:
    return pattern.strip("\\") in {"+", "-", "*", "/", "**"}


def _spelled(terminal: str) -> str:
    pattern = next(t.pattern for t in _parser().terminals if t.name == terminal)
    return repr(pattern.value)


def fault(text: str, line: int, column: int, message: str) -> NoReturn:
    """Raise, with the line and a caret under the column."""
    lines = text.splitlines() or [""]
    shown = lines[min(line, len(lines)) - 1]
    raise ModelError(
        f"line {line}, column {column} of the rules:\n  {shown}\n  {' ' * (column - 1)}^ {message}"
    )


class _RuleReader:
    """One rule, its names resolved."""

    def __init__(self, text: str, tree: Any) -> None:
        self.text, self.tree = text, tree
        self.symbols: dict[str, Expr] = {}

    def rule(self) -> Rule:
        name, prior, child, *updates = self.tree.children
        x, family, *parameters = prior.children
        before = self._family(family, parameters)
        for token, (_, kind) in zip(parameters, before.parameters, strict=True):
            self._declare(token, kind)
        own = self._declare(x, before.support)
        y, family, *arguments, conditions = child.children
        after = self._family(family, arguments)
        others = self._others(after, arguments, conditions, str(x))
        symbols = tuple((self._declare(token, kind), kind) for token, kind in others.values())
        values = tuple(self._expression(a, self.symbols) for a in arguments)
        if not any(own in v.free_symbols for v in values):
            self._fault(family, f"expected '{x}' among its arguments, found none")
        value = self._declare(y, after.support)
        start = self.tree.meta
        text = self.text[start.start_pos : start.end_pos]
        names = {str(p): self.symbols[str(p)] for p in parameters}
        return Rule(
            str(name),
            text,
            Statement(own, before, tuple(names.values())),
            Statement(value, after, values),
            symbols,
            self._updates(updates, names, str(x)),
        )

    def _fault(self, at: Any, message: str) -> NoReturn:
        token = at if isinstance(at, Token) else next(_tokens(at))
        fault(self.text, token.line or 1, token.column or 1, message)

    def _family(self, name: Token, arguments: list[Any]) -> Family:
        if name not in FAMILIES:
            self._fault(name, f"found {str(name)!r}, expected one of {', '.join(FAMILIES)}")
        family = FAMILIES[name]
        if len(arguments) != len(family.parameters):
            words = f"found {len(arguments)} arguments, expected {len(family.parameters)}"
            self._fault(name, words)
        return family

    def _declare(self, token: Token, kind: str) -> sympy.Symbol:
        name = str(token)
        if name in self.symbols or name in {*_FUNCTIONS, *_OVER, "count"}:
            self._fault(token, f"found {name!r}, which has a meaning already; expected another")
        self.symbols[name] = sympy.Symbol(name, **ASSUMPTIONS[kind])
        return self.symbols[name]

    def _others(
        self, family: Family, arguments: list[Any], conditions: Any, x: str
    ) -> dict[str, tuple[Token, str]]:
        """What a child has beside x: a plain argument is what its place allows, others are as the
        conditions say, or real."""
        found: dict[str, tuple[Token, str]] = {}
        for argument, (_, kind) in zip(arguments, family.parameters, strict=True):
            for token in _names(argument):
                if token == x:
                    continue
                if token in self.symbols:
                    self._fault(token, f"found {str(token)!r}, a parameter of the prior")
                if str(token) in found:
                    self._fault(token, f"found {str(token)!r} twice; expected it once")
                found[str(token)] = (token, kind if argument.data == "name" else "real")
        for condition in conditions.children if conditions else ():
            token, kind = self._condition(condition)
            if str(token) not in found:
                known = ", ".join(found) or "nothing"
                self._fault(token, f"found {str(token)!r}, expected one of: {known}")
            found[str(token)] = (found[str(token)][0], kind)
        return found

    def _condition(self, condition: Any) -> tuple[Token, str]:
        """``e > 0``, ``e >= 0`` or ``0 < e < 1``."""
        left, first, right, *rest = (c for c in condition.children if c is not None)
        operators = tuple(str(t) for t in (first, *rest[:1]))
        kind = _CONDITIONS.get(operators)
        ends = [left, *rest[1:]] if rest else [right]
        middle = right if rest else left
        bounds = ["0", "1"] if rest else ["0"]
        values = [str(e.children[0]) if e.data == "number" else "" for e in ends]
        if kind is None or middle.data != "name" or values != bounds:
            self._fault(condition, "expected a condition like 'e > 0', 'e >= 0' or '0 < e < 1'")
        return middle.children[0], kind

    def _updates(
        self, updates: list[Any], parameters: Mapping[str, Expr], x: str
    ) -> tuple[Expr, ...]:
        scope = {name: symbol for name, symbol in self.symbols.items() if name != x}
        new: dict[str, Expr] = {}
        for update in updates:
            name, expression = update.children
            if str(name) not in parameters or str(name) in new:
                left = [p for p in parameters if p not in new]
                found = f"found {str(name)!r}, expected a parameter of the prior"
                self._fault(name, f"{found} that has no update yet: {', '.join(left) or 'none'}")
            new[str(name)] = self._expression(expression, scope, parameters)
        return tuple(new.get(name, symbol) for name, symbol in parameters.items())

    def _expression(
        self,
        tree: Any,
        scope: Mapping[str, Expr],
        parameters: Mapping[str, Expr] | None = None,
    ) -> Expr:
        """An expression over the names of ``scope``.

        With ``parameters`` it is an update: parameters and aggregates, in which the other names
        are.
        """
        if tree.data == "number":
            return sympy.Rational(str(tree.children[0]))
        if tree.data == "name":
            return self._name(tree.children[0], scope, parameters)
        if tree.data == "call":
            return self._call(tree, scope, parameters)
        parts = [self._expression(c, scope, parameters) for c in tree.children]
        return _OPERATIONS[tree.data](*parts)

    def _name(
        self, token: Token, scope: Mapping[str, Any], parameters: Mapping[str, Any] | None
    ) -> Expr:
        if parameters is not None:
            if token == "count":
                return SumOver(sympy.Integer(1))
            if token in scope and token not in parameters:
                words = f"found {str(token)!r} of one child, expected it inside sum, max or min"
                self._fault(token, words)
        if token not in scope:
            self._fault(token, f"found {str(token)!r}, expected one of {', '.join(scope)}")
        return scope[str(token)]

    def _call(
        self, tree: Any, scope: Mapping[str, Any], parameters: Mapping[str, Any] | None
    ) -> Expr:
        name, *arguments = tree.children
        if parameters is not None and name in _OVER and len(arguments) == 1:
            inner = {n: s for n, s in scope.items() if n not in parameters}
            return _OVER[name](self._expression(arguments[0], inner))
        if name in _ELEMENTWISE and len(arguments) > 1:
            parts = (self._expression(a, scope, parameters) for a in arguments)
            return reduce(_ELEMENTWISE[name], parts)
        if name not in _FUNCTIONS:
            known = ", ".join(sorted({*_FUNCTIONS, *_OVER}))
            self._fault(name, f"found {str(name)!r}, expected a function: {known}")
        if len(arguments) != 1:
            self._fault(name, f"found {len(arguments)} arguments, expected one")
        return _FUNCTIONS[name](self._expression(arguments[0], scope, parameters))


def _tokens(tree: Any) -> Iterator[Token]:
    for child in tree.children:
        if isinstance(child, Token):
            yield child
        elif child is not None:
            yield from _tokens(child)


def _names(tree: Any) -> Iterator[Token]:
    """The names that an expression uses, without functions."""
    children = tree.children[1:] if tree.data == "call" else tree.children
    for child in children:
        if isinstance(child, Token):
            if child.type == "NAME":
                yield child
        else:
            yield from _names(child)
