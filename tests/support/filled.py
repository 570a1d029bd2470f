"""Calls of a saved policy on a card that is not there, after Triton's cache was filled for it: how many kernels they ask
Triton for, as JSON.

A program of its own, since the kernels of the tests are interpreted: `python filled.py policy.yaml`."""

import json
import sys

import torch
from bound import META, through_triton

import gpuaug as ga
from bench.no_card import no_card


def main(path: str) -> dict[str, int]:
    """Calls with images of one size and of several, of other numbers than were compiled for."""
    policy, n = ga.Policy.load(path), 5
    dense = torch.empty(n, 3, 50, 53, dtype=torch.uint8, device=META)
    ragged = ga.Ragged.of(tuple(torch.empty(40 + k, 47, 3, dtype=torch.uint8, device=META) for k in range(n)))
    asked = {}
    with no_card() as (_, counter):
        for name, images in {"dense": dense, "ragged": ragged}.items():
            ids = torch.empty(n, dtype=torch.int64, device=META)
            asked[name] = len(through_triton(lambda i=images, k=ids: policy(i, ids=k, epoch=3, backend="triton"))[1])
        return asked | {"launched": counter.count}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
