"""What every backend runs of the policies of five strengths: `python -m bench.steps [375x500]`.

Without a size, images of different sizes, as a loader gives them."""

import sys
from collections.abc import Sequence

import gpuaug as ga
from bench.scenarios import POLICIES

BACKENDS = ("reference", "cpu", "triton")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        size = tuple(map(int, given[0].split("x"))) if given else None
        if len(given) > 1 or (size is not None and len(size) != 2):
            raise ValueError
    except ValueError:
        print("usage: python -m bench.steps [HEIGHTxWIDTH], such as 375x500", file=sys.stderr)
        return 2
    for strength, transforms in POLICIES.items():
        for backend in BACKENDS:
            print(f"==== {strength}, {backend}", ga.Policy(transforms).describe(size, backend=backend), "", sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
