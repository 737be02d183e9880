"""What the command line does: plan, ir, opt, verify models in files; calibrate."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpyro

from autmarg.backend.compiled import compile_program
from autmarg.calibrate import measure
from autmarg.driver import transform
from autmarg.errors import RequestError
from autmarg.ir.disk import load, save
from autmarg.ir.store import Store, read_program
from autmarg.passes.default import default_passes
from autmarg.passes.pipeline import Passes, Step
from autmarg.passes.registry import load_plugins
from autmarg.plan import machine
from autmarg.plan.plan import Plan
from autmarg.trace.capture import trace_program
from autmarg.verify import verify

_IN_A_FILE = re.compile(r"\S.*\.py:\w*")
_PACKAGE = Path(__file__).resolve().parent
_DEMO = (_PACKAGE / "_demo.py", _PACKAGE.parent / "examples" / "demo.py")
FORMATS: dict[str, Callable[[Plan], str]] = {
    "text": str,
    "html": Plan.to_html,
    "json": Plan.to_json,
    "dot": Plan.to_dot,
    "latex": Plan.to_latex,
}


def add_commands(commands: Any) -> None:
    """Add the subcommands to a parser; each sets ``run`` to its function of the options."""
    plan = _command(commands, "plan", _plan, "say what is integrated out of a model, why and how")
    _model(plan)
    plan.add_argument("--format", choices=FORMATS, default="text", help="of what is printed")
    plan.add_argument("--explain", action="store_true", help="say at length why latents stay")
    ir = _command(commands, "ir", _ir, "print a model's program, as it is compiled")
    _model(ir)
    ir.add_argument(
        "--print-after",
        metavar="PASS",
        help="print after this pass, after 'trace' (before any pass), or after 'all' of them",
    )
    ir.add_argument(
        "--store",
        type=Path,
        metavar="FILE",
        help="write what the text does not hold (arrays, fragments) beside it, for opt --store",
    )
    ir.add_argument("--time-passes", action="store_true", help="print what each rewrite took")
    ir.add_argument(
        "--verify-each", action="store_true", help="check the exactness identity after every pass"
    )
    opt = _command(commands, "opt", _opt, "read a program's text, run passes, print the text")
    opt.add_argument("file", type=Path, help="a program in text, - for stdin")
    opt.add_argument(
        "--store",
        type=Path,
        metavar="FILE",
        help="what ir --store wrote beside the text; without it, passes see the structure only",
    )
    opt.add_argument(
        "--pass", dest="passes", action="append", default=[], metavar="NAME",
        help="a pass by its name, built in or installed; may be repeated",
    )  # fmt: skip
    check = _command(commands, "verify", _verify, "check the exactness identity on a model")
    _model(check)
    check.add_argument("--points", type=int, default=20, help="how many random points")
    check.add_argument("--seed", type=int, default=0, help="of the random points")
    words = "measure this machine, for what plans predict"
    _command(commands, "calibrate", _calibrate, words)


def _command(commands: Any, name: str, run: Callable[..., int], words: str) -> Any:
    parser = commands.add_parser(
        name, help=words, description=words[0].upper() + words[1:] + ".",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(run=run)
    return parser


def _model(parser: Any) -> None:
    parser.add_argument("model", metavar="FILE.py:model", help="the NumPyro model")
    parser.add_argument(
        "--args", metavar="FILE.py:make_args|VALUES",
        help="the model's arguments: a function (or a value) in a file that gives a tuple, a dict "
        "or a pair of both; or numbers, texts and lists (which become arrays) as in a call: "
        "\"3, y=[0.1, 0.2]\"",
    )  # fmt: skip
    parser.add_argument(
        "--marginalize", choices=("auto", "all"), default="auto", help="as for transform"
    )
    parser.add_argument("--keep", nargs="*", default=[], metavar="SITE", help="sites to sample")


def _loaded(options: argparse.Namespace) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The model with its arguments, in double precision.

    Raises:
        RequestError: there is no such file or name, or the model does not take these arguments.
    """
    numpyro.enable_x64()
    model = _attribute(options.model)
    if not callable(model):
        raise RequestError(f"{options.model}: expected a model, found a {type(model).__name__}")
    args, kwargs = _arguments(options.args) if options.args else ((), {})
    try:
        inspect.signature(model).bind(*args, **kwargs)
    except TypeError as error:
        raise RequestError(
            f"{options.model} does not take these arguments: {error}; expected --args "
            f"FILE.py:make_args or VALUES that fit {inspect.signature(model)}"
        ) from error
    return model, args, kwargs


def _arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments, positional and by name, from a file's function or value, or as written."""
    if not _IN_A_FILE.fullmatch(text):
        return _values(text)
    found = _attribute(text)
    found = found() if callable(found) else found
    if isinstance(found, dict):
        return (), found
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict):
        return found[0] if isinstance(found[0], tuple) else (found[0],), found[1]
    return found if isinstance(found, tuple) else (found,), {}


def _values(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, all literals; lists become arrays."""

    def value(node: ast.expr) -> Any:
        found = ast.literal_eval(node)
        return np.asarray(found) if isinstance(found, list) else found

    try:
        call = ast.parse(f"_({text})", mode="eval").body
        if not isinstance(call, ast.Call):
            raise ValueError("more than the arguments of one call")
        named = {str(k.arg): value(k.value) for k in call.keywords}
        return tuple(map(value, call.args)), named
    except (SyntaxError, ValueError) as error:
        raise RequestError(
            f"--args {text}: expected FILE.py:make_args, or numbers, texts and lists as in a call, "
            'such as "3, y=[0.1, 0.2]"'
        ) from error


def _attribute(where: str) -> Any:
    """What ``FILE.py:name`` names.

    Raises:
        RequestError: there is no such file, or no such name in it.
    """
    file, _, name = where.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise RequestError(f"{where}: expected FILE.py:name with an existing file")
    module = _module(path)
    if not hasattr(module, name):
        raise RequestError(f"{file} has no '{name}'")
    return getattr(module, name)


@cache
def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"_autmarg_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise RequestError(f"{path} is no Python file")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def demo() -> Any:
    """The module ``examples/demo.py``, which a wheel carries inside the package.

    Raises:
        RequestError: this installation has neither.
    """
    for path in _DEMO:
        if path.is_file():
            return _module(path)
    places = " or ".join(map(str, _DEMO))
    raise RequestError(
        f"the demo should be in {places}: this installation is incomplete, install it again"
    )


def _plan(options: argparse.Namespace) -> int:
    model, args, kwargs = _loaded(options)
    plan = transform(model, marginalize=options.marginalize, keep=options.keep).plan(
        *args, **kwargs
    )
    print(FORMATS[options.format](plan))
    if options.explain:
        print(f"\n{plan.explain()}")
    return 0


def _ir(options: argparse.Namespace) -> int:
    model, args, kwargs = _loaded(options)
    load_plugins()
    passes = default_passes(marginalize=options.marginalize, keep=options.keep)
    after = options.print_after
    if after not in (None, "trace", "all", *passes.names):
        raise RequestError(
            f"there is no pass '{after}'; expected one of trace, all, {', '.join(passes.names)}"
        )
    if options.store and after == "all":
        raise RequestError("--store goes with one text: expected --print-after PASS, or none")

    def show(step: Step) -> None:
        if after in ("all", step.name):
            print(f"# after {step.name}\n{step.after}\n")
        if options.time_passes:
            print(f"# {step}")

    program = trace_program(model, args, kwargs)[0]
    if after in ("trace", "all"):
        print(f"# as traced\n{program}\n")
    compiled = compile_program(program, passes, show)
    if after is None:
        print(compiled.program)
    if options.store:
        last = -1 if after == "trace" else passes.names.index(after or passes.names[-1])
        notes = {"marginalize": options.marginalize, "keep": list(options.keep)}
        save(program, options.store, {**notes, "passes": list(passes.names[: last + 1])})
    if options.verify_each:
        for k, each in enumerate(passes, start=1):
            report = verify(
                transform(model, passes=Passes(tuple(passes)[:k])), *args,
                kwargs=kwargs, points=2, quiet=True,
            )  # fmt: skip
            print(f"# after {each.name}: largest error {report.worst:.1e} nats, exact")
    return 0


def _opt(options: argparse.Namespace) -> int:
    if str(options.file) == "-":
        text = sys.stdin.read()
    elif options.file.is_file():
        text = options.file.read_text(encoding="utf-8")
    else:
        raise RequestError(f"there is no file {options.file}")
    numpyro.enable_x64()
    store = read_store(options.store) if options.store else None
    print(Passes(()).append(*options.passes).run(read_program(text, store)))
    return 0


def read_store(path: Path) -> Store:
    """The store that ``autmarg ir --store`` wrote: the passes run again on the program as traced.

    Raises:
        RequestError: there is none, or it was written under other versions.
    """
    load_plugins()
    program, notes = load(path)
    passes = default_passes(marginalize=notes["marginalize"], keep=notes["keep"])
    return Store(passes.reorder(*notes["passes"]).run(program))


def _verify(options: argparse.Namespace) -> int:
    model, args, kwargs = _loaded(options)
    verify(
        model, *args, kwargs=kwargs, marginalize=options.marginalize, keep=options.keep,
        points=options.points, seed=options.seed,
    )  # fmt: skip
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    file = machine.place()
    if file is None:
        raise RequestError("AUTMARG_MACHINE is empty, so there is no file for what is measured")
    numpyro.enable_x64()
    found = measure()
    machine.save(found, file)
    slow = asdict(machine.slowness())
    for name, nanoseconds in asdict(found).items():
        print(f"{name}: {nanoseconds:.3g} ns, {slow[name]:.2f} times the reference")
    print(f"written to {file}")
    return 0
