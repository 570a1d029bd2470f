"""What users do in good faith and cannot have is said in words: files, labels, values that cannot be set, transforms of
their own."""

import io
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from build import build
from PIL import Image
from specs import SPECS

import gpuaug as ga
from gpuaug import functional as F
from gpuaug import ir, serial

X = torch.zeros(4, 3, 20, 30)
IDS = torch.arange(4)
INVERT = ga.Policy([ga.RandomInvert()])


def said(call: Any, *words: str, kind: Any = (ValueError, TypeError)) -> str:
    """The message of what a call raises, which holds these words and is a sentence."""
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    for w in words:
        assert w in text, f"{text!r} does not say {w!r}"
    assert len(text) < 1200 and "\n" not in text and "Errno" not in text, text
    return text


def loaded(tmp_path: Path, text: str | bytes, **given: Any) -> ga.Policy:
    path = tmp_path / "p.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return ga.Policy.load(path, **given)


# ---- files


@pytest.mark.parametrize(
    ("text", "better"),
    [
        ("1e-3", "1.0e-3"),
        ("1E-3", "1.0e-3"),
        ("2.5e3", "2.5e+3"),
        ("-1e3", "-1.0e+3"),
        (".5e1", ".5e+1"),
        ("1.e-1", "1.e-1"),
        ("+3e+2", "+3.0e+2"),
    ],
)
def test_a_number_that_yaml_takes_for_text_is_answered_with_one_that_it_reads(text, better, tmp_path):
    for where in (
        f"{{name: RandomInvert, p: {text}}}",
        f"{{name: RandomErasing, scale: [{text}, 0.3]}}",
        f"{{name: ToDtype, dtype: {text}}}",
    ):
        if isinstance(yaml.safe_load(text), float):
            continue
        said(lambda w=where: loaded(tmp_path, f"transforms: [{w}]"), repr(text), f"write {better}", "YAML")
    assert yaml.safe_load(better) == float(text)


def test_options_that_yaml_takes_for_text_are_answered_too(tmp_path):
    said(lambda: loaded(tmp_path, "seed: 1e3\ntransforms: []"), "seed", "'1e3'", "1.0e+3")
    said(lambda: loaded(tmp_path, "single_resample: 1e3\ntransforms: []"), "single_resample", "1.0e+3")


def test_numbers_with_exponents_that_yaml_reads_are_read(tmp_path):
    assert loaded(tmp_path, "transforms: [{name: RandomInvert, p: 1.0e-3}]") == ga.Policy([ga.RandomInvert(0.001)])
    tiny = ga.Policy([ga.SaltAndPepper(1e-12)])
    tiny.save(tmp_path / "q.yaml")
    assert ga.Policy.load(tmp_path / "q.yaml") == tiny


LAUGHS = "a: &a [1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{n}: &{n} [{', '.join([f'*{o}'] * 8)}]\n" for o, n in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("transforms: &a [*a]", "alias"),
        ("transforms: [&a {name: RandomApply, transforms: [*a]}]", "alias"),
        ("&a {transforms: [], seed: *a}", "alias"),
        (LAUGHS + "transforms: *i", "aliases"),
        ("transforms: " + "[" * 3000 + "]" * 3000, "deep"),
        ("transforms: [{name: RandomInvert, p: 0.1, p: 0.2}]", "'p' stands twice"),
        ("seed: 1\nseed: 2\ntransforms: []", "'seed' stands twice in the mapping of line 1"),
        ("transforms: [{name: RandomInvert, p: 2001-99-99}]", "month"),
        ("transforms: [", "line 1"),
        ("transforms: [{? [a] : 1}]", "line 1"),
        (b"\xff\xfet\x00", "byte 0 is not UTF-8"),
        (b"transforms: [] # caf\xe9", "byte 20 is not UTF-8"),
        (b"\x00\x01\x02", "policy"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_a_file_that_is_no_policy_is_refused_in_a_sentence_and_at_once(text, word, tmp_path):
    said(lambda: loaded(tmp_path, text), word, kind=ValueError)


def test_aliases_that_end_and_a_byte_order_mark_are_read(tmp_path):
    text = "transforms: [{name: Normalize, mean: &m [0.5, 0.5, 0.5], std: *m}]"
    assert (
        loaded(tmp_path, text)
        == loaded(tmp_path, b"\xef\xbb\xbf" + text.encode())
        == ga.Policy([ga.Normalize((0.5,) * 3, (0.5,) * 3)])
    )


def test_plain_data_that_holds_itself_is_refused():
    data: dict[str, Any] = {"transforms": []}
    data["transforms"].append({"name": "RandomApply", "transforms": data["transforms"]})
    said(lambda: ga.Policy.from_dict(data), "alias")
    wide: Any = [0]
    for _ in range(40):
        wide = [wide, wide]
    said(lambda: ga.Policy.from_dict({"transforms": wide}), "values")


def test_a_path_that_holds_no_file_is_said(tmp_path):
    said(
        lambda: ga.Policy.load(tmp_path / "nope.yaml"), "nope.yaml is not there", "Policy.save", kind=FileNotFoundError
    )
    said(lambda: ga.Policy.load(tmp_path), "is a folder", kind=IsADirectoryError)
    said(lambda: ga.Policy.load(tmp_path / "a" / "b.yaml"), "b.yaml is not there", kind=FileNotFoundError)


# ---- transforms of a user


@dataclass(frozen=True)
class RandomGain(ga.Transform):
    """Multiply by a factor in [1 - v, 1 + v]."""

    v: float = 0.1
    kernel: Any = None
    half: float = field(init=False, default=0.5)

    def sample(self, draw, frame):
        return {"gain": draw.uniform(1 - self.v, 1 + self.v, count=frame.channels).float()}

    def lower(self, params, frame, slot):
        return (ir.Affine(params["gain"], torch.zeros_like(params["gain"])),)


def namesake(base: type, name: str) -> type:
    return dataclass(frozen=True)(type(name, (base,), {"__module__": __name__}))


def test_a_policy_of_own_transforms_is_loaded_where_they_are_named(tmp_path):
    policy = ga.Policy([ga.RandomApply([RandomGain(0.3, (1, "a", torch.float16))], 0.5), RandomGain()], seed=9)
    policy.save(tmp_path / "p.yaml")
    for again in (
        ga.Policy.load(tmp_path / "p.yaml", transforms=[RandomGain]),
        ga.Policy.from_dict(policy.to_dict(), transforms=(RandomGain,)),
    ):
        assert again == policy and torch.equal(again(X + 0.5, ids=IDS), policy(X + 0.5, ids=IDS))


def test_a_file_imports_nothing_and_says_so(tmp_path):
    ga.Policy([RandomGain()]).save(tmp_path / "p.yaml")
    said(
        lambda: ga.Policy.load(tmp_path / "p.yaml"),
        "unknown transform 'RandomGain'",
        "Nothing is imported for a file",
        "transforms=[RandomGain]",
    )
    (tmp_path / "spy_of_a_file.py").write_text("raise SystemExit('imported')")
    for name in ("spy_of_a_file.Gain", "!!python/name:spy_of_a_file.Gain", "os.system"):
        said(lambda n=name: loaded(tmp_path, f"transforms: [{{name: {n}}}]"))
    assert "spy_of_a_file" not in sys.modules


@pytest.mark.parametrize("name", sorted(ga.REGISTRY))
def test_a_transform_with_a_name_of_the_librarys_is_neither_written_nor_read_as_that(name):
    mine = namesake(RandomGain, name)
    said(lambda: ga.Policy([mine()]).to_dict(), name, "another name")
    said(
        lambda: (
            ga.Policy.from_dict({"transforms": []}, transforms=[mine])
            and ga.Policy.from_dict({"transforms": [{"name": name}]}, transforms=[mine])
        ),
        name,
    )


def test_two_own_transforms_of_one_name_are_refused():
    data = ga.Policy([RandomGain()]).to_dict()
    said(
        lambda: ga.Policy.from_dict(data, transforms=[RandomGain, namesake(ga.RandomInvert, "RandomGain")]),
        "two transforms",
        "RandomGain",
    )
    assert ga.Policy.from_dict(data, transforms=[RandomGain, RandomGain, ga.RandomInvert]) == ga.Policy([RandomGain()])


@pytest.mark.parametrize(
    "bad", [[RandomGain()], [int], ["RandomGain"], "RandomGain", RandomGain, [ga.Transform], None], ids=str
)
def test_what_names_no_own_transform_is_refused(bad):
    said(lambda: ga.Policy.from_dict(ga.Policy([RandomGain()]).to_dict(), transforms=bad), "transforms", "got")


@pytest.mark.parametrize(
    "value",
    [torch.ones(2), np.ones(2), {"a": 1}, lambda x: x, Path("x"), (1, {2}), b"x"],
    ids=lambda v: type(v).__name__,
)
def test_what_a_file_cannot_hold_is_refused_by_name_when_it_is_written(value, tmp_path):
    said(lambda: ga.Policy([RandomGain(kernel=value)]).save(tmp_path / "p.yaml"), "RandomGain.kernel", "got")
    assert not (tmp_path / "p.yaml").exists()


def test_a_transform_without_fields_is_refused_when_it_is_written():
    class Plain(ga.Transform):
        def lower(self, params, frame, slot):
            return ()

    said(lambda: ga.Policy([Plain()]).to_dict(), "Plain is no dataclass", "@dataclass(frozen=True)")


@pytest.mark.parametrize("name", sorted(SPECS))
def test_what_is_written_of_the_librarys_transforms_is_read_again(name):
    for args in SPECS[name].arguments:
        t = build(name, args)
        assert serial.from_dict(serial.from_yaml(serial.to_yaml(serial.to_dict(t)))) == t


# ---- labels and ids


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("cat", ("'cat'", "number the names")),
        (["cat", "dog", "cat", "cow"], ("'cat'", "number the names")),
        (np.array(["cat", "dog", "cat", "cow"]), ("'cat'", "number the names")),
        ([1, None, 2, 3], ("'None'", "leave the argument out")),
        ([None] * 4, ("'None'", "leave the argument out")),
        ([[1, 2], [3], [4], [5]], ("rows of one length",)),
        ([[0.5, 0.5], [1.0], 3, 4], ("rows of one length",)),
        ([1, 2, "3", 4], ("number the names",)),
        ({"a": 1}, ("dict",)),
        ({1, 2, 3, 4}, ("set",)),
        ([b"a"] * 4, ("labels must be numbers",)),
        ([1j, 2, 3, 4], ("labels must be numbers",)),
        (np.array(["2020-01-01"] * 4, dtype="datetime64[D]"), ("labels must be numbers",)),
    ],
    ids=str,
)
def test_labels_that_are_no_numbers_are_refused_in_words(labels, words):
    for policy in (INVERT, ga.Policy([ga.CutMix(num_classes=6)])):
        for call in (lambda p=policy: p(X, labels), lambda p=policy: p(ga.Batch(X, labels=labels))):
            said(call, "labels", *words)
    params = INVERT.draw(IDS, size=(20, 30))
    said(lambda: INVERT.replay(X, params, labels), "labels", *words)


@pytest.mark.parametrize("value", ["a", ["a"] * 4, [None] * 4, [[1], [2, 3], [4], [5]]], ids=str)
def test_rows_of_functional_forms_that_are_no_numbers_are_refused_in_words(value):
    said(lambda: F.mixup(X, value, torch.ones(4)), "partner")
    said(lambda: F.mixup(X, IDS, value), "lam")
    said(lambda: F.erase(X, value), "boxes")
    said(lambda: F.cutmix(X, IDS, value), "boxes")


@pytest.mark.parametrize("values", [[0, 1, 2, -1], [0, 1, 2, 2**46], torch.tensor([0, 1, 2, 2**62])], ids=str)
def test_ids_out_of_range_are_answered_with_what_to_do(values):
    for call in (
        lambda: INVERT(X, ids=values),
        lambda: INVERT.draw(values, size=(8, 8)),
        lambda: F.salt_and_pepper(X, 0.1, seed=0, ids=values),
    ):
        said(call, "ids must be in [0, 70368744177664)", "ids % 2**46")
    said(lambda: INVERT(X, ids=IDS, occurrence=[0, 0, 0, 4096]), "occurrence must be in [0, 4096)", "ids")


@pytest.mark.parametrize("path", ["a.jpg", Path("a.jpg"), b"\xff\xd8\xff\xe0", io.BytesIO(b"x")], ids=str)
def test_a_file_that_was_not_opened_is_no_image(path):
    for call in (
        lambda: INVERT(path),
        lambda: INVERT([path]),
        lambda: INVERT([Image.new("RGB", (3, 4)), path]),
        lambda: INVERT(ga.Batch([path])),
    ):
        text = said(call, "got", type(path).__name__)
        assert isinstance(path, io.BytesIO) or "PIL.Image.open(" in text


# ---- values


@pytest.mark.parametrize("value", [128, 255, 1.5, 254.9, np.float32(128), np.uint8(128)], ids=str)
def test_a_threshold_of_bytes_is_told_to_divide(value):
    text = said(lambda: ga.RandomSolarize(value), "threshold must be in [0, 1]", "divide by 255")
    told = eval(re.search(r"RandomSolarize\(.*?\)", text)[0], {"RandomSolarize": ga.RandomSolarize})
    assert told.threshold == pytest.approx(float(value) / 255)


@pytest.mark.parametrize("value", [-1, 256, float("nan"), "128"])
def test_a_threshold_that_is_of_no_range_is_not_told_to_divide(value):
    assert "255" not in said(lambda: ga.RandomSolarize(value), "threshold")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("transforms", [ga.RandomInvert()]),
        ("transforms", ()),
        ("seed", 5),
        ("memory_format", torch.channels_last),
        ("single_resample", True),
    ],
)
def test_a_policy_is_a_value_that_cannot_be_set(name, value):
    policy = ga.Policy([ga.RandomHorizontalFlip(0.5)])
    before = repr(policy), policy(X, ids=IDS)
    said(lambda: setattr(policy, name, value), name, "make a new Policy", kind=AttributeError)
    assert repr(policy) == before[0] and torch.equal(policy(X, ids=IDS), before[1])


def test_what_else_a_module_holds_can_be_set():
    policy = ga.Policy([ga.RandomInvert()])
    policy.next_id = torch.tensor(5)
    policy.note = "mine"
    policy(X)
    assert int(policy.next_id) == 9 and policy.to("cpu").note == "mine"


def test_eval_changes_nothing_and_the_docstring_says_so():
    policy = ga.Policy([ga.RandomInvert(1.0)])
    assert torch.equal(policy.eval()(X, ids=IDS), 1 - X) and torch.equal(policy.train()(X, ids=IDS), 1 - X)
    assert "`eval()` changes nothing" in ga.Policy.__doc__
