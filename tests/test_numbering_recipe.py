"""The recipe of docs/numbering.md for ids and epochs through a loader, with workers of every kind."""

import os
import sys
from pathlib import Path

import children
import pages
import pytest

import gpuaug as ga

ROOT = Path(ga.__file__).parent.parent
(EXAMPLE,) = [b.code for b in pages.blocks("docs/numbering.md") if "persistent_workers" in b.code]

BEFORE = """
import sys, torch, gpuaug as ga
images = [torch.full((12, 14, 3), 40, dtype=torch.uint8), torch.full((15, 13, 3), 90, dtype=torch.uint8)]
policy = ga.Policy([ga.RandomResizedCrop(8), ga.SaltAndPepper(0.5)], seed=3)
"""
AFTER = """
def seen(batch):
    return [(int(i), int(batch.epoch), int(l), p.numpy().tobytes()) for i, l, p in zip(batch.ids, batch.labels, batch.images)]

def check(policy, method, persistent):
    # a process that is spawned takes seconds: one is enough to be one
    workers = 2 if method == "fork" else 1
    options = {"batch_size": 4, "shuffle": True, "num_workers": workers, "persistent_workers": persistent, "multiprocessing_context": method}
    # who augments in the main process may load there too: a process less to spawn
    plain = options if method == "fork" else {"batch_size": 4, "shuffle": True}
    here, augmented = torch.utils.data.DataLoader(Numbered(), collate_fn=batched, **plain), Augmented(policy)
    there = torch.utils.data.DataLoader(Numbered(), collate_fn=augmented, **options)
    every = []
    for epoch in range(2):
        policy.set_epoch(epoch)
        main = sorted(row for batch in here for row in seen(policy(batch)))
        augmented.set_epoch(epoch)
        work = sorted(row for batch in there for row in seen(batch))
        assert main == work and [i for i, *_ in main] == list(range(8)) and {e for _, e, *_ in main} == {epoch}, "one sample, one augmentation"
        every += [pixels for *_, pixels in main]
    assert len(set(every)) == 16, "two epochs or two samples were augmented alike"
    assert int(policy.next_id) == 0

if __name__ == "__main__":
    for kind in sys.argv[1:]:
        method, _, persistent = kind.partition("-")
        check(policy, method, persistent == "persistent")
        print(kind)
"""


# in one process, for it takes seconds to start, as does each that is spawned; anew for every epoch in the slow suite
KINDS = [("fork-anew", "spawn-persistent"), pytest.param(("fork-persistent", "spawn-anew"), marks=pytest.mark.slow)]


@pytest.mark.parametrize("kinds", KINDS, ids=" ".join)
def test_the_recipe_gives_each_sample_its_own_augmentation_in_each_epoch(kinds, tmp_path):
    definitions = EXAMPLE.split("options = ")[0]
    assert "class Numbered" in definitions and "class Augmented" in definitions, "vacuous"
    script = tmp_path / "recipe.py"
    script.write_text(BEFORE + definitions + AFTER)
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}
    done = children.run([sys.executable, script, *kinds], env=env, timeout=400)
    assert done.returncode == 0 and done.stdout.split() == list(kinds), done.stderr[-2000:]
