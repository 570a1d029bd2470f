"""The command `gpuaug`."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

try:
    import typer
    from rich.console import Console

    from gpuaug.version import __version__
except KeyboardInterrupt:
    raise SystemExit(130) from None

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="GPU-native image augmentation."
)
Backend = Annotated[str, typer.Option(help="auto, reference, cpu or triton")]


Preset = Annotated[str | None, typer.Option(help="Instead of a file: a name of gpuaug.presets, such as moderate.")]


# paragraphs, which the help shows as lines
_FACTORS = "\n\n".join(
    (
        "Different copies that a method gives of one image, the largest --factor that adds any:",
        "a flip: 2; both flips: 4; quarter turns: 4, with a flip 8",
        "five or ten crops: 5 or 10",
        "rotation, affine, perspective, random crop: any",
        "colour, blur, noise, erasing: any",
        "RandAugment, TrivialAugment, AutoAugment, AugMix: any",
        "MixUp, CutMix: none, for they mix a batch in training",
    )
)


@contextmanager
def _one_sentence(code: int = 1) -> Iterator[None]:
    """What a user can put right ends in one sentence and an exit code, not in a traceback."""
    try:
        yield
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        typer.echo(f"gpuaug: {error}", err=True)
        raise typer.Exit(code) from error


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"gpuaug {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of images, flat or one folder per class.", show_default="photographs written to demo_data"
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, max=2**18)] = 3,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    backend: Backend = "auto",
    output: Annotated[Path, typer.Option(help="Where the contact sheet goes; the ending chooses the format.")] = Path(
        "demo.png"
    ),
) -> None:
    """Augment a folder of photographs, time it against torchvision in the same run, and draw a contact sheet."""
    from gpuaug.apps import photographs
    from gpuaug.apps.demo import Demo, run

    with _one_sentence():
        order = Demo(epochs, batch_size, seed, backend, output)
        # before anything is written
        order.check()
        if data is None:
            data = Path("demo_data")
            if not data.exists():
                photographs.write(data)
        run(order, photographs.find(data), Console())


@app.command()
def describe(
    policy: Annotated[Path | None, typer.Argument(help="A policy that Policy.save wrote.")] = None,
    preset: Preset = None,
    size: Annotated[
        str | None,
        typer.Option(help="Height x width of the images, such as 375x500.", show_default="images of different sizes"),
    ] = None,
    channels: Annotated[int, typer.Option(min=1)] = 3,
    backend: Backend = "auto",
) -> None:
    """Print what a policy really runs: the steps of a backend, their bytes an image, why each is one, and what falls
    back."""
    with _one_sentence():
        found = _policy(policy, preset)
        typer.echo(found.describe(_size(size) if size else None, channels=channels, backend=backend))


@app.command()
def lint(
    policy: Annotated[Path | None, typer.Argument(help="A policy that Policy.save wrote.")] = None,
    preset: Preset = None,
    domain: Annotated[
        str | None,
        typer.Option(
            help="What the images are of: natural, text, digits, medical, satellite, microscopy, traffic_signs, "
            "fine_grained, small_objects, colour_coded, or one of your rules.",
            show_default="only what is wrong anywhere",
        ),
    ] = None,
    rules: Annotated[list[Path] | None, typer.Option(help="YAML file of your own rules; repeat for several.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Name of a rule; repeat for several.")] = None,
    fail_on: Annotated[
        str, typer.Option(help="The mildest level that fails: error, warning, note or never.")
    ] = "error",
    output: Annotated[str, typer.Option("--format", help="table or json")] = "table",
) -> None:
    """Say what of a policy may change the labels of its images.  Exit code 0: nothing of the level that fails; 1: some;
    2: it could not be looked at."""
    from gpuaug.apps.lint import Order, run

    with _one_sentence(2):
        order = Order(domain, tuple(rules or ()), tuple(ignore or ()), fail_on, output)
        # before anything is looked at
        order.check()
        failed = run(order, _policy(policy, preset), Console())
    if failed:
        raise typer.Exit(1)


@app.command()
def show(
    data: Annotated[str, typer.Option(help="Folder, table or tar shards, as the loader takes them.")],
    policy: Annotated[str, typer.Option(help="A YAML file, FILE.py:name, or a preset such as moderate.")],
    out: Annotated[Path, typer.Option(help="PNG, or HTML with a slider over epochs and a switch per transform.")],
    epoch: Annotated[str, typer.Option(help="One, or several: 0,3,7.", show_default="the first five")] = "",
    ids: Annotated[
        str,
        typer.Option(help="The loader's numbers of samples: 123, or 4,8,15.", show_default="six of all classes"),
    ] = "",
    per_transform: Annotated[
        bool, typer.Option("--per-transform", help="A column a transform, with the draws of the whole policy.")
    ] = False,
    params: Annotated[bool, typer.Option("--params", help="Write what was drawn under each picture.")] = False,
    boxes: Annotated[Path | None, typer.Option(help="Boxes of the images, JSON in COCO's form.")] = None,
) -> None:
    """Draw what training sees: samples of a data set in rows, the policy's draws of each epoch in columns."""
    from gpuaug.apps.show import Order, run

    with _one_sentence():
        epochs, samples = _numbers("--epoch", epoch), _numbers("--ids", ids)
        run(Order(data, policy, out, epochs, samples, per_transform, params, boxes), Console())


@app.command()
def audit(
    data: Annotated[str, typer.Option(help="Folder, table or tar shards, as the loader takes them.")],
    policy: Annotated[str, typer.Option(help="A YAML file, FILE.py:name, or a preset such as moderate.")],
    model: Annotated[
        str | None,
        typer.Option(help="NAME.pt2 that torch.export.save wrote, module:factory, or FILE.py:factory."),
    ] = None,
    boxes: Annotated[Path | None, typer.Option(help="Boxes of the images, JSON in COCO's form.")] = None,
    images: Annotated[int, typer.Option(min=2, help="How many, of all classes.")] = 32,
    draws: Annotated[int, typer.Option(min=1, help="Of each image.")] = 2,
    out: Annotated[Path, typer.Option(help="The picture: PNG, SVG or PDF.")] = Path("audit.png"),
) -> None:
    """Say how far each transform of a policy moves images, at half, all and twice its strength: PSNR and SSIM, what is
    left of objects, and whether a model still says the same."""
    from gpuaug.apps.audit import Order, run

    with _one_sentence():
        run(Order(data, policy, out, model, boxes, images, draws), Console())


@app.command()
def verify(
    target: Annotated[
        str, typer.Argument(metavar="FILE.py:NAME", help="A pipeline of torchvision, or a gpuaug.Policy.")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Folder of images.", show_default="photographs of scikit-image, or waves")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="How many.")] = 16,
    backend: Backend = "auto",
) -> None:
    """Compare every transform of a pipeline with torchvision, on the same images with the same parameters.  Exit code 1
    where one differs by more than its tolerance."""
    from gpuaug.apps.verify import run

    with _one_sentence():
        same = run(target, data, images, backend, Console())
    if not same:
        raise typer.Exit(1)


@app.command(name="compile")
def compile_policy(
    policy: Annotated[Path, typer.Argument(help="A policy that Policy.save wrote.")],
    target: Annotated[str, typer.Option(help="The card: cuda:90 for compute capability 9.0.")],
    size: Annotated[
        str | None,
        typer.Option(help="Height x width of the images, such as 375x500.", show_default="images of different sizes"),
    ] = None,
    channels: Annotated[int, typer.Option(min=1)] = 3,
    channels_last: Annotated[bool, typer.Option("--channels-last", help="The memory format of the images.")] = False,
) -> None:
    """Compile a policy's kernels for a card that need not be here, into Triton's cache (TRITON_CACHE_DIR): for whoever
    builds a container."""
    from gpuaug.apps.compiling import Order, run

    with _one_sentence():
        run(Order(policy, target, _size(size) if size else None, channels, channels_last), Console())


benches = typer.Typer(
    add_completion=False,
    invoke_without_command=True,
    help="Time gpuaug against torchvision and others on this machine, each checked first, and write a report with "
    "pictures.",
)
app.add_typer(benches, name="bench")


@benches.callback()
def bench(
    context: typer.Context,
    output: Annotated[
        Path, typer.Option(help="Folder for report.md, report.html, the pictures and results.json.")
    ] = Path("bench_report"),
    group: Annotated[
        list[str] | None,
        typer.Option(
            help="policy, recipe, transform, batch, size or 'end to end'; repeat for several.", show_default="all"
        ),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Every batch and image size, larger batches of the policies too.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="Of every contender alike.")] = 1,
    seconds: Annotated[float, typer.Option(help="For each workload, all contenders together.")] = 4.0,
    store: Annotated[
        bool, typer.Option("--store", help="Keep the results in bench/results as this machine's.")
    ] = False,
) -> None:
    """Time gpuaug against torchvision and others on this machine, each checked first, and write a report with
    pictures."""
    if context.invoked_subcommand is not None:
        return
    with _one_sentence():
        command = _bench("bench.command")
        command.run(command.Order(output, tuple(group or ()), full, device, threads, seconds, store), Console())


@benches.command()
def loader(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of JPEG files; made where it is not there.", show_default="a temporary one"),
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="Of the suite; repeat for several.", show_default="weak and moderate")
    ] = None,
    side: Annotated[list[str] | None, typer.Option(help="A contender; repeat for several.", show_default="all")] = None,
    files: Annotated[int, typer.Option(min=1, help="Of a folder that is made.")] = 1024,
    batch_size: Annotated[int, typer.Option(min=1)] = 256,
    workers: Annotated[int, typer.Option(min=0, help="Processes or threads of a side; 0: one a core.")] = 0,
    rounds: Annotated[int, typer.Option(min=1, help="Epochs of each side at most, turn by turn.")] = 5,
    limit: Annotated[float, typer.Option(help="Seconds after which no round begins; there is one in any case.")] = 300,
    store: Annotated[bool, typer.Option("--store", help="Keep the results in bench/results.")] = False,
) -> None:
    """Time loaders from JPEG files to augmented batches: images a second, CPU time, memory, and the first batch."""
    with _one_sentence():
        found = _bench("bench.bench_loader")
        policies = tuple(policy or ("weak", "moderate"))
        console = Console()
        with console.status("starting") as status:
            order = found.Order(data, policies, tuple(side or ()), files, batch_size, workers, rounds, limit, store)
            rows = found.run(order, status.update)
        for line in found.lines(rows):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def prepare(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="Folder, table or tar shards, as the loader takes them.")
    ],
    target: Annotated[
        Path,
        typer.Argument(metavar="DST", help="Folder for images.npy and index.parquet; or NAME.npy, with NAME.parquet."),
    ],
    size: Annotated[str, typer.Option(help="Of all images: a side, such as 256, or height x width, 256x320.")] = "256",
    fit: Annotated[
        str, typer.Option(help="crop: the largest part in the middle of that shape; stretch: all of an image.")
    ] = "crop",
    on_error: Annotated[
        str, typer.Option(help="raise: stop at an image that can't be decoded; skip: leave it out.")
    ] = "raise",
    decoder: Annotated[str, typer.Option(help="auto, dali, torchcodec, torchvision or pillow")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="That decode.", show_default="all cores")] = None,
) -> None:
    """Decode and resize a data set once, to one .npy file of uint8 and a Parquet index, which the loaders read.  The
    same command goes on where it was stopped."""
    from gpuaug.apps.prepare import Order, run

    with _one_sentence():
        side = int(size) if size.isdecimal() else _size(size)
        run(Order(source, target, side, fit, on_error, decoder, threads), Console())


@app.command(epilog=_FACTORS)
def expand(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="Folder, table or tar shards, as the loader takes them.")
    ],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder for the copies and manifest.parquet.")],
    policy: Annotated[Path | None, typer.Option(help="A policy that Policy.save wrote.")] = None,
    preset: Preset = None,
    factor: Annotated[int, typer.Option(help="Copies of each image; the images themselves are not among them.")] = 2,
    output: Annotated[str, typer.Option("--format", help="jpeg, png or webdataset (tar shards of JPEGs)")] = "jpeg",
    quality: Annotated[int, typer.Option(help="Of JPEGs, 1 to 100.")] = 95,
    engine: Annotated[str, typer.Option(help="local, or ray: Ray Data, an actor for each GPU or core")] = "local",
    actors: Annotated[int | None, typer.Option(min=1, help="Of Ray.", show_default="one a GPU, or a core")] = None,
    on_error: Annotated[
        str, typer.Option(help="raise: stop at an image that can't be decoded; skip: leave it out.")
    ] = "raise",
    decoder: Annotated[str, typer.Option(help="auto, dali, torchcodec, torchvision or pillow")] = "auto",
    backend: Backend = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="That decode and encode.", show_default="all cores")
    ] = None,
) -> None:
    """Write augmented copies of a data set, and a manifest from which gpuaug.expand.remake makes each again.  The same
    command goes on where it was stopped."""
    from gpuaug.apps.expand import Order, run

    with _one_sentence():
        found = _policy(policy, preset)
        rest = engine, actors, on_error, decoder, backend, device, threads
        run(Order(source, target, found, factor, output, quality, *rest), Console())


def _bench(module: str) -> Any:
    """A part of the suite, which stands beside the package in its repository."""
    try:
        found = find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise RuntimeError(
            "the bench comes with gpuaug's repository, not with the package; clone it and run make bench there"
        )
    for package in ("torchvision", "matplotlib"):
        if find_spec(package) is None:
            raise RuntimeError(f"the bench needs {package}, which is not installed; pip install 'gpuaug[bench]'")
    return import_module(module)


def _policy(path: Path | None, preset: str | None) -> Any:
    """The policy of a file, or the preset of a name."""
    from gpuaug import presets
    from gpuaug.policy import Policy

    if (path is None) == (preset is None):
        raise ValueError("a policy must come from one place; pass a file that Policy.save wrote, or --preset NAME")
    return presets.get(str(preset)) if path is None else Policy.load(path)


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isdecimal() for p in parts):
        raise ValueError(f"size must be height x width, such as 375x500, got {text!r}")
    return int(parts[0]), int(parts[1])


def _numbers(name: str, text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"{name} must be numbers with commas between them, such as 4,8,15, got {text!r}")
    return tuple(map(int, parts))


def main() -> None:
    """Entry point of the command `gpuaug`."""
    app()


if __name__ == "__main__":
    main()
