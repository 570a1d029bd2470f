"""Samples without an image: each way to deal with them does what it says, with every decoder, and the loader lives on."""

import threading
from functools import cache

import encoded
import loading
import numpy as np
import pytest
import torch
from loading import CLASSES, N, files, folder, left_behind, loader, policy, rows, samples, whole

import gpuaug as ga
from gpuaug.data import BadImage, decode
from gpuaug.data.course import CHAIN

THERE = [name for name in decode.ORDER if not decode.missing(name)]
EACH = pytest.mark.parametrize("name", THERE)
BAD = (0, 5, 6, 20, 36)


@pytest.fixture(autouse=True)
def _limit():
    with loading.within(150):
        yield


def damaged(bad=BAD) -> list[tuple[bytes, int]]:
    """The small data set, of which some can't be decoded, each in another way."""
    out = samples()
    ways = list(encoded.unreadable().values())
    for k, i in enumerate(bad):
        out[i] = (ways[k * 5 % len(ways)], out[i][1])
    return out


@cache
def one_by_one(name: str = "pillow") -> decode.Decoder:
    return decode.decoder(name, num_threads=1)


@EACH
def test_raise_names_every_bad_sample_of_the_batch_and_stays_there(name):
    with loader(damaged(), shuffle=False, batch_size=8, decoder=name) as one:
        it = iter(one)
        for _ in range(2):
            with pytest.raises(BadImage) as error:
                next(it)
            assert [f.id for f in error.value.files] == [0, 5, 6]
            assert all(f"sample {i} ({i})" in str(error.value) for i in (0, 5, 6)) and "on_error=" in str(error.value)
            assert isinstance(error.value, ValueError)
        assert one.state_dict()["consumed"] == 0, "a batch that nobody has was counted"
        assert [f.id for f in one.bad_files] == [0, 5, 6] and one.stats()["bad_files"] == 3
        assert all(f.reason and f.path == str(f.id) for f in one.bad_files)


def test_the_name_of_a_file_is_its_path(tmp_path):
    root = folder(tmp_path)
    (root / "class_0" / "0003.jpg").write_bytes(b"")
    (root / "class_1" / "0011.jpg").unlink()
    paths = [f"class_{i // 10}/{i:04d}.jpg" for i in range(N) if i != 11]
    listed = [(str(root / p), 0) for p in paths[:11]] + [(str(root / "class_1" / "0011.jpg"), 0)]
    with loader(listed, shuffle=False, batch_size=12) as one, pytest.raises(BadImage) as error:
        next(iter(one))
    text = str(error.value)
    assert "class_0/0003.jpg" in text and "the file is empty" in text
    assert "class_1/0011.jpg" in text and "no such file" in text


@EACH
def test_skip_leaves_the_place_invalid_and_all_others_as_they_are(name):
    expected = {r[:3]: r for r in whole()}
    with loader(damaged(), batch_size=5, drop_last=False, on_error="skip", decoder=name) as one:
        seen, invalid = [], []
        for batch in one:
            assert batch.images.shape[0] == len(batch.valid) == 5
            seen += rows([batch])
            invalid += batch.ids[~batch.valid].tolist()
        assert set(BAD) <= set(invalid) and sorted(f.id for f in one.bad_files) == list(BAD)
        assert [expected[r[:3]] for r in seen] == seen and len(seen) == N - len(BAD)
        # again, and what was bad is counted once
        assert len(rows(one)) == N - len(BAD) and one.stats()["bad_files"] == len(BAD)


@EACH
def test_a_batch_of_nothing_but_bad_files_is_one_of_invalid_places(name):
    bad = [(data, 1) for data in list(encoded.unreadable().values())[:8]]
    with loader(bad, batch_size=4, on_error="skip", decoder=name) as one:
        batches = list(one)
    assert len(batches) == 2 and not any(b.valid.any() for b in batches) and len(one.bad_files) == 8


@EACH
def test_substitutes_are_others_of_the_epoch_with_draws_of_their_own(name):
    with loader(damaged(), batch_size=5, on_error="substitute", decoder=name, drop_last=False) as one:
        batches = list(one)
        assert sorted(f.id for f in one.bad_files) == list(BAD)
    got, expected = rows(batches), list(whole())
    replaced = [(a, b) for a, b in zip(got, expected, strict=True) if a != b]
    assert len(replaced) == len(BAD) and {b[1] for _, b in replaced} == set(BAD)
    decoded, p = one_by_one().decode(files()).images, policy()
    for (epoch, id, occurrence, pixels), _ in replaced:
        assert id not in BAD and occurrence > 0
        alone = p(
            ga.Ragged([decoded[id]], "hwc"), ids=torch.tensor([id]), epoch=epoch, occurrence=torch.tensor([occurrence])
        )
        assert alone[0].contiguous().numpy().tobytes() == pixels, "not augmented as its occurrence says"
    assert len({r[1:3] for r in got}) == N, "a substitute is augmented as another copy is"
    for batch in batches:
        assert torch.equal(batch.labels, batch.ids % CLASSES), "the label of another"


def test_substitutes_are_the_same_in_every_run_world_and_batch_size():
    seen = []
    for world, batch_size in ((1, 1), (1, 16), (3, 4), (8, 2)):
        ranks = [
            loader(damaged(), batch_size=batch_size, drop_last=False, on_error="substitute", rank=r, world_size=world)
            for r in range(world)
        ]
        seen.append(loading.steps(ranks))
    assert all(s == seen[0] for s in seen)
    with loader(damaged(), on_error="substitute", drop_last=False) as one:
        it = iter(one)
        next(it)
        state = one.state_dict()
    with loader(damaged(), on_error="substitute", drop_last=False, batch_size=3) as again:
        again.load_state_dict(state)
        assert rows(again) == seen[0][4:]


def test_substitutes_of_two_epochs_and_seeds_differ():
    few = [(d, 0) for d in files(40)]
    few[7] = (b"", 0)

    def instead(epoch: int, seed: int) -> tuple[int, int]:
        with loader(few, on_error="substitute", batch_size=1, seed=seed, shuffle=True) as one:
            one.set_epoch(epoch)
            return next((id, o) for _, id, o, _ in rows(one) if o)

    assert len({instead(e, s) for e in range(3) for s in range(2)}) >= 5


def test_a_chain_of_bad_substitutes_is_followed_and_bounded():
    bad = tuple(i for i in range(N) if i % 4)
    with loader(damaged(bad), batch_size=8, on_error="substitute", drop_last=False) as one:
        seen = rows(one)
        assert len(seen) == N and all(id % 4 == 0 for _, id, _, _ in seen)
    none = [(b"", 0)] * N
    with loader(none, on_error="substitute") as one, pytest.raises(BadImage, match=f"{CHAIN} substitutes"):
        next(iter(one))


@EACH
@pytest.mark.parametrize("on_error", ["skip", "substitute"])
def test_two_hundred_fuzzed_files_are_dealt_with(name, on_error):
    fuzzed = [(data, k) for k, data in enumerate(encoded.fuzzed(200))]
    # damage inside a scan is no error to every decoder
    alone = {k for k, (data, _) in enumerate(fuzzed) if one_by_one(name).decode([data]).bad}
    before = set(threading.enumerate())
    with loader(fuzzed, batch_size=32, on_error=on_error, drop_last=False, decoder=name, num_threads=2) as one:
        batches = list(one)
        found = {f.id for f in one.bad_files}
    valid = torch.cat([b.valid for b in batches]).sum()
    assert found == alone, "which files are bad depends on the loader"
    assert 20 < len(found) < 190, "vacuous"
    assert valid == (200 - len(found) if on_error == "skip" else 200)
    assert not left_behind(before)


def test_every_odd_file_comes_as_the_decoders_read_it():
    odd = encoded.readable()
    expected = one_by_one().decode(list(odd.values())).images
    for name in THERE:
        with loader(
            [(d, 0) for d in odd.values()], None, batch_size=8, shuffle=False, drop_last=False, decoder=name
        ) as one:
            for batch in one:
                for image, id in zip(batch.images.images, batch.ids.tolist(), strict=True):
                    assert torch.equal(image, expected[id]), (name, list(odd)[id])


@EACH
def test_a_huge_header_is_a_bad_file(name):
    data = [*samples()[:7], (encoded.claiming(65000, 65000), 0)]
    with loader(data, batch_size=8, on_error="skip", decoder=name) as one:
        batch = next(iter(one))
        assert batch.ids[~batch.valid].tolist() == [7] and "max_pixels" in one.bad_files[0].reason
    with loader(data, batch_size=8, on_error="skip", max_pixels=100, decoder=name) as one:
        assert not next(iter(one)).valid.any()


def test_an_invalid_sample_weighs_nothing_in_a_mix():
    mixing = ga.Policy([ga.Resize((8, 8)), ga.ToDtype(torch.float32, scale=True), ga.CutMix(num_classes=CLASSES)])
    with loader(damaged(), mixing, batch_size=N, on_error="skip", shuffle=False) as one:
        batch = next(iter(one))
    weight = batch.labels.sum(1)
    assert (weight[~batch.valid] == 0).all() and torch.allclose(weight[batch.valid], torch.ones(N - len(BAD)))


def test_padding_is_invalid_and_one_that_is_bad_is_no_other():
    with loader(damaged((0,)), batch_size=20, drop_last=False, shuffle=False, on_error="skip") as one:
        _, last = list(one)
    assert last.ids.tolist() == [*range(20, N), 0, 1, 2] and last.valid.tolist() == [True] * 17 + [False] * 3


def test_bad_samples_of_a_data_set_of_ones_own():
    class Failing:
        def __len__(self):
            return N

        def __getitem__(self, i):
            if i in BAD:
                raise KeyError(f"row {i}")
            return samples()[i]

    with loader(Failing(), on_error="skip", batch_size=N, shuffle=False) as one:
        batch = next(iter(one))
    assert batch.ids[~batch.valid].tolist() == list(BAD) and "row 0" in one.bad_files[0].reason
    assert torch.equal(batch.labels[batch.valid], (batch.ids % CLASSES)[batch.valid])
    with loader(Failing(), on_error="substitute", batch_size=N, shuffle=False) as one:
        batch = next(iter(one))
    assert torch.equal(batch.labels, batch.ids % CLASSES) and batch.valid.all()
    assert np.array_equal(np.flatnonzero(batch.occurrence.numpy()), BAD)


@pytest.mark.parametrize("on_error", ["skip", "raise", "substitute"])
@pytest.mark.parametrize("side", [300, 700])
def test_a_batch_without_an_image_has_a_size_that_the_policy_takes(side, on_error):
    large = encoded.encode(encoded.photograph(side + 20, side + 10), "JPEG")
    data = [(b"", 1), (b"no image", 2), (large, 3), (large, 0)]
    with loader(data, ga.Policy([ga.RandomCrop(side)]), 2, shuffle=False, on_error=on_error, epochs=1) as one:
        if on_error == "raise":
            with pytest.raises(BadImage, match="2 samples have no image"):
                next(iter(one))
            return
        first, second = one
    assert first.images.shape == second.images.shape == (2, 3, side, side)
    assert first.valid.tolist() == [on_error == "substitute"] * 2 and second.valid.all() and second.images.any()
    assert first.images.any() == (on_error == "substitute")


def test_statistics_count_images_and_no_padding():
    with loader(damaged(), batch_size=8, drop_last=False, on_error="skip", shuffle=False) as one:
        seen = sum(int(b.valid.sum()) for b in one)
        assert one.stats()["images"] == seen == N - len(BAD)
