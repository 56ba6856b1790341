"""`python -m apexstream.bench gpu`: what a borrowed GPU shows, from a plain checkout; `apexstream bench` measures the rest.

Imports nothing but Python and this project until it is known what is to be done.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from apexstream.bench.on_gpu import PARTS
from engine.errors import ApexError

NO_GPU = 3
"""Exit code where there is no GPU to measure; 1 is for what failed on one, 2 for wrong usage."""

DESCRIPTION = """\
Check and time everything that runs on an NVIDIA GPU, in order of worth, within a time budget.

From a checkout of the source, with nothing installed but numpy 2, PyTorch and Triton (Python 3.11 or newer):

    PYTHONPATH=.:tools python -m apexstream.bench gpu --seconds 840 --out gpu.json

Each result is in OUT at once. The same command again skips what is there for the same version of the source, the same
device and the same versions of the packages, so a run that was cut short loses nothing. What needs a package that is not
there is skipped, with the reason in the record.
"""

EPILOG = """\
exit codes: 0 all was right, or the time is over; 1 a check failed or a file cannot be used; 2 wrong usage;
3 there is no GPU that can be used
"""


def parser() -> argparse.ArgumentParser:
    """The options."""
    top = argparse.ArgumentParser(prog="python -m apexstream.bench", description="Benchmarks that run from a plain checkout.")
    gpu = top.add_subparsers(metavar="gpu", required=True).add_parser(
        "gpu",
        help="a borrowed GPU: correctness, times, training",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    gpu.add_argument("--seconds", type=float, default=840, help="begin nothing that would end later (default: 840)")
    gpu.add_argument(
        "--parts", type=_parts, default=PARTS, metavar=",".join(PARTS), help="these alone, always in this order (default: all)"
    )
    gpu.add_argument("--out", type=Path, default=Path("gpu.json"), metavar="FILE", help="the record (default: gpu.json)")
    gpu.add_argument("--data", type=Path, metavar="FOLDER", help="flow maps as `apexstream evaluate --data` takes them")
    gpu.add_argument("--again", action="store_true", help="measure again what the record holds already")
    return top


def _parts(text: str) -> tuple[str, ...]:
    chosen = [name.strip() for name in text.split(",")]
    if unknown := sorted(set(chosen) - set(PARTS)):
        raise argparse.ArgumentTypeError(f"no part is called {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return tuple(name for name in PARTS if name in chosen)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    chosen = parser().parse_args(arguments)
    from apexstream.bench.on_gpu.check import NoGpuError
    from apexstream.bench.on_gpu.run import measure

    try:
        right = measure(chosen.parts, chosen.out, seconds=chosen.seconds, data=chosen.data, again=chosen.again)
    except NoGpuError as reason:
        print(f"error: {reason}", file=sys.stderr)
        return NO_GPU
    except ApexError as reason:
        print(f"error: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; {chosen.out} holds what was finished, the same command goes on", file=sys.stderr)
        return 1
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
