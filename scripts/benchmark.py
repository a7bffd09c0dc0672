"""Run benchmarks and print their tables: `python scripts/benchmark.py NAME [NAME ...]`.

The benchmark NAME is the function `run()` of scripts/benchmarks/NAME_benchmark.py. It returns a text, or one part of it after another, each of
which is printed at once.
"""

import argparse
import importlib.util
import platform
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / "scripts" / "benchmarks"
SUFFIX = "_benchmark"


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks named on the command line; return 2 if one of the names is unknown."""
    parser = argparse.ArgumentParser(description="Run benchmarks and print their tables.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="without a name, all names are listed")
    names = parser.parse_args(arguments).names
    known = {file.stem.removesuffix(SUFFIX): file for file in sorted(FOLDER.glob(f"*{SUFFIX}.py"))}
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        problem = f"There is no benchmark called {', '.join(unknown)}. " if unknown else ""
        print(f"{problem}Known names: {', '.join(known)}.", file=sys.stderr if unknown else sys.stdout)
        return 2 if unknown else 0
    sys.path.insert(0, str(REPOSITORY))
    from basicsr.utils.memory import keep_freed_memory  # noqa: PLC0415 -- not on the path before

    keep_freed_memory()  # as the commands do
    print(hardware())
    for name in names:
        result = _load(name, known[name]).run()
        for part in [result] if isinstance(result, str) else result:
            print(f"\n{part}", flush=True)
    return 0


def hardware() -> str:
    """Return one line: processor, threads, accelerator if there is one, versions."""
    import torch

    from basicsr.utils.hardware import processor

    parts = [processor(), f"{torch.get_num_threads()} threads"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join([*parts, f"torch {torch.__version__}", f"Python {platform.python_version()}"])


def _load(name: str, file: Path):
    spec = importlib.util.spec_from_file_location(f"{name}{SUFFIX}", file)
    assert spec is not None and spec.loader is not None  # of a Python file there is one
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
