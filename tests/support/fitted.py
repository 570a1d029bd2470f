"""An example of examples/, run as a whole, and in parts that go on from each other's checkpoints: writes what the loader gave
to each part, and the weights in the end, as JSON.

In a process of its own: frameworks are slow to import, and keep what they please for a process's life."""

import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import torch

from gpuaug.data.batches import Batches

ROOT = Path(__file__).parent.parent.parent


def main(name: str, data: str, out: Path, parts: list[str]) -> None:
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)

    rows: list[tuple] = []
    plain: list[str] = []
    take, through_torch = Batches.__next__, torch.utils.data.DataLoader.__iter__

    def recorded(batches):
        b = take(batches)
        pixels = (hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()[:16] for x in b.images)
        rows.extend(zip([b.epoch] * len(b.ids), b.ids.tolist(), b.labels.tolist(), pixels, strict=True))
        return b

    def noticed(loader):
        plain.append(type(loader).__name__)
        return through_torch(loader)

    Batches.__next__, torch.utils.data.DataLoader.__iter__ = recorded, noticed

    def run(where: str, *more: str) -> dict:
        rows.clear()
        options = ["--data", data, "--out", str(out / where), "--epochs", "3", "--batch-size", "6", *more]
        model = example.main(options)
        weights = hashlib.sha256()
        for key, value in sorted(model.state_dict().items()):
            weights.update(key.encode() + value.contiguous().numpy().tobytes())
        return {"rows": list(rows), "weights": weights.hexdigest()}

    whole = run("whole")
    runs = [run("parts", *options.split()) for options in parts]
    (out / "report.json").write_text(json.dumps({"whole": whole, "parts": runs, "plain": plain}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
