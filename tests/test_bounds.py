"""What executors index with is looked at on a host, whoever made it: parameters that were edited, and passes of a
user's transform."""

from dataclasses import dataclass, replace

import pytest
import torch

import gpuaug as ga
from gpuaug import functional, ir
from gpuaug.dtypes import NATIVE as DTYPES

BACKENDS = ("reference", "cpu", "triton")
N = 4
IDS = torch.tensor([3, 1, 4, 15])
X = torch.randint(0, 256, (N, 3, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

# (transform, parameter, what a person may write there)
EDITS = [
    (ga.CutMix(num_classes=3), "partner", -1),
    (ga.CutMix(num_classes=3), "partner", N),
    (ga.CutMix(num_classes=3), "partner", 2**40),
    (ga.RandomChoice([ga.RandomInvert(1.0), ga.Pad(0)]), "index", 2),
    (ga.RandomChoice([ga.RandomInvert(1.0), ga.Pad(0)]), "index", -1),
    (ga.RandomOrder([ga.RandomInvert(1.0), ga.Pad(0)]), "order", 7),
    (ga.RandomResizedCrop((8, 8)), "left", 9),
    (ga.RandomResizedCrop((8, 8)), "top", -13),
    (ga.RandomResizedCrop((8, 8)), "height", 10**6),
    (ga.RandomResizedCrop((8, 8)), "width", 0),
    (ga.RandomCrop((8, 8)), "left", 3),
    (ga.RandomCrop((8, 8)), "top", -1),
    (ga.ColorJitter(0.2, 0.2), "fn_idx", 4),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("transform", "name", "value"), EDITS, ids=lambda v: v if isinstance(v, str | int) else type(v).__name__
)
def test_a_replay_with_an_edited_index_is_refused_by_every_executor(transform, name, value, backend):
    policy = ga.Policy([transform], seed=1)
    params = policy.draw(IDS, size=(12, 10))
    policy.replay(X, params, backend=backend)
    params[0][name][2] = value
    with pytest.raises(ValueError, match="must be"):
        policy.replay(X, params, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_replay_inside_the_bounds_is_not_refused(backend):
    """Edits that a person has reason to make, up to the last that is legal."""
    policy = ga.Policy(
        [ga.RandomResizedCrop((8, 8)), ga.RandomCrop((8, 8), padding=3), ga.RandomRot90(), ga.CutMix(num_classes=3)],
        seed=1,
    )
    params = policy.draw(IDS, size=(12, 10))
    params[0]["left"][:], params[0]["top"][:], params[0]["width"][:], params[0]["height"][:] = 0, 0, 10, 12
    params[1]["top"][:], params[1]["left"][:] = 6, 0
    params[2]["apply"][:], params[2]["k"][:] = True, 5
    params[3]["partner"][:], params[3]["box"][:] = N - 1, torch.tensor([-3, -3, 40, 4])
    image, labels = policy.replay(X, params, torch.tensor([0, 1, 2, 2]), backend=backend)
    # three quarters of an image that is all but gone: the box counts where it meets the image
    assert torch.allclose(labels[0], torch.tensor([0.5, 0.0, 0.5])) and image.shape == (N, 3, 8, 8)
    assert torch.equal(image[:, :, :4], image[3:, :, :4].expand(N, -1, -1, -1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wrong", [-1, N, -(2**40), 2**40])
def test_functional_mixes_refuse_a_partner_that_is_not_there(dtype, wrong):
    images = X.to(dtype)
    partner = torch.tensor([0, wrong, 2, 3])
    with pytest.raises(ValueError, match="partner must be a row of this batch"):
        functional.mixup(images, partner, torch.full((N,), 0.5))
    with pytest.raises(ValueError, match="partner must be a row of this batch"):
        functional.cutmix(images, partner, torch.zeros(N, 4, dtype=torch.int64))


@dataclass(frozen=True)
class WithAnother(ga.Transform):
    """A user's mix: half of sample `row`, whoever is in the batch; a window and bits of the user's too."""

    row: int = 0
    shift: int = 0
    bits: int = 8

    def lower(self, params, frame, slot):
        partner = torch.full_like(frame.size[:, 0], self.row)
        box = frame.whole() + self.shift
        ones = ir.rows((1.0, 1.0), frame.size, torch.float64)
        eye = torch.eye(3, dtype=torch.float64).expand(len(frame.size), 3, 3)
        still = ir.Resample(eye, ones, box, frame.whole(), frame.whole(), frame.size, frame.fixed, integer_shift=True)
        return (
            still,
            ir.Posterize(torch.full_like(partner, self.bits)),
            ir.MixUp(partner, torch.full((len(frame.size),), 0.5)),
        )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wrong", [{"row": N}, {"row": -1}, {"shift": 1}, {"shift": -1}, {"bits": 9}, {"bits": -1}])
def test_a_transform_of_a_user_that_reads_beyond_its_batch_is_refused(wrong, backend):
    policy = ga.Policy([replace(WithAnother(), **wrong)])
    # the third call runs by what the second has traced
    for _ in range(3):
        with pytest.raises(ValueError, match="must be"):
            policy(X, ids=IDS, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_fits_a_large_batch_is_looked_at_again_in_a_small_one(backend):
    policy = ga.Policy([WithAnother(row=3)])
    for _ in range(3):
        assert policy(X, ids=IDS, backend=backend).shape == X.shape
    if backend != "triton":
        with pytest.raises(ValueError, match="row of this batch"):
            policy(X[:2], ids=IDS[:2], backend=backend)
    else:
        # the kernel reads nothing beyond the batch: who has no partner there is its own
        alone = ga.Policy([ga.RandomPosterize(8, p=1.0)])(X[:2], ids=IDS[:2], backend=backend)
        got = policy(X[:2], ids=IDS[:2], backend=backend)
        # between two launches a value has 16 bits, and one at the edge of a level may go to the next
        assert (got.int() - alone.int()).abs().max() <= 1
