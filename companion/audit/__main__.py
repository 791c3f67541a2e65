"""Audit a distillation loss: python -m companion.audit package.module:function

The loss is called as loss(s, t, y, T): student logits, teacher logits, labels, temperature; or in the order that its
parameters' names tell (logits_s, student, T, temperature, mask, …); or as --call says. Its module is imported, with
your rights and from the current folder: audit only code that you trust.
Exit code: 0 if nothing is at fault, 1 if something is, 2 if the loss cannot be found or called.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Callable

from . import audit
from ._calls import NAMES
from ._divergence import DECLARED


def find(where: str) -> Callable:
    """package.module:function, or package.module:Class.method. Ends the program where there is none."""
    module, _, path = where.partition(":")
    if not (module and path):
        stop(f"{where!r} is not package.module:function.")
    sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except SystemExit as error:
        stop(f"{where} cannot be had: importing {module} ends the program, with sys.exit({error.code!r}).")
    except Exception as error:  # an import runs anything
        stop(f"{where} cannot be had: {type(error).__name__}: {error}")
    if not (callable(found) or hasattr(found, "forward")):
        stop(f"{where} is {type(found).__name__}, and cannot be called.")
    return found


def stop(reason: str):
    print(reason, file=sys.stderr)
    raise SystemExit(2)


def main(arguments: list[str] | None = None) -> int:
    names = "; ".join(f"{name}: {what}" for name, what in NAMES.items())
    parser = argparse.ArgumentParser(
        "python -m companion.audit", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "loss", metavar="package.module:function", help="the loss; a class is made without arguments"
    )
    parser.add_argument("--call", metavar="EXPR", help=f'e.g. "loss(t, s)" or "loss(s, t, tau=T)";\n{names}')
    parser.add_argument("--divergence", choices=list(DECLARED), help="what it is meant to be")
    parser.add_argument("--factor", type=int, choices=(0, 1, 2), help="the k of the T^k before the soft term")
    parser.add_argument(
        "--ignore", metavar="NAMES", help="properties whose faults you accept, e.g. shapes,faults", default=""
    )
    parser.add_argument("--quiet", action="store_true", help="print the names of what is at fault alone")
    given = parser.parse_args(arguments)
    loss = find(given.loss)
    try:
        report = audit(
            loss,
            given.call,
            divergence=given.divergence,
            factor=given.factor,
            ignore=[name.strip() for name in given.ignore.split(",") if name.strip()],
            name=given.loss,
        )
    except SystemExit as error:
        stop(f"{given.loss} ends the program, with sys.exit({error.code!r}).")
    except Exception as error:
        stop(str(error))
    print(" ".join(report.failed) if given.quiet else report)
    return int(not report.ok)


if __name__ == "__main__":
    sys.exit(main())
