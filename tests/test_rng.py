"""Ring 1: the bits.  Known answers, the same words everywhere, and a key every part of which matters."""

import itertools

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from oracles import philox as philox_in_numpy
from scipy import stats

from gpuaug import rng
from gpuaug.rng import MIX, PARAMETERS, PIXELS, SAMPLER, Block, Draw, Keys, Layout, host

N = 40_000
# Random123's kat_vectors: philox4x32-10
ZEROS = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
ONES = [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def keys(n: int = N, seed: int = 11, epoch: int = 0, first: int = 0, occurrence: int = 0) -> Keys:
    return Keys(seed, epoch, torch.arange(first, first + n), torch.full((n,), occurrence))


def draw(n: int = N, slot: int = 0, **key: int) -> Draw:
    return Draw(keys(n, **key), slot)


def random_counters(n: int) -> list[torch.Tensor]:
    g = np.random.default_rng(2)
    return [torch.from_numpy(g.integers(0, 2**32, n)) for _ in range(4)]


# ---- the definition


def test_torch_gives_the_known_answers_of_random123():
    zero, ones = torch.zeros(1, dtype=torch.int64), torch.full((1,), 0xFFFFFFFF)
    assert [int(w) for w in rng.philox(0, zero, zero, zero, zero)] == ZEROS
    assert [int(w) for w in rng.philox(2**64 - 1, ones, ones, ones, ones)] == ONES


def test_the_tests_own_philox_gives_the_known_answers_too():
    assert [int(w) for w in philox_in_numpy(0, 0, 0, 0, 0)] == ZEROS
    assert [int(w) for w in philox_in_numpy(2**64 - 1, *[0xFFFFFFFF] * 4)] == ONES


@pytest.mark.parametrize("seed", [0, 1, 0x123456789ABCDEF, 2**64 - 1])
def test_torch_is_the_numpy_of_the_tests_on_random_counters(seed):
    c = random_counters(4096)
    want = philox_in_numpy(seed, *(x.numpy() for x in c))
    for got, w in zip(rng.philox(seed, *c), want, strict=True):
        assert torch.equal(got, torch.from_numpy(w.astype(np.int64)))


@pytest.mark.parametrize("seed", [0, 0x123456789ABCDEF, 2**64 - 1])
def test_numba_gives_the_bits_of_torch(seed):
    g = np.random.default_rng(3)
    c0, c1 = g.integers(0, 2**32, 33, np.uint32), g.integers(0, 2**16, 33, np.uint32) | np.uint32(1 << 28)
    occurrence = g.integers(0, 2**12, 57, np.uint32)
    c2, c3 = g.integers(0, 2**32, 57, np.uint32), g.integers(0, 2**32, 57, np.uint32)
    got = torch.from_numpy(host.table(seed, c0, c1, occurrence, c2, c3))
    t0, t1, to, t2, t3 = (torch.from_numpy(x.astype(np.int64)) for x in (c0, c1, occurrence, c2, c3))
    want = torch.stack(rng.philox(seed, t0[None], t1[None] | (to << 16)[:, None], t2[:, None], t3[:, None]), -1)
    assert got.shape == (57, 33, 4)
    assert torch.equal(got, want)


@triton.jit
def _philox(out, c0, c1, c2, c3, seed, N: tl.constexpr):
    i = tl.arange(0, N)
    a, b, c, d = tl.philox(
        seed,
        tl.load(c0 + i).to(tl.uint32),
        tl.load(c1 + i).to(tl.uint32),
        tl.load(c2 + i).to(tl.uint32),
        tl.load(c3 + i).to(tl.uint32),
    )
    tl.store(out + i, a.to(tl.int64) & 0xFFFFFFFF)
    tl.store(out + N + i, b.to(tl.int64) & 0xFFFFFFFF)
    tl.store(out + 2 * N + i, c.to(tl.int64) & 0xFFFFFFFF)
    tl.store(out + 3 * N + i, d.to(tl.int64) & 0xFFFFFFFF)


@pytest.mark.parametrize("seed", [5, 0x123456789ABCDEF, 2**63 + 12345])
def test_triton_gives_the_bits_of_torch(seed):
    c = random_counters(256)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    out = torch.zeros(4, 256, dtype=torch.int64, device=device)
    _philox[(1,)](out, *(x.to(device) for x in c), seed, N=256)
    assert torch.equal(out.cpu(), torch.stack(rng.philox(seed, *c)))


# ---- the counter


def test_the_counter_is_laid_out_as_documented():
    """c0 draw number, c1 domain | occurrence | slot, c2 id mod 2^32, c3 (id >> 32) << 18 | epoch."""
    id_, epoch, occurrence, slot, seed = 2**45 + 2**33 + 17, 2**17 + 3, 2**11 + 5, 2**15 + 9, 2**63 + 1
    k = Keys(seed, epoch, torch.tensor([id_]), torch.tensor([occurrence]))
    for domain in (PARAMETERS, PIXELS, SAMPLER, MIX):
        got = k.words(domain, torch.arange(5), torch.full((5,), slot))[0]
        c1 = (domain << 28) | (occurrence << 16) | slot
        want = philox_in_numpy(seed, np.arange(5), c1, id_ % 2**32, ((id_ >> 32) << 18) | epoch)
        assert torch.equal(got, torch.from_numpy(np.stack(want, -1).astype(np.int64))), domain
    assert [PARAMETERS, PIXELS, SAMPLER, MIX] == [0, 1, 2, 3]


def test_words_of_a_host_are_those_of_the_definition():
    """On the CPU Numba makes them; a device takes the other branch of Keys.words."""
    k = Keys(9, 5, torch.tensor([3, 2**40 + 1, 2**46 - 1]), torch.tensor([0, 7, 4095]))
    c0, slot = torch.arange(6), torch.tensor([0, 1, 2, 3, 65535, 0])
    c2, c3 = k.counter()
    c1 = (k.occurrence << 16)[:, None] | slot | (PIXELS << 28)
    want = torch.stack(rng.philox(9, c0, c1, c2[:, None], c3[:, None]), -1)
    assert torch.equal(k.words(PIXELS, c0, slot), want)


PARTS = {
    "seed": lambda v: draw(1, seed=v),
    "the upper half of the seed": lambda v: draw(1, seed=v << 32),
    "epoch": lambda v: draw(1, epoch=v),
    "the lower half of the id": lambda v: draw(1, first=v),
    "the upper half of the id": lambda v: draw(1, first=v << 32),
    "occurrence": lambda v: draw(1, occurrence=v),
    "slot": lambda v: draw(1, slot=v),
    "domain": lambda v: Draw(keys(1), 0, domain=v % 16),
}


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_the_key_changes_the_words(part):
    values = range(16) if part == "domain" else range(64)
    seen = {tuple(PARTS[part](v).words(4)[0].tolist()) for v in values}
    assert len(seen) == len(values)


def test_every_draw_number_gives_other_words():
    assert len({int(w) for w in draw(1).words(400)[0]}) == 400
    d = draw(1)
    assert len({tuple(d.words(4)[0].tolist()) for _ in range(100)}) == 100


def test_parts_of_the_key_do_not_leak_into_each_other():
    """2^32 of an id, an epoch and an occurrence are different bits of the counter."""
    corners = [
        {"first": a, "epoch": b, "occurrence": c, "slot": d}
        for a, b, c, d in itertools.product((0, 1, 2**32, 2**45), (0, 1, 2**17), (0, 1, 2**11), (0, 1, 2**15))
    ]
    assert len({tuple(draw(1, **c).words(4)[0].tolist()) for c in corners}) == len(corners)


def test_a_samples_words_do_not_depend_on_its_batch():
    whole = draw(100).words(9)
    for i in (0, 41, 99):
        assert torch.equal(draw(1, first=i).words(9)[0], whole[i])
    assert torch.equal(Draw(keys(100).take(torch.tensor([7, 3])), 0).words(9), whole[[7, 3]])


def test_words_drawn_ahead_in_a_block_are_those_drawn_one_by_one():
    k = keys(50)
    layout = Layout({(PARAMETERS, 0): 3, (PARAMETERS, 4): 1, (MIX, 4): 1})
    block = layout.block(k)
    for slot, domain, count in (
        (0, PARAMETERS, 12),
        (4, PARAMETERS, 4),
        (4, MIX, 4),
        (4, PARAMETERS, 30),
        (9, PARAMETERS, 5),
    ):
        assert torch.equal(Draw(k, slot, block, domain).words(count), Draw(k, slot, Block(k), domain).words(count)), (
            slot,
            domain,
            count,
        )


def test_pixels_are_numbered_row_by_row_and_four_channels_share_a_counter():
    k = keys(2)
    for channels, blocks in ((1, 1), (3, 1), (4, 1), (5, 2), (9, 3)):
        got = k.pixels(6, 3, 7, channels)
        assert got.shape == (2, 3, 7, blocks, 4)
        numbers = torch.arange(3 * 7 * blocks)
        assert torch.equal(got.reshape(2, -1, 4), k.words(PIXELS, numbers, torch.full_like(numbers, 6)))


def test_an_epoch_in_a_tensor_is_the_same_epoch():
    a, b = (Keys(3, e, torch.arange(5), torch.zeros(5, dtype=torch.int64)) for e in (9, torch.tensor(9)))
    assert torch.equal(Draw(a, 0).words(8), Draw(b, 0).words(8))


# ---- distributions


def fits(values: torch.Tensor, law: str, *args: float) -> None:
    # SciPy 1.18 takes no arguments beside the name of the normal distribution
    p = stats.kstest(values.numpy(), getattr(stats, law)(*args).cdf).pvalue
    assert p > 1e-3, f"p = {p:.2g} that these are {law}{args}"


def even(counts: np.ndarray, expected: np.ndarray | None = None) -> None:
    p = stats.chisquare(counts, expected).pvalue
    assert p > 1e-3, f"p = {p:.2g} that counts are even"


def test_uniform_fills_the_half_open_interval():
    fits(draw().uniform(), "uniform")
    fits(draw(slot=1).uniform(-3.0, 5.0), "uniform", -3.0, 8.0)
    many = draw(slot=2).uniform(count=7)
    assert many.shape == (N, 7) and many.dtype == torch.float64
    for column in many.T:
        fits(column, "uniform")
    assert np.abs(np.corrcoef(many.T.numpy()) - np.eye(7)).max() < 4.5 / N**0.5
    assert 0 <= many.min() and many.max() < 1


def test_uniform_lies_on_the_documented_grid():
    w = draw(100).words(1)[:, 0]
    assert torch.equal(draw(100).uniform(), (w // 256).double() / 2**24)


def test_neighbouring_ids_epochs_and_slots_are_uncorrelated():
    u = [
        draw(slot=s, epoch=e, first=f, seed=k, occurrence=o).uniform()
        for s, e, f, k, o in (
            (0, 0, 0, 1, 0),
            (1, 0, 0, 1, 0),
            (0, 1, 0, 1, 0),
            (0, 0, 1, 1, 0),
            (0, 0, 0, 2, 0),
            (0, 0, 0, 1, 1),
        )
    ]
    r = np.corrcoef(torch.stack(u).numpy())
    assert np.abs(r - np.eye(len(u))).max() < 4.5 / N**0.5


@pytest.mark.parametrize(("low", "high"), [(0, 2), (0, 7), (-5, 8), (3, 103)])
def test_integers_are_uniform(low, high):
    values = draw().integer(low, high)
    assert values.dtype == torch.int64
    counts = torch.bincount(values - low, minlength=high - low).numpy()
    assert len(counts) == high - low
    even(counts)


def test_bounds_of_integers_may_differ_by_sample():
    high = torch.arange(N) % 5 + 1
    values = draw().integer(0, high)
    assert ((values >= 0) & (values < high)).all()
    for h in range(2, 6):
        even(torch.bincount(values[high == h], minlength=h).numpy())


@pytest.mark.parametrize("p", [0.0, 0.05, 0.5, 1.0])
def test_a_coin_falls_as_often_as_its_probability_says(p):
    heads = draw().coin(p).sum().item()
    assert abs(heads - p * N) <= 4 * (N * p * (1 - p)) ** 0.5


def test_normal_is_normal():
    fits(draw().normal(), "norm")
    fits(draw(slot=1).normal(2.0, 3.0), "norm", 2.0, 3.0)


def test_both_normals_of_a_pair_are_normal_and_uncorrelated():
    w = draw(slot=5).words(2)
    a, b = rng.gauss(w[:, 0], w[:, 1])
    fits(a, "norm")
    fits(b, "norm")
    assert abs(np.corrcoef(a, b)[0, 1]) < 4.5 / N**0.5
    assert abs(np.corrcoef(a**2, b**2)[0, 1]) < 4.5 / N**0.5


def test_normal_is_finite_at_the_ends_of_its_words():
    ends = torch.tensor([0, 0xFFFFFFFF])
    for z in rng.gauss(ends, ends):
        assert z.isfinite().all() and z.abs().max() < 6


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 4.0, 37.0])
def test_beta_is_beta(alpha):
    values = draw().beta(alpha)
    low = values < 0.5
    assert abs(low.double().mean().item() - 0.5) < 4.5 * 0.5 / N**0.5
    fits(torch.from_numpy(2 * stats.beta.cdf(values[low].numpy(), alpha, alpha)), "uniform")
    # the upper half mirrors it, but float64 ends 2^-53 below 1, where a small alpha has per cents of its mass
    assert stats.ks_2samp(values[low].clamp(min=1e-12), (1 - values[~low]).clamp(min=1e-12)).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [1e-6, 1e-3, 0.1, 1.0, 1e4])
def test_beta_stays_inside_the_open_interval(alpha):
    values = draw(20_000).beta(alpha)
    assert values.isfinite().all() and values.min() > 0 and values.max() < 1
    assert abs(values.mean().item() - 0.5) < 4.5 * 0.5 / 20_000**0.5


@pytest.mark.parametrize("k", [2, 3, 4])
def test_every_permutation_is_as_likely(k):
    values = draw().permutation(k)
    assert torch.equal(values.sort(1).values, torch.arange(k).expand(N, -1))
    orders = {p: i for i, p in enumerate(itertools.permutations(range(k)))}
    counts = np.bincount([orders[tuple(v)] for v in values.tolist()], minlength=len(orders))
    even(counts)


def test_choice_keeps_its_weights():
    even(torch.bincount(draw().choice(6), minlength=6).numpy())
    weights = (1.0, 0.0, 5.0, 2.0)
    counts = torch.bincount(draw(slot=1).choice(weights), minlength=4).numpy()
    assert counts[1] == 0
    even(counts[[0, 2, 3]], np.array([1, 5, 2]) / 8 * N)


def test_draws_of_no_samples_are_empty():
    d = draw(0)
    assert (
        d.uniform().shape == (0,)
        and d.permutation(4).shape == (0, 4)
        and d.beta(1.0).shape == (0,)
        and d.choice((1.0, 2.0)).shape == (0,)
    )
