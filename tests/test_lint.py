"""Lint: every rule fires where it must and is silent beside it, whatever a transform is wrapped in."""

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, WeightedRandomSampler

import gpuaug as ga
from gpuaug.lint import Finding, read_rules
from gpuaug.lint_effects import COLOUR, EFFECTS, seen
from gpuaug.lint_rules import DOMAINS, LEVELS, RULES, Rule

FLOAT, NORMAL = ga.ToDtype(torch.float32, scale=True), ga.Normalize((0.5,), (0.5,))
H, V = ga.RandomHorizontalFlip(), ga.RandomVerticalFlip()
HUE = ga.ColorJitter(hue=0.1)
CROP = ga.RandomResizedCrop(32)
# rule -> (what breaks it, what is as near to that as can be and does not)
CASES: dict[str, tuple[list[Any], list[Any]]] = {
    "normalize-before-noise": ([FLOAT, NORMAL, ga.GaussianNoise()], [FLOAT, ga.GaussianNoise(), NORMAL]),
    "erasing-before-normalize": ([FLOAT, ga.RandomErasing(), NORMAL], [FLOAT, NORMAL, ga.RandomErasing()]),
    "resampled-twice": ([CROP, H, ga.RandomRotation(5)], [CROP, H, ga.ColorJitter(0.1), ga.RandomRotation(5)]),
    "colour-outside-range": ([FLOAT, NORMAL, HUE], [FLOAT, HUE, NORMAL]),
    "mirrored-writing": ([H], [ga.RandomHorizontalFlip(0.0)]),
    "mirrored-sign": ([H], [ga.RandomCrop(9)]),
    "mirrored-body": ([H], [ga.RandomRotation(5)]),
    "upside-down-character": ([V], [ga.RandomVerticalFlip(0.0)]),
    "upside-down-body": ([V], [ga.RandomVerticalFlip(0.0)]),
    "upside-down-object": ([V], [H]),
    "turned-character": ([ga.RandomRotation(90)], [ga.RandomRotation(40)]),
    "tilted-character": ([ga.RandomAffine(20)], [ga.RandomAffine(15)]),
    "tilted-body": ([ga.RandomAffine((0, 30))], [ga.RandomAffine((-20, 20))]),
    "turned-object": ([ga.RandomRotation(90)], [ga.RandomRotation(30)]),
    "sheared-character": ([ga.RandomAffine(0, shear=30)], [ga.RandomAffine(0, shear=10)]),
    "object-cropped-away": ([CROP], [ga.RandomResizedCrop(32, (0.3, 1.0))]),
    "object-cropped": ([ga.RandomResizedCrop(32, (0.3, 1.0))], [ga.RandomResizedCrop(32, (0.5, 1.0))]),
    "finding-cropped": ([CROP], [ga.RandomResizedCrop(32, (0.3, 1.0))]),
    "recoloured-label": ([HUE], [ga.ColorJitter(0.1, 0.1, hue=0.01)]),
    "decoloured-label": ([ga.RandomGrayscale()], [ga.RandomGrayscale(0.0)]),
    "desaturated-label": ([ga.ColorJitter(saturation=0.4)], [ga.ColorJitter(saturation=0.2)]),
    "recoloured-sign": ([HUE], [ga.ColorJitter(0.4, 0.4, 0.4)]),
    "inverted-sign": ([ga.RandomInvert()], [ga.RandomInvert(0.0)]),
    "recoloured-stain": ([HUE], [ga.ColorJitter(hue=0.05)]),
    "inverted-stain": ([ga.RandomChannelPermutation()], [ga.RandomAutocontrast()]),
    "recoloured-species": ([HUE], [ga.ColorJitter(hue=0.02)]),
    "decoloured-species": ([ga.RandomGrayscale()], [ga.RandomAutocontrast()]),
    "blurred-texture": ([ga.GaussianBlur(5)], [ga.GaussianBlur(5, 0.4)]),
    "blurred-object": ([ga.GaussianBlur(5)], [ga.GaussianBlur(5, 0.4)]),
    "object-erased": ([FLOAT, ga.RandomErasing()], [FLOAT, ga.RandomErasing(scale=(0.01, 0.02))]),
    "finding-erased": ([FLOAT, ga.RandomErasing()], [FLOAT, ga.RandomErasing(scale=(0.01, 0.1))]),
    "mixed-places": ([ga.MixUp()], [ga.CutMix()]),
    "patched-objects": ([ga.CutMix()], [ga.MixUp()]),
    "mixed-details": ([ga.CutMix()], [H]),
    "bent-shapes": ([ga.ElasticTransform(200.0)], [ga.ElasticTransform(50.0)]),
}
BY_NAME = {rule.name: rule for rule in RULES}


def names(transforms: Any, domain: str | None = None, **options: Any) -> set[str]:
    return {f.rule for f in ga.lint(transforms, domain, **options)}


def test_every_rule_has_its_cases():
    assert CASES.keys() == BY_NAME.keys() and len(RULES) == len(BY_NAME) > 25


@pytest.mark.parametrize("name", CASES)
def test_a_rule_fires_where_it_must_and_nowhere_else(name):
    rule, (breaks, keeps) = BY_NAME[name], CASES[name]
    for domain in (None, *DOMAINS):
        meant = not rule.domains or domain in rule.domains
        assert (name in names(ga.Policy(breaks), domain)) == meant, domain
        assert name not in names(keeps, domain), domain


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
def test_a_rule_says_why_what_to_do_and_where_that_is_said(rule):
    assert rule.level in LEVELS and len(rule.reason) > 40 and ";" in rule.reason, "what happens; what to do"
    assert len(rule.source) > 20
    assert set(rule.domains) <= DOMAINS.keys()
    for name in (*rule.transform, *rule.after, *rule.before, *rule.follows):
        assert name in EFFECTS or name in ga.REGISTRY, name


WRAPPED = {
    "RandomApply": lambda t: ga.RandomApply(t),
    "RandomChoice": lambda t: ga.RandomChoice([ga.Identity(), *t]),
    "RandomOrder": lambda t: ga.RandomOrder(t),
    "twice": lambda t: ga.RandomApply([ga.RandomChoice(t)]),
    "ByClass": lambda t: ga.ByClass({3: t}),
    "the default of ByClass": lambda t: ga.ByClass({3: []}, default=t),
}


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize("name", [n for n in CASES if len(CASES[n][0]) == 1])
def test_what_is_inside_others_is_looked_at(name, wrapper):
    domain = next(iter(BY_NAME[name].domains), None)
    found = [f for f in ga.lint([WRAPPED[wrapper](CASES[name][0])], domain) if f.rule == name]
    assert len(found) == 1 and found[0].where.startswith("transforms[0].") and found[0].what == repr(CASES[name][0][0])


def test_what_never_happens_is_not_looked_at():
    for never in (ga.RandomApply([H], 0.0), ga.RandomChoice([ga.Identity(), H], (1.0, 0.0))):
        assert not names([never], "digits")


def test_the_place_of_a_finding_is_code():
    policy = ga.Policy([CROP, ga.RandomApply([ga.RandomChoice([ga.RandomInvert(), H])]), ga.ByClass({1: [HUE, V]})])
    places = {f.where: f.what for f in ga.lint(policy, "digits") if f.level == "error"}
    assert places == {
        "transforms[1].transforms[0].transforms[1]": repr(H),
        "transforms[2].rows[1][1]": repr(V),
    }
    for where, what in places.items():
        assert repr(eval(f"policy.{where}")) == what


def test_children_of_a_choice_never_follow_one_another():
    exclusive = [FLOAT, ga.RandomChoice([NORMAL, HUE])]
    assert "colour-outside-range" not in names(exclusive)
    assert "colour-outside-range" in names([FLOAT, ga.RandomApply([NORMAL, HUE])])
    assert "colour-outside-range" in names([FLOAT, ga.RandomOrder([HUE, NORMAL])]), "any order may come"
    rows = {1: [FLOAT, NORMAL], 2: [FLOAT, HUE]}
    assert "colour-outside-range" not in names([ga.ByClass(rows)])
    assert "colour-outside-range" in names([ga.ByClass({1: [FLOAT, NORMAL, HUE]})])


def test_a_policy_that_composes_its_resamples_does_not_resample_twice():
    steps = [ga.Resize((32, 32)), ga.RandomAffine(5, interpolation="bilinear")]
    assert names(ga.Policy(steps)) == {"resampled-twice"}
    assert names(ga.Policy(steps, single_resample=True)) == set()
    assert names([ga.Resize(32), ga.CenterCrop(24), H]) == set()


@pytest.mark.parametrize(
    ("steps", "wrong"),
    [
        ([ga.ToDtype(torch.float32), HUE], True),
        ([FLOAT, ga.ToDtype(torch.float32), HUE], False),
        ([ga.ToTensor(), ga.ToDtype(torch.float16), HUE], False),
        ([FLOAT, ga.GaussianNoise(clip=False), HUE], True),
        ([FLOAT, ga.GaussianNoise(), HUE], False),
        ([FLOAT, NORMAL, ga.RandAugment()], True),
        ([ga.RandAugment(), FLOAT, NORMAL], False),
    ],
)
def test_values_outside_their_range_do_not_come_to_colours(steps, wrong):
    assert ("colour-outside-range" in names(steps)) == wrong


@pytest.mark.parametrize(
    ("automatic", "rule", "domain", "operation"),
    [
        (ga.RandAugment(2, 25), "tilted-character", "digits", "Rotate"),
        (ga.RandAugment(2, 9), "decoloured-label", "colour_coded", "Equalize"),
        (ga.TrivialAugmentWide(), "turned-character", "text", "Rotate"),
        (ga.AutoAugment("svhn"), "inverted-sign", "traffic_signs", "Invert"),
        (ga.AutoAugment("imagenet"), "tilted-body", "medical", "Rotate"),
        (ga.AugMix(severity=9), "tilted-character", "digits", "Rotate"),
        (ga.TimmRandAugment("rand-m9-mstd0.5-inc1"), "inverted-stain", "microscopy", "Invert"),
        (ga.TimmAutoAugment("original"), "tilted-character", "digits", "Rotate"),
    ],
)
def test_the_operations_of_automatic_policies_are_looked_at(automatic, rule, domain, operation):
    found = [f for f in ga.lint([automatic], domain) if f.rule == rule]
    assert [f.where for f in found if f.where.endswith(operation)] == [f"transforms[0] {operation}"]


def test_a_mild_automatic_policy_is_told_from_a_strong_one():
    assert "tilted-character" not in names([ga.RandAugment(2, 9)], "digits")
    assert "tilted-character" not in names([ga.TimmRandAugment("rand-m3")], "digits")


@pytest.mark.parametrize("name", ga.presets.NAMES)
def test_presets_are_right_wherever_images_come_from(name):
    assert not ga.lint(ga.presets.get(name, num_classes=10))
    assert not ga.lint(ga.presets.validation(name))


@pytest.mark.parametrize("domain", ["medical", "satellite", "digits", "fine_grained"])
def test_the_recipe_of_a_domain_is_clean_in_it(domain):
    assert not ga.lint(ga.presets.get(domain), domain)
    assert ga.lint(ga.presets.strength("strong"), domain), "vacuous"


@pytest.mark.parametrize("name", sorted(ga.REGISTRY))
def test_every_transform_is_seen_and_colours_are_known_as_such(name):
    t = ga.REGISTRY[name](**ga.REGISTRY[name].example)
    first = seen([t])[0]
    assert name in first.names and first.names - {name} <= EFFECTS.keys()
    if type(t).__module__ == "gpuaug.transforms.colour" and name != "RGB":
        assert first.names & set(COLOUR), f"lint_effects.py does not say what {name} does"


def test_errors_come_first_and_then_the_order_of_the_policy():
    found = ga.lint([ga.RandomRotation(20), V, CROP, H], "digits")
    levels = [f.level for f in found]
    assert levels == sorted(levels, key=LEVELS.index) and len(set(levels)) == 2
    errors = [f.where for f in found if f.level == "error"]
    assert errors == ["transforms[1]", "transforms[3]"]
    assert str(found[0]) == f"error: transforms[1] {V!r}: {found[0].reason} [upside-down-character]"


# ---- rules of a user

OWN = Rule(
    "no-gray", "warning", "RandomGrayscale", "we look at colours; leave it out", "ours", ("moths",), {"p": "> 0.1"}
)


def test_a_rule_of_a_user_counts_and_brings_its_domain():
    gray = ga.RandomGrayscale(0.2)
    assert [f.rule for f in ga.lint([gray], "moths", rules=[OWN])] == ["no-gray"]
    assert not ga.lint([ga.RandomGrayscale(0.1)], "moths", rules=[OWN])
    with pytest.raises(ValueError, match="domain must be one of natural"):
        ga.lint([gray], "moths")


def test_a_rule_of_a_user_takes_the_place_of_its_name_and_ignore_takes_one_away():
    mild = Rule(
        "mirrored-writing", "note", "horizontal_flip", "our digits have two sides; nothing to do", domains=("digits",)
    )
    assert [f.level for f in ga.lint([H], "digits", rules=[mild])] == ["note"]
    assert not ga.lint([H], "digits", ignore=["mirrored-writing"])


def test_a_function_may_say_where_a_rule_holds():
    rule = Rule("own", "error", "Mine", "it is too strong; lower it", where=lambda t: t.strength > 3)

    class Mine(ga.RandomInvert):
        strength = 5

    assert names([Mine()], rules=[rule]) == {"own"}
    Mine.strength = 2
    assert names([Mine()], rules=[rule]) == set()
    assert names([Mine()], "traffic_signs") == {"inverted-sign"}, "it is a RandomInvert all the same"


def test_rules_are_read_from_a_file(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text(
        "rules:\n- name: no-blur\n  level: note\n  transform: [blur, JPEG]\n  where: {sigma: ['> 1', '< 9']}\n"
        "  domains: [moths]\n  reason: it hides the wings\n- {name: seeded, level: error, transform: RandomErasing,"
        " where: {value: random}, reason: no noise here}\n"
    )
    rules = read_rules(path)
    assert names([ga.GaussianBlur(5)], "moths", rules=rules) == {"no-blur"}
    assert names([ga.GaussianBlur(5, 0.5)], "moths", rules=rules) == set()
    assert names([ga.RandomErasing(value="random")], rules=rules) == {"seeded"}
    assert names([ga.RandomErasing(value=0.0)], rules=rules) == set()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rules: 3", "must hold a list of rules"),
        ("- 3", "rule 0 .* must have name, level, transform and reason"),
        ("- {name: a, level: error, transform: b}", "must have name, level, transform and reason"),
        ("- {name: a, level: bad, transform: b, reason: c}", "level of rule 'a' must be one of error"),
        ("- {name: a, level: error, transform: b, reason: c, when: d}", "has no 'when'; known are"),
        ("- {name: a, level: error, transform: 3, reason: c}", "transform of rule 'a' must be names"),
        ("- {name: a, level: error, transform: [], reason: c}", "must name a transform or an effect"),
        ("- {name: a, level: error, transform: b, reason: c, where: 3}", "where of rule 'a' must be a mapping"),
        ("- {name: a, level: error, transform: b, reason: c, where: {p: '> x'}}", "must compare with a number"),
        ("- {name: a, level: error, transform: b, reason: c, where: {p: {}}}", "must be a condition such as"),
        ("a: [", "is no YAML"),
    ],
)
def test_a_bad_file_of_rules_is_refused(tmp_path, text, says):
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises((ValueError, TypeError), match=says):
        read_rules(path)
    with pytest.raises(FileNotFoundError, match="cannot be read"):
        read_rules(tmp_path / "none.yaml")


# ---- loaders

DATA = list(range(12))
WEIGHTED = WeightedRandomSampler([1.0] * 12, 12)


class Sharded:
    """As frameworks wrap a sampler for ranks, and shuffle what it gave."""

    def __init__(self, data_source: Any, shuffle: bool):
        self.data_source, self.shuffle = data_source, shuffle

    def __iter__(self) -> Any:
        return iter(self.data_source)


@pytest.mark.parametrize(
    ("loader", "wrong"),
    [
        ({"sampler": WEIGHTED, "shuffle": True}, True),
        ({"sampler": WEIGHTED, "shuffle": False}, False),
        ({"shuffle": True}, False),
        ({"weights": "balanced", "shuffle": True}, True),
        (DataLoader(DATA, sampler=WEIGHTED), False),
        (DataLoader(DATA, shuffle=True), False),
        (DataLoader(DATA, sampler=RandomSampler(WEIGHTED)), True),
        (DataLoader(DATA, sampler=Sharded(WEIGHTED, True)), True),
        (DataLoader(DATA, sampler=Sharded(WEIGHTED, False)), False),
        (DataLoader(DATA, sampler=ga.imbalance.WeightedSampler([0, 1] * 6)), False),
    ],
)
def test_a_weighted_sampler_is_not_shuffled(loader, wrong):
    found = ga.lint([H], loader=loader)
    assert [f.rule for f in found] == (["weighted-and-shuffled"] if wrong else [])
    assert not ga.lint([H], loader=loader, ignore=["weighted-and-shuffled"])


# ---- bad input


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ga.lint("policy.yaml"), "policy must be a gpuaug.Policy"),
        (lambda: ga.lint([3]), "policy must be a gpuaug.Policy"),
        (lambda: ga.lint([H], "digit"), "domain must be one of natural, text, digits"),
        (lambda: ga.lint([H], rules=[3]), "rules must be"),
        (lambda: ga.lint([H], rules=OWN), "rules must be a list"),
        (lambda: ga.lint([H], ignore=["no-such"]), "ignore must name rules"),
    ],
)
def test_bad_arguments_are_refused(call, says):
    with pytest.raises((ValueError, TypeError), match=says):
        call()


def test_one_transform_is_a_policy_too():
    assert all(isinstance(f, Finding) for f in ga.lint(H, "digits")) and ga.lint(H, "digits")
