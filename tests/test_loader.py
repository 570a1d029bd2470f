"""The loader: whatever the ranks, batches and threads, the same samples in the same order with the same pixels."""

import io
import tarfile
import threading
import time
from contextlib import suppress

import encoded
import loading
import numpy as np
import pytest
import torch
from loading import CLASSES, N, files, folder, left_behind, loader, policy, rows, samples, steps, whole

import gpuaug as ga
from gpuaug.data import decode

THERE = [name for name in decode.ORDER if not decode.missing(name)]


@pytest.fixture(autouse=True)
def _limit():
    with loading.within(100):
        yield


def test_an_epoch_has_every_sample_once_with_what_belongs_to_it():
    with loader(drop_last=False) as all_of_it:
        seen: set[int] = set()
        for batch in all_of_it:
            assert isinstance(batch, ga.Batch) and batch.epoch == 0
            assert batch.images.shape == (4, 3, 9, 9) and batch.images.dtype == torch.uint8
            assert batch.ids.dtype == batch.occurrence.dtype == torch.int64 and batch.valid.dtype == torch.bool
            assert (batch.labels == batch.ids % CLASSES).all() and batch.params is None
            seen |= set(batch.ids[batch.valid].tolist())
        assert seen == set(range(N)) and not batch.valid.all(), "vacuous: no batch was filled up"


def test_pixels_are_those_of_the_policy_called_with_the_whole_images():
    p = policy()
    decoded = decode.decoder("pillow").decode(files()).images
    for epoch, id, occurrence, pixels in whole(epoch=2):
        image = ga.Ragged([decoded[id]], "hwc")
        alone = p(image, ids=torch.tensor([id]), epoch=epoch, occurrence=torch.tensor([occurrence]))
        assert alone[0].contiguous().numpy().tobytes() == pixels


@pytest.mark.parametrize("world", range(1, 9))
@pytest.mark.parametrize("batch_size", [1, 8, pytest.param(3, marks=pytest.mark.slow)])
def test_ranks_and_batch_sizes_change_nothing(world, batch_size):
    ranks = [loader(batch_size=batch_size, drop_last=False, rank=r, world_size=world) for r in range(world)]
    assert steps(ranks) == list(whole())
    for each in ranks:
        each.close()


@pytest.mark.parametrize("batch_size", [1, pytest.param(64, marks=pytest.mark.slow)])
def test_a_world_of_sixty_four_goes_through_the_same_sequence(batch_size):
    ranks = [loader(batch_size=batch_size, drop_last=False, rank=r, world_size=64) for r in range(64)]
    assert steps(ranks) == list(whole())
    for each in ranks:
        each.close()


@pytest.mark.parametrize("name", THERE)
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_decoders_and_threads_change_nothing(name, threads):
    with loader(decoder=name, num_threads=threads, batch_size=16, drop_last=False, prefetch=threads) as one:
        assert rows(one) == list(whole())
        assert rows(one) == list(whole(epoch=1))


def test_a_policy_that_crops_has_windows_decoded_and_no_more():
    """And a source's whole images otherwise."""
    held, resize = [], ga.Resize((8, 8))
    for transforms in ([ga.CenterCrop(4)], [resize, ga.CenterCrop(4)], [resize]):
        with loader(its_policy=ga.Policy(transforms), batch_size=12, prefetch=1, shuffle=False) as one:
            feed = one.begin()[1]
            made = feed.first()
            feed.stop(5)
            assert made.params is not None
            held.append(made.bytes)
    pixels = sum(i.numel() for i in decode.decoder("pillow").decode(files()[:12]).images)
    assert held[0] == 12 * 4 * 4 * 3 and held[0] < held[1] < held[2] == pixels


def test_what_is_dropped_is_no_whole_step_of_all_ranks():
    for world, batch_size in ((1, 4), (2, 3), (5, 2)):
        ranks = [loader(batch_size=batch_size, rank=r, world_size=world) for r in range(world)]
        count = N // (world * batch_size)
        assert {len(each) for each in ranks} == {count}
        assert steps(ranks) == list(whole()[: count * world * batch_size])


def test_sources_of_one_data_set_give_the_same(tmp_path):
    root = folder(tmp_path / "data")
    listed = sorted(str(p) for p in root.rglob("*.jpg"))
    expected = [r[1:] for r in whole()]
    for source in (root, str(root), listed, [(p, 0) for p in listed], {f"{i:04d}": s for i, s in enumerate(samples())}):
        with loader(source, drop_last=False) as one:
            assert [r[1:] for r in rows(one)] == expected


def test_an_iteration_is_the_next_epoch_and_ends():
    with loader() as one:
        for epoch in range(3):
            batches = list(one)
            assert len(batches) == len(one) == N // 4
            assert {b.epoch for b in batches} == {epoch}
            assert rows(batches) == list(whole(epoch)[: len(one) * 4])
        one.set_epoch(7)
        assert {b.epoch for b in one} == {7}
        assert {b.epoch for b in one} == {8}
    assert whole(0) != whole(1)


def test_epochs_are_one_iteration_over_several():
    with loader(epochs=3) as several:
        assert len(several) == 3 * (N // 4)
        batches = list(several)
        assert [b.epoch for b in batches] == [e for e in range(3) for _ in range(N // 4)]
        assert rows(batches) == [r for e in range(3) for r in whole(e)[: N // 4 * 4]]
        assert {b.epoch for b in several} == {3, 4, 5}


def test_validation_is_in_order_and_the_same_every_time():
    plain = ga.Policy([ga.Resize((8, 8))])
    with loader(its_policy=plain, shuffle=False, drop_last=False) as one:
        first, second = rows(one), rows(one)
        assert [r[1] for r in first] == list(range(N))
        assert [r[1:] for r in first] == [r[1:] for r in second]


def test_without_a_policy_images_come_as_they_were_decoded():
    decoded = decode.decoder("pillow").decode(files()).images
    with loader(its_policy=None) as one:
        for batch in one:
            assert isinstance(batch.images, ga.Ragged)
            for image, id in zip(batch.images.images, batch.ids.tolist(), strict=True):
                assert torch.equal(image, decoded[id])
            assert (batch.labels == batch.ids % CLASSES).all()


def test_any_callable_that_takes_a_batch_is_a_policy():
    def halved(batch: ga.Batch) -> ga.Batch:
        return batch.replace(images=torch.stack([i[:4, :4].permute(2, 0, 1) // 2 for i in batch.images.images]))

    with loader(its_policy=halved) as one:
        batch = next(iter(one))
        assert batch.images.shape == (4, 3, 4, 4) and batch.ids is not None
    with loader(its_policy=lambda batch: batch.images) as wrong, pytest.raises(TypeError, match=r"Batch.*Ragged"):
        next(iter(wrong))


def test_weights_repeat_samples_and_each_copy_is_augmented_by_itself():
    class Labelled(list):
        targets = [int(i < 4) for i in range(N)]

    with loader(Labelled(samples()), weights="balanced") as one:
        seen = rows(one)
    few = [r for r in seen if r[1] < 4]
    assert len(few) >= 16, "vacuous"
    assert len({r[1:3] for r in seen}) == len(seen), "a draw comes twice"
    by_id = {}
    for r in few:
        by_id.setdefault(r[1], []).append(r[3])
    assert all(len(set(copies)) > 1 for copies in by_id.values() if len(copies) > 2)


def test_shards_are_read_by_their_order_in_any_world(tmp_path):
    for s in range(5):
        with tarfile.open(tmp_path / f"part-{s}.tar", "w") as tar:
            for i, (data, label) in list(enumerate(samples()))[s * 8 : s * 8 + 8]:
                for name, content in ((f"{i:04d}.jpg", data), (f"{i:04d}.cls", str(label).encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    source, by_id = f"{tmp_path}/part-{{0..4}}.tar", {r[1]: r[3] for r in whole()}
    with loader(source, order="shards", drop_last=False, batch_size=1) as one:
        expected = rows(one)
    assert sorted(r[1] for r in expected) == list(range(N)) and [r[1] for r in expected] != list(range(N))
    assert all(by_id[id] == pixels for _, id, _, pixels in expected)
    for world in (2, 3):
        ranks = [
            loader(source, order="shards", drop_last=False, rank=r, world_size=world, batch_size=2)
            for r in range(world)
        ]
        assert sorted(steps(ranks)) == sorted(expected)
    with loader(source, order="shards") as one:
        it = iter(one)
        seen = rows([next(it), next(it)])
        state = one.state_dict()
    with loader(source, order="shards", drop_last=False, batch_size=3) as again:
        again.load_state_dict(state)
        assert seen + rows(again) == expected


def test_named_classes_are_weighted_by_name(tmp_path):
    weights = {"class_0": 1.0, "class_1": 1.0, "class_2": 1.0, "class_3": 5.0}
    with loader(folder(tmp_path), weights=weights) as one:
        labels = torch.cat([b.labels for b in one])
    assert (labels == 3).sum() > len(labels) // 2
    with pytest.raises(ValueError, match="class_9"):
        loader(folder(tmp_path), weights={"class_9": 1.0})
    for wrong, words in (
        ({"class_0": 1.0}, r"none for class 1 \(class_1\)"),
        ({**weights, "class_2": 0.0}, r"weight of class 2 \(class_2\) is 0"),
        ({**weights, 3: 1.0}, "class 'class_3' twice, as 3 too"),
    ):
        with pytest.raises(ValueError, match=words):
            loader(folder(tmp_path), weights=wrong)


def test_targets_come_as_the_source_has_them():
    data = files()
    for target, expected in (
        (lambda i: i % 5, lambda b: torch.equal(b.labels, b.ids % 5)),
        (lambda i: float(i), lambda b: torch.equal(b.labels, b.ids.float())),
        (lambda i: np.eye(N, dtype=np.float32)[i], lambda b: torch.equal(b.labels.argmax(1), b.ids)),
        (lambda i: f"caption {i}", lambda b: b.labels == [f"caption {i}" for i in b.ids.tolist()]),
    ):
        with loader([(d, target(i)) for i, d in enumerate(data)]) as one:
            assert all(expected(b) for b in one)
    named = [(d, {"labels": i % 5}) for i, d in enumerate(data)]
    with loader(named) as one:
        assert all(torch.equal(b.labels, b.ids % 5) for b in one)
    boxes = [(d, {"where": torch.tensor([[0.0, 0.0, i, i]])}) for i, d in enumerate(data)]
    with loader(boxes, its_policy=None) as one:
        for b in one:
            assert [int(t["where"][0, 2]) for t in b.labels] == b.ids.tolist()
    with loader(boxes) as one, pytest.raises((TypeError, ValueError), match="labels"):
        next(iter(one))


def test_a_target_transform_is_called_with_every_target():
    with loader(target_transform=lambda t: 10 * t) as one:
        for batch in one:
            assert torch.equal(batch.labels, batch.ids % CLASSES * 10)


def test_mixes_get_their_labels():
    mixing = ga.Policy([ga.Resize((8, 8)), ga.ToDtype(torch.float32, scale=True), ga.CutMix(num_classes=CLASSES)])
    with loader(its_policy=mixing) as one:
        batch = next(iter(one))
    assert batch.labels.shape == (4, CLASSES) and torch.allclose(batch.labels.sum(1), torch.ones(4))


def test_stats_say_what_was_done_and_where_the_time_went(tmp_path):
    with loader(folder(tmp_path), batch_size=8) as one:
        assert one.stats()["images"] == 0 and one.stats()["bottleneck"] == "nothing yet"
        for _ in one:
            pass
        stats = one.stats()
    assert stats["images"] == 32 and stats["batches"] == 4 and stats["images_per_second"] > 0
    assert stats["bytes_read"] >= sum(map(len, files())) * 0.8 and stats["bad_files"] == 0
    assert stats["bottleneck"] in ("reading", "decoding", "augmenting", "the loop")
    assert set(stats["queues"]) == {"read", "decoded", "prefetch"}


@pytest.mark.parametrize("left", ["break", "an exception", "a second iter", "close", "closed loader"])
def test_the_time_after_an_iteration_was_left_is_not_counted(left):
    pause, one = 0.3, loader()
    batches = iter(one)
    next(batches), next(batches)
    if left == "break":
        del batches
    elif left == "an exception":
        with suppress(KeyError):
            for _ in batches:
                raise KeyError(left)
        del batches
    elif left == "close":
        batches.close()
    elif left == "closed loader":
        one.close()
    before = one.stats()
    time.sleep(pause)
    if left != "closed loader":
        # the first iteration may still be held: what it does from here on is not the second's
        running = iter(one)
        next(running)
        batches = None
        next(running)
    after = one.stats()
    one.close()
    assert one.stats()["seconds"] == after["seconds"] > 0, "closed, it goes on counting"
    assert after["images"] - before["images"] == (0 if left == "closed loader" else 2 * one.batch_size)
    assert after["seconds"] - before["seconds"] < pause
    assert after["seconds"] * after["busy"]["loop"] < pause


def test_the_bottleneck_is_the_stage_that_is_slow():
    class Slow(list):
        def __getitem__(self, i):
            time.sleep(0.01)
            return super().__getitem__(i)

    def slow_policy(batch):
        time.sleep(0.05)
        return batch

    with loader(Slow(samples())) as one:
        list(one)
        # the first pass records a recipe, which counts as decoding
        one.meter.reset()
        list(one)
        assert one.stats()["bottleneck"] == "reading"
    with loader(its_policy=slow_policy) as one:
        list(one)
        assert one.stats()["bottleneck"] == "augmenting"
    with loader() as one:
        list(one)
        one.meter.reset()
        for _ in one:
            time.sleep(0.1)
        assert one.stats()["bottleneck"] == "the loop"


def test_no_more_batches_are_ahead_than_prefetch_says():
    with loader(prefetch=2, batch_size=1) as one:
        batches = iter(one)
        next(batches)
        until = time.monotonic() + 5
        while one.stats()["queues"]["decoded"] < 2 and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.1)
        stats = one.stats()
        assert stats["queues"]["decoded"] + stats["queues"]["read"] <= 3
        assert stats["queues"]["decoded"] >= 2 and stats["memory_held"] > 0


def test_describe_says_what_runs():
    with loader(rank=1, world_size=3) as one:
        text = one.describe()
    assert "37 samples" in text and "Pillow" in text and "order=samples" in text and "rank 1" in text and "cpu" in text
    with loader(decoder="auto") as one:
        assert "not pillow" in one.describe()


def test_nothing_shows_a_framework_how_to_build_another_loader():
    with loader() as one:
        for name in ("batch_sampler", "dataset", "sampler", "collate_fn"):
            assert not hasattr(one, name)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"epochs": 0}, "epochs"),
        ({"prefetch": 0}, "prefetch"),
        ({"num_threads": 0}, "num_threads"),
        ({"on_error": "ignore"}, "on_error"),
        ({"workers": "fork"}, "workers"),
        ({"device": "tpu"}, "device"),
        ({"device": "cuda:99"}, "device"),
        ({"decoder": "opencv"}, "decoder"),
        ({"order": "shards"}, "shards"),
        ({"order": "random"}, "order"),
        ({"rank": 3, "world_size": 2}, "rank"),
        ({"rank": 1}, "world_size"),
        ({"max_pixels": 0}, "max_pixels"),
        ({"its_policy": 3}, "policy"),
        ({"target_transform": 3}, "target_transform"),
        ({"weights": "balanced", "shuffle": False}, "shuffle"),
        ({"weights": "balanced"}, "weights"),
        ({"seed": -1}, "seed"),
        ({"source": []}, "empty"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_by_name(options, what):
    before = set(threading.enumerate())
    with pytest.raises((ValueError, TypeError), match=what):
        loader(**options)
    assert not left_behind(before)


def test_an_epoch_without_a_whole_step_is_refused_in_words():
    with loader(batch_size=64) as one, pytest.raises(ValueError, match="drop_last=False"):
        next(iter(one))


def test_a_line_of_progress_is_shown_where_it_is_asked_for(capsys):
    with loader(progress=True, batch_size=9) as one:
        list(one)
    shown = capsys.readouterr()
    assert "epoch 0" in shown.err and "4/4" in shown.err and "images/s" in shown.err and not shown.out
    with loader(progress=True, rank=1, world_size=2) as one:
        list(one)
    with loader() as one:
        list(one)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_python_takes_little_of_a_batch(tmp_path):
    """The processor's time of the threads that Python runs, with images so small that there is little else."""
    tiny = [encoded.encode(encoded.photograph(16 + i % 3, 16)) for i in range(4)]
    for i in range(2048):
        place = tmp_path / f"c{i % 4}" / f"{i:05d}.jpg"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(tiny[i % 4])

    def spent() -> float:
        return sum(time.clock_gettime(time.pthread_getcpuclockid(t.ident)) for t in threading.enumerate())

    with loader(tmp_path, batch_size=256, decoder="dali", epochs=5) as one:
        it = iter(one)
        for _ in range(8):
            next(it)
        best = float("inf")
        for _ in range(6):
            before = spent()
            for _ in range(4):
                next(it)
            best = min(best, (spent() - before) / 4)
    # a third of it are calls of the system and of native code
    assert best < 0.016, f"{best * 1e3:.1f} ms for a batch of 256"
