"""`python -m benchmarks NAME [options]` runs one benchmark, `python -m benchmarks` all of them, in order."""

import importlib
import pkgutil
import sys

import benchmarks


def names() -> list[str]:
    """Every package in this folder is a benchmark: it has a module `command` with `main(arguments) -> exit code`."""
    return sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.ispkg)


def main(arguments: list[str]) -> int:
    """0 done, 1 failed, 2 wrong usage."""
    chosen = arguments[:1] or names()
    unknown = [name for name in chosen if name not in names()]
    if unknown:
        sys.stderr.write(f"benchmark {unknown[0]!r} is not known; choose from {', '.join(names())}\n")
        return 2
    return max(importlib.import_module(f"benchmarks.{name}.command").main(arguments[1:]) for name in chosen)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
