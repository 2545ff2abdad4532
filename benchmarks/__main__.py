"""Run benchmarks and sum them up: `python -m benchmarks [name...]`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

# What is deployed finds the layer on its path; here we put it there.
sys.path.insert(0, str(Path(__file__).parent.parent / "layers" / "registry"))

from benchmarks import (
    access,
    announcing,
    cold_start,
    engine,
    grades,
    history,
    issuers,
    ledger,
    owner,
    paging,
    requests,
    sweep,
    throughput,
    writing,
)
from benchmarks.catalogue import postgres
from benchmarks.report import Result, machine, summary

BENCHMARKS = (
    *("requests", "cold_start", "paging", "throughput", "engine", "sweep", "writing", "history", "announcing"),
    *("owner", "access", "issuers", "grades", "ledger"),
)


def main() -> int:
    """Run the named benchmarks, or all; exit code 1 where a bar is not met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    parser.add_argument("--python", metavar="PATH", help="the Python 3.13 whose cold start is measured")
    parser.add_argument("--quick", action="store_true", help="engine: a smaller farm, in a minute")
    arguments = parser.parse_args()
    names: list[str] = arguments.names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    started = time.perf_counter()
    results: list[Result] = []
    with postgres() as url:
        run: dict[str, Callable[[], list[Result]]] = {
            "requests": lambda: requests.run(url),
            "cold_start": lambda: cold_start.run(arguments.python),
            "paging": lambda: paging.run(url),
            "throughput": lambda: throughput.run(url),
            "sweep": lambda: sweep.run(url),
            "writing": lambda: writing.run(url),
            "history": lambda: history.run(url),
            "announcing": announcing.run,
            "owner": owner.run,
            "access": lambda: access.run(url),
            "issuers": issuers.run,
            "grades": grades.run,
            "ledger": lambda: ledger.run(url),
            "engine": lambda: engine.run(quick=arguments.quick),
        }
        print(machine(url))
        for name in names:
            print(f"\n## {name}\n", flush=True)
            results += run[name]()
    print(f"\n## summary, after {time.perf_counter() - started:.0f} s\n\n{summary(results)}")
    return 0 if all(result.met for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
