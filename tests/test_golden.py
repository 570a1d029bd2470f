"""Draws are stable: a seed means the same augmentations in every version, as long as the version of the draws is the
same."""

from dataclasses import replace

import golden
import pytest
import torch

import gpuaug as ga
from gpuaug import rng

KNOWN = golden.known()


@pytest.mark.parametrize("name", sorted(ga.REGISTRY))
def test_a_transform_draws_what_it_always_drew(name):
    codes = [code for code in KNOWN["transforms"] if code.startswith(f"{name}(")]
    assert codes, f"{name} has no golden draws: python tests/support/golden.py --write"
    for code in codes:
        t = eval(code, {"torch": torch, **vars(ga)})
        assert golden.of_transform(t) == KNOWN["transforms"][code], (
            f"{code} draws otherwise than version {KNOWN['version']} did"
        )


@pytest.mark.parametrize("name", sorted(KNOWN["generator"]))
def test_the_generator_gives_what_it_always_gave(name):
    assert golden.of_generator()[name] == KNOWN["generator"][name]


def test_the_golden_draws_are_of_this_version_and_many():
    assert KNOWN["version"] == rng.VERSION
    assert golden.of_generator().keys() == KNOWN["generator"].keys()
    drawn = [name for values in KNOWN["transforms"].values() for name in values]
    assert len(drawn) > 100 and len(KNOWN["transforms"]) > 50, "vacuous"


def test_a_digest_sees_a_change_and_not_the_last_bit():
    x = torch.linspace(-3.0, 40.0, 300, dtype=torch.float64)
    assert golden.digest(x) == golden.digest(x * (1 + 2.0**-52)) == golden.digest(x + 0.0)
    assert golden.digest(x) != golden.digest(x * 1.001) and golden.digest(x) != golden.digest(x.flip(0))
    assert golden.digest(torch.tensor([1, 2])) != golden.digest(torch.tensor([1, 3]))
    assert golden.digest(torch.tensor([-0.0])) == golden.digest(torch.tensor([0.0]))


def test_the_golden_file_is_changed_only_with_the_version(monkeypatch, tmp_path, capsys):
    file = tmp_path / "golden.json"
    monkeypatch.setattr(golden, "FILE", file)
    first = {name: replace(spec, arguments=spec.arguments[:1]) for name, spec in golden.SPECS.items()}
    monkeypatch.setattr(golden, "SPECS", first)
    assert "not complete" in golden.main() and not file.exists(), "nothing is written unless told"
    assert golden.main("--write") is None and golden.main() is None
    before = file.read_text()
    monkeypatch.setattr(golden, "SEED", 5)
    monkeypatch.setattr(golden, "KEYS", rng.Keys(5, 0, golden.IDS, golden.OCCURRENCE))
    assert "changed" in golden.main("--write") and file.read_text() == before
    assert "RandomResizedCrop" in capsys.readouterr().out, "what changed is named"
    monkeypatch.setattr(rng, "VERSION", rng.VERSION + 1)
    assert golden.main("--write") is None and file.read_text() != before


def test_a_policy_of_other_draws_is_refused_by_name(tmp_path, monkeypatch):
    policy = ga.Policy([ga.RandomHorizontalFlip()], seed=3)
    data = policy.to_dict()
    assert data["draws"] == rng.VERSION
    older = {k: v for k, v in data.items() if k != "draws"}
    assert ga.Policy.from_dict(older) == policy, "a file that a person wrote need not name them"
    for other in (0, 2, "1", None, [1]):
        with pytest.raises(ValueError, match=r"draws must be version 1, got .*other augmentations"):
            ga.Policy.from_dict({**data, "draws": other})
    policy.save(tmp_path / "p.yaml")
    assert "draws: 1" in (tmp_path / "p.yaml").read_text()
    monkeypatch.setattr(rng, "VERSION", 2)
    with pytest.raises(ValueError, match="draws must be version 2, got 1"):
        ga.Policy.load(tmp_path / "p.yaml")


def test_a_checkpoint_of_other_draws_is_refused_by_name(monkeypatch):
    policy = ga.Policy([ga.RandomHorizontalFlip()])
    model, state = torch.nn.Sequential(policy), torch.nn.Sequential(policy).state_dict()
    assert int(state["0.draws"]) == rng.VERSION
    model.load_state_dict(state)
    monkeypatch.setattr(rng, "VERSION", 2)
    with pytest.raises(RuntimeError, match=r"0\.draws must be version 2, got 1"):
        model.load_state_dict(state)
    model.load_state_dict({k: v for k, v in state.items() if k != "0.draws"})
