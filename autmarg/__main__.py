"""The command line: `autmarg plan|ir|opt|verify|rules|demo`, or `python -m autmarg …`.

Exit codes: 0 when all went well; 1 when it did not, with one line on stderr that says why; 2 for a
command line that cannot be understood; 3 when `verify` finds a model that is not exact, or
`rules check` a rule that is wrong; 4 for a rule that could be neither proved nor refuted; 130 when
interrupted; 141 when whatever reads the output (`head`, say) has stopped reading.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from autmarg import commands
from autmarg.compat.executables import enable_usual_cache
from autmarg.conjugacy.registry import check_file
from autmarg.errors import AutmargError, ExactnessError, UnprovedRuleError, WrongRuleError
from autmarg.trace.record import place_of_error


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaints fit on one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _at_least(smallest: int) -> Callable[[str], int]:
    """Return a reader of integers that are `smallest` or more."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if number < smallest:
            raise argparse.ArgumentTypeError(f"{number} is less than {smallest}")
        return number

    return read


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="autmarg",
        description="Integrate Gaussian latent variables out of NumPyro models, exactly.",
    )
    parser.add_argument(
        "--traceback", action="store_true", help="show where an error comes from, at length"
    )
    found = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_commands(found)
    shown = found.add_parser(
        "demo",
        help="sample two classic mixed models as written and transformed, and compare",
        description="For two data sets of R's lme4 (sleepstudy; penicillin, which is crossed): "
        "print the plan, verify it, run NUTS on the model as written and on the transformed one, "
        "recover what was integrated out, compare effective samples per second and divergences.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    shown.add_argument("--draws", type=_at_least(8), default=1000, help="draws kept per run")
    shown.add_argument("--warmup", type=_at_least(1), default=500, help="warm-up steps per run")
    shown.add_argument("--seed", type=_at_least(0), default=0, help="seed of all random numbers")
    shown.add_argument(
        "--output", type=Path, default=Path("autmarg-demo.png"), help="where the figure goes"
    )
    shown.set_defaults(run=_demo)
    _add_rules(found)
    return parser


def _demo(options: argparse.Namespace) -> int:
    commands.demo().run(options.draws, options.warmup, options.seed, options.output)
    return 0


def _add_rules(commands: Any) -> None:
    rules = commands.add_parser("rules", help="work on conjugacy rules (docs/rules.md)")
    tasks = rules.add_subparsers(dest="task", required=True, metavar="TASK")
    words = "prove the rules of a file; say how, or what is wrong"
    codes = "Exits with 3 at a rule that is wrong, with 4 at one neither proved nor refuted."
    check = tasks.add_parser("check", help=words, description=f"{words.capitalize()}. {codes}")
    check.add_argument("file", type=Path, metavar="FILE.rules")
    check.set_defaults(run=_check_rules)


def _check_rules(options: argparse.Namespace) -> int:
    for proof in check_file(options.file):
        print(proof)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    enable_usual_cache()
    try:
        code = options.run(options)
        sys.stdout.flush()  # here, where a closed pipe can still be caught
        return code
    except BrokenPipeError:
        # What is still buffered goes nowhere: Python would write it, and complain, when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("autmarg: interrupted", file=sys.stderr)
        return 130
    except Exception as error:  # the user's file may raise anything: one line for it, too
        if options.traceback:
            raise
        print(f"autmarg: {_line(error)}", file=sys.stderr)
        return next((code for kind, code in _CODES.items() if isinstance(error, kind)), 1)


_CODES = {ExactnessError: 3, WrongRuleError: 3, UnprovedRuleError: 4}


def _line(error: Exception) -> str:
    """An error on one line; where it is not one of ours, with the user's line that raised it."""
    words = str(error)
    if not isinstance(error, AutmargError):
        place = place_of_error(error)
        where = f"{place.file}:{place.line}: " if place else ""
        words = f"{where}{type(error).__name__}: {error}"
    return " ".join(words.split())


if __name__ == "__main__":
    sys.exit(main())
