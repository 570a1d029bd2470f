"""The callbacks that keep a loader's state in other people's checkpoints: what they find, save, load and refuse."""

import importlib
import json
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from loading import loader, rows, whole

import gpuaug as ga

with warnings.catch_warnings():
    # torchmetrics, Lightning and transformers use what others deprecate, each release something else
    warnings.simplefilter("ignore")
    from accelerate import skip_first_batches

    from gpuaug.data import huggingface, lightning


def trainer(global_step=0, accumulation=1, skip=True, saved=None):
    """What a callback sees of a Trainer: its arguments and its state."""
    args = SimpleNamespace(gradient_accumulation_steps=accumulation, ignore_data_skip=skip)
    stored = {} if saved is None else {"LoaderCallback": saved}
    return args, SimpleNamespace(global_step=global_step, stateful_callbacks=stored), None


def test_the_trainers_callback_saves_what_was_delivered_and_loads_it():
    with ga.data.Mapped(loader(), huggingface.inputs) as one:
        callback = huggingface.LoaderCallback()
        assert "loader" not in callback.state(), "before there is a loader"
        callback.on_train_begin(*trainer(), train_dataloader=one)
        it = iter(one)
        next(it), next(it)
        saved = json.loads(json.dumps(callback.state()))
        assert saved["loader"] == one.state_dict() and saved["loader"]["consumed"] == 8
    for stored in (saved, [{"args": {}}, saved]):
        with loader() as again:
            callback = huggingface.LoaderCallback(**saved["args"])
            callback.on_train_begin(
                *trainer(2, saved=stored), train_dataloader=ga.data.Mapped(again, huggingface.inputs)
            )
            assert rows(again) == list(whole()[8:36])


def test_a_trainer_that_begins_anew_begins_with_the_first_epoch():
    with loader() as one:
        list(one)
        huggingface.LoaderCallback().on_train_begin(
            *trainer(), train_dataloader=ga.data.Mapped(one, huggingface.inputs)
        )
        assert rows(one) == list(whole()[:36])


def test_the_trainer_is_told_to_skip_nothing():
    args, state, control = trainer(skip=False)
    huggingface.LoaderCallback().on_init_end(args, state, control)
    assert args.ignore_data_skip is True


def test_what_the_trainers_callback_cannot_do_is_said():
    callback, strict = huggingface.LoaderCallback(strict=False), huggingface.LoaderCallback()
    with ga.data.Mapped(loader(), huggingface.inputs) as one:
        state = one.state_dict()
        plain = torch.utils.data.DataLoader([1, 2])
        for wrong in (plain, one.loader, None):
            with pytest.raises(TypeError, match="get_train_dataloader"):
                strict.on_train_begin(*trainer(), train_dataloader=wrong)
        with pytest.raises(ValueError, match="ignore_data_skip=True"):
            strict.on_train_begin(*trainer(2, skip=False, saved={"loader": state}), train_dataloader=one)
        for none in (None, {"args": {}}):
            with pytest.raises(ValueError, match="no state of a loader"):
                strict.on_train_begin(*trainer(2, saved=none), train_dataloader=one)
            callback.on_train_begin(*trainer(2, saved=none), train_dataloader=one)
        other = {"loader": {**state, "policy": "another"}}
        with pytest.raises(ValueError, match="policy was"):
            strict.on_train_begin(*trainer(2, saved=other), train_dataloader=one)
        callback.on_train_begin(*trainer(2, saved=other), train_dataloader=one)
        with pytest.warns(UserWarning, match="does not divide the 9 batches"):
            strict.on_train_begin(*trainer(accumulation=2), train_dataloader=one)


def test_a_model_gets_pixel_values_and_labels_and_ignores_what_is_not_valid():
    with loader(batch_size=40, drop_last=False) as one:
        (batch,) = list(one)
    given = huggingface.inputs(batch)
    assert given.keys() == {"pixel_values", "labels"} and given["pixel_values"] is batch.images
    assert given["labels"][37:].tolist() == [-100] * 3 and torch.equal(given["labels"][:37], batch.labels[:37])
    soft = torch.ones(40, 3)
    assert huggingface.inputs(batch.replace(labels=soft))["labels"] is soft
    assert huggingface.inputs(batch.replace(labels=None)).keys() == {"pixel_values"}
    with pytest.raises(TypeError, match="fixes the size"):
        huggingface.inputs(batch.replace(images=ga.Ragged([batch.images[0]])))


def test_batches_are_never_skipped_behind_the_loaders_back():
    """Accelerate would make a plain DataLoader of a data set and a sampler; it finds neither."""
    with loader() as one:
        for each in (one, ga.data.Mapped(one, huggingface.inputs)):
            with pytest.raises(AttributeError, match="dataset"):
                skip_first_batches(each, 2)


def test_lightnings_callback_is_the_loaders_state():
    with loader() as one:
        callback = lightning.LoaderCallback(one)
        it = iter(one)
        next(it)
        state = callback.state_dict()
        assert state == one.state_dict()
    with loader() as again:
        lightning.LoaderCallback(again).load_state_dict(state)
        assert rows(again) == list(whole()[4:36])
        other = {**state, "policy": "another"}
        with pytest.raises(ValueError, match="policy was"):
            lightning.LoaderCallback(again).load_state_dict(other)
        lightning.LoaderCallback(again, strict=False).load_state_dict(other)
    with pytest.raises(TypeError, match="has no state"):
        lightning.LoaderCallback(torch.utils.data.DataLoader([1, 2]))


@pytest.mark.parametrize(
    ("name", "lacking"), [("huggingface", "transformers.trainer_callback"), ("lightning", "lightning.pytorch")]
)
def test_what_is_not_installed_is_named_with_its_extra(name, lacking, monkeypatch):
    monkeypatch.setitem(sys.modules, lacking, None)
    monkeypatch.delitem(sys.modules, f"gpuaug.data.{name}")
    with pytest.raises(ImportError, match=r"gpuaug\[integrations\]"):
        importlib.import_module(f"gpuaug.data.{name}")
