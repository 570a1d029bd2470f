"""On a card, decoders read every file, find every bad one, and give the same bits again while the card is busy and
memory changes hands.

Pixels are not those of the CPU; how far they are is bounded here, and printed by `pytest -s`.
"""

import encoded
import numpy as np
import pytest
import torch
from on_card import DEVICE

from gpuaug.data import decode

FILES, BAD = encoded.readable(), encoded.unreadable()
NAMES, ITEMS = list(FILES), list(FILES.values())
THERE = [name for name in decode.ORDER if not decode.missing(name) and name != "pillow"]
ITERATIONS = 200
# of 255 levels: GPU decoders have roundings of their own, and some repeat chroma where the CPU interpolates
MEAN, MOST = 3.0, 80


@pytest.fixture(scope="module", params=THERE)
def decoder(request):
    made = decode.decoder(request.param, DEVICE, num_threads=4)
    yield made
    made.close()


def wait(out):
    if out.ready is not None:
        torch.cuda.current_stream().wait_event(out.ready)
    return out.images


def test_every_kind_of_file_is_near_the_cpus_pixels(decoder):
    expected = decode.decoder("pillow").decode(ITEMS).images
    print()
    for what, image, wanted in zip(NAMES, wait(decoder.decode(ITEMS)), expected, strict=True):
        assert isinstance(image, torch.Tensor), f"{what}: {image}"
        assert image.device.type == DEVICE.type and image.shape == wanted.shape, what
        difference = (image.cpu().int() - wanted.int()).abs()
        print(f"{decoder.name} {what}: mean {difference.float().mean():.3f}, largest {int(difference.max())}")
        on_gpu = DEVICE.type == "cuda" and what.startswith("JPEG") and "CMYK" not in what
        assert difference.float().mean() <= (MEAN if on_gpu else 0) and int(difference.max()) <= (
            MOST if on_gpu else 0
        ), what


def test_a_window_is_what_is_cut_out_of_the_whole_image(decoder):
    whole = [image.cpu() for image in wait(decoder.decode(ITEMS))]
    windows = np.array([[k % 20, 3 * k % 20, 1 + k % 40, 1 + 7 * k % 45] for k in range(len(ITEMS))])
    out = decoder.decode(ITEMS, windows)
    for what, image, full, (top, left, height, width) in zip(
        NAMES, wait(out), whole, out.windows.tolist(), strict=True
    ):
        assert torch.equal(image.cpu(), full[top : top + height, left : left + width]), what


def test_all_bad_files_are_found_at_once_and_the_others_are_there(decoder):
    files = [item for pair in zip(list(BAD.values()), ITEMS, strict=False) for item in pair]
    alone = [wait(decoder.decode([item]))[0].cpu() for item in ITEMS[: len(BAD)]]
    for _ in range(3):
        out = decoder.decode(files)
        assert sorted(out.bad) == list(range(0, len(files), 2))
        assert all(torch.equal(a.cpu(), b) for a, b in zip(wait(out)[1::2], alone, strict=True))


def test_pixels_stay_the_same_while_the_card_is_busy_and_memory_changes_hands(decoder):
    jpegs = [data for what, data in FILES.items() if what.startswith("JPEG")]
    first = [image.cpu() for image in wait(decoder.decode(jpegs))]
    corrupt = 0
    for k in range(ITERATIONS if DEVICE.type == "cuda" else 3):
        # readers of other memory, queued before and after, and blocks that are freed under them
        busy = torch.full((1 << (20 + k % 4),), 255, dtype=torch.uint8, device=DEVICE)
        held = decoder.decode(jpegs)
        total = sum(int(part) for part in (busy[::7].sum(), busy[::5].sum()))
        del busy
        copies = [image.clone() for image in wait(held)]
        corrupt += sum(not torch.equal(a.cpu(), b) for a, b in zip(copies, first, strict=True))
        assert total > 0
    assert corrupt == 0, f"{corrupt} images of {decoder.name} changed"
