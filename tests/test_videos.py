"""Videos: a clip is what its draw makes of every frame."""

from typing import Any

import pytest
import torch
from build import build, case, cases, spec
from torchvision import tv_tensors

import gpuaug as ga

BACKENDS = ("reference", "cpu", "triton")
N, T = 3, 4
IDS = torch.arange(N) + 11


def clips(size: tuple[int, int] = (12, 13), channels: int = 3, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    x = torch.randint(0, 256, (N, T, channels, *size), generator=torch.Generator().manual_seed(2))
    return x.to(dtype) if dtype == torch.uint8 else (x / 255).to(dtype)


def frames(policy: ga.Policy, x: torch.Tensor, **options: Any) -> list[Any]:
    return [policy(x[:, t], **{k: v[t] if isinstance(v, list) else v for k, v in options.items()}) for t in range(T)]


EVERY = [p for p in cases() if p.values[1] == 0]


@pytest.mark.parametrize(("name", "i"), EVERY)
def test_a_clip_is_its_draw_applied_to_every_frame(name, i):
    policy = ga.Policy([build(name, case(name, i))], seed=5)
    x = clips(spec(name).image, dtype=torch.float32)
    labels = torch.arange(N) if spec(name).mixes else None
    out = policy(x, labels, ids=IDS)
    want = frames(policy, x, labels=labels, ids=IDS)
    if labels is not None:
        assert torch.equal(out[1], want[0][1])
        out, want = out[0], [w for w, _ in want]
    assert out.shape[:2] == (N, T) and torch.equal(out, torch.stack(want, 1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_all_executors_give_the_frames_of_a_clip_one_draw(dtype, backend):
    policy = ga.Policy([ga.RandomResizedCrop(7), ga.RandomHorizontalFlip(), ga.ColorJitter(0.4), ga.GaussianNoise()])
    x = clips(dtype=dtype)
    out = policy(x, ids=IDS, backend=backend)
    assert torch.equal(out, torch.stack(frames(policy, x, ids=IDS, backend=backend), 1))
    still = policy(x[:, :1].expand(-1, T, -1, -1, -1), ids=IDS, backend=backend)
    assert torch.equal(still, still[:, :1].expand_as(still))


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_frame_draws_on_request(backend):
    policy = ga.Policy([ga.RandomCrop(7), ga.GaussianNoise()])
    x = clips()
    out = policy(x, ids=IDS, occurrence=torch.full((N,), 2), backend=backend, per_frame=True)
    want = frames(policy, x, ids=IDS, occurrence=[torch.full((N,), 2 * T + t) for t in range(T)], backend=backend)
    assert torch.equal(out, torch.stack(want, 1))


def test_targets_of_a_clip_follow_frame_by_frame():
    policy = ga.Policy([ga.RandomCrop(8), ga.RandomHorizontalFlip(), ga.RandomRotation(20)], seed=1)
    boxes = torch.rand(N, T, 2, 4).sort(-1).values * 12
    keypoints, masks = torch.rand(N, T, 5, 2) * 12, torch.randint(0, 9, (N, T, 2, 12, 13))
    batch = ga.Batch(clips(), torch.arange(N), IDS, masks=masks, boxes=boxes, box_format="XYXY", keypoints=keypoints)
    out = policy(batch)
    assert torch.equal(out.labels, torch.arange(N)) and torch.equal(out.ids, IDS)
    for t in range(T):
        one = batch.replace(images=batch.images[:, t], masks=masks[:, t], boxes=boxes[:, t], keypoints=keypoints[:, t])
        want = policy(one)
        for name in ("images", "masks", "boxes", "box_valid", "keypoints", "visible"):
            assert torch.equal(getattr(out, name)[:, t], getattr(want, name)), name
    flat = policy(batch.replace(masks=masks[:, :, 0]))
    assert torch.equal(flat.masks, out.masks[:, :, 0])


def test_a_mix_mixes_clips_frame_by_frame_with_one_partner():
    policy = ga.Policy([ga.RandomCrop(8), ga.CutMix(num_classes=5), ga.MixUp(num_classes=5)], seed=3)
    x, labels = clips(dtype=torch.float32), torch.arange(N)
    valid = torch.tensor([True, True, False])
    out = policy(ga.Batch(x, labels, IDS, valid=valid))
    for t in range(T):
        want = policy(ga.Batch(x[:, t], labels, IDS, valid=valid))
        assert torch.equal(out.images[:, t], want.images) and torch.equal(out.labels, want.labels)
    with pytest.raises(
        ValueError, match="per_frame=True would give the frames of a clip labels of their own by CutMix"
    ):
        policy(x, labels, per_frame=True)


def test_clips_without_ids_are_numbered_as_samples():
    policy = ga.Policy([ga.RandomCrop(7)])
    first = policy(ga.Batch(clips()))
    assert first.ids.tolist() == [0, 1, 2] and int(policy.next_id) == N and len(first) == N
    assert torch.equal(policy(clips()), ga.Policy([ga.RandomCrop(7)])(clips(), ids=torch.arange(N) + N))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
        lambda x: x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3),
        lambda x: x.numpy(),
        tv_tensors.Video,
    ],
)
def test_clips_may_lie_as_they_like(change):
    policy = ga.Policy([ga.RandomCrop(7), ga.RandomHorizontalFlip()])
    assert torch.equal(policy(change(clips()), ids=IDS), policy(clips(), ids=IDS))


def test_a_video_of_torchvision_is_one_clip():
    policy = ga.Policy([ga.RandomCrop(7), ga.GaussianNoise()])
    one = policy(tv_tensors.Video(clips()[0]), ids=[int(IDS[0])])
    assert torch.equal(one, policy(clips(), ids=IDS)[0])
    plain = policy(clips()[0], ids=torch.arange(T))
    assert plain.shape == one.shape and not torch.equal(plain, one)
    out, label = policy(tv_tensors.Video(clips()[0]), torch.tensor(3), ids=[4])
    assert out.shape == (T, 3, 7, 7) and int(label) == 3


def test_replay_and_undo_take_videos():
    policy = ga.Policy([ga.RandomCrop(8), ga.RandomHorizontalFlip(), ga.GaussianNoise()], seed=2)
    x = clips()
    params = policy.draw(IDS, size=(12, 13))
    out = policy(x, ids=IDS)
    assert torch.equal(policy.replay(x, params), out)
    again = policy.replay(ga.Batch(x, masks=x[:, :, 0]), params)
    assert torch.equal(again.images, out)
    assert torch.equal(again.masks, policy(ga.Batch(x, ids=IDS, masks=x[:, :, 0])).masks)
    moved = policy.replay(x, params, like="image")
    assert torch.equal(moved[:, 1], policy.replay(x[:, 1], params, like="image"))
    back, seen = policy.undo(moved, params)
    assert back.shape == x.shape and seen.shape == (N, T, 12, 13) and seen.any()
    assert torch.equal(back.movedim(2, -1)[seen], x.movedim(2, -1)[seen])
    mixing = ga.Policy([ga.CutMix(num_classes=4)], seed=2)
    mixed, soft = mixing(x, torch.arange(N), ids=IDS)
    again, same = mixing.replay(x, mixing.draw(IDS, size=(12, 13)), torch.arange(N))
    assert torch.equal(again, mixed) and torch.equal(same, soft)


def test_views_and_compiled_functions_take_videos():
    policy = ga.Policy([ga.RandomCrop(7), ga.GaussianNoise()])
    for v, view in enumerate(policy.views(clips(), n=2, ids=IDS)):
        assert torch.equal(view, policy(clips(), ids=IDS, occurrence=torch.full((N,), v)))
    five = ga.Policy([ga.FiveCrop(7)])(clips())
    assert len(five) == 5 and torch.equal(five[0], clips()[..., :7, :7])
    compiled = torch.compile(lambda x: policy(x, ids=IDS) + 1, backend="eager")
    assert torch.equal(compiled(clips()), policy(clips(), ids=IDS) + 1)
    assert policy.warmup((2, T, 3, 12, 13)) is policy


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: p(clips()[:, :0]), "at least one frame"),
        (lambda p: p(ga.Batch(clips(), masks=clips()[:, 0, 0])), r"masks of videos must have a row for each frame"),
        (lambda p: p(ga.Batch(clips(), boxes=[torch.zeros(1, 4)] * N, box_format="XYXY")), "boxes of videos must be a"),
        (lambda p: p(clips()[:, 0], per_frame=True), "per_frame=True is for videos"),
        (lambda p: p(clips(), ids=torch.arange(N * T)), r"ids must have shape \[3\]"),
        (lambda p: p(clips().movedim(2, -1)), "looks like channels"),
        (lambda p: p(clips(), occurrence=torch.full((N,), 4095), per_frame=True), "occurrence must be in"),
    ],
)
def test_bad_videos_are_refused_in_words(call, words):
    with pytest.raises((TypeError, ValueError), match=words):
        call(ga.Policy([ga.RandomCrop(7)]))


def test_no_videos_give_none():
    out = ga.Policy([ga.RandomCrop(7)])(clips()[:0])
    assert out.shape == (0, T, 3, 7, 7)
