"""`npvae compress` and `npvae decompress`: their options, and what they do."""

import warnings
from pathlib import Path

import numpy as np

from npvae import data
from npvae.app import commands, report, run_folder, standard_compressors
from npvae.app.parser import add_data_dir, add_run, argument_type
from npvae.core import checks, files, options
from npvae.data import arrays
from npvae.data.rows import is_binary, model_input
from npvae.models import bits_back

SUFFIX = ".npvae"


def add_commands(subparsers):
    """Add the two commands to those of `npvae`."""
    parser = subparsers.add_parser(
        "compress",
        help="compress data with a trained model, losslessly",
        description="Write data as a file of nearly the size that a model's -ELBO promises, by bits-back coding with a VAE or "
        "a HierarchicalVAE. The data are zeros and ones for a model with the Bernoulli likelihood, grey levels for "
        "beta_binomial and categorical. npvae decompress restores every bit of the array; it needs the run for that, as it is "
        "now. Prints where the bits of the file went.",
    )
    add_run(parser)
    parser.add_argument("data", metavar="DATA", nargs="?", type=options.path, help="a .npy or .npz file as npvae train takes "
                        "it, or mnist or ising: the validation rows of that (default: the validation rows of RUN)")  # fmt: skip
    parser.add_argument("--out", metavar="FILE", type=options.path, help=f"the new {SUFFIX} file (default: the first free of "
                        f"RUN/DATA{SUFFIX}, RUN/DATA-2{SUFFIX}, ...)")  # fmt: skip
    parser.add_argument("--binarize", action="store_true", help="draw zeros and ones of grey levels first, once, as npvae "
                        "evaluate does, for a Bernoulli model: these are what is compressed")  # fmt: skip
    parser.add_argument("--order", metavar="O", choices=bits_back.ORDERS, default=bits_back.ORDERS[0], help="of the latents of "
                        "a HierarchicalVAE: interleaved, each pushed as soon as the one above it is known (Bit-Swap), or "
                        "all_at_once, which takes more bits to start (default: %(default)s)")  # fmt: skip
    parser.add_argument("--compare", action="store_true", help="print what gzip, bzip2, xz, PNG and WebP make of the same data")
    _add_workers(parser)
    add_data_dir(parser)
    parser.set_defaults(run=compress)
    parser = subparsers.add_parser(
        "decompress",
        help="restore what npvae compress has written",
        description="Restore the array of a file that npvae compress has written, to the bit. RUN is the run that it was "
        "compressed with. A damaged file, or another model's, is refused.",
    )
    add_run(parser)
    parser.add_argument("file", metavar="FILE", type=options.path, help=f"the {SUFFIX} file")
    parser.add_argument("--out", metavar="NPY", type=options.path, help="the new .npy file (default: the first free of "
                        "FILE.npy, FILE-2.npy, ...)")  # fmt: skip
    _add_workers(parser)
    parser.set_defaults(run=decompress)


def _add_workers(parser):
    parser.add_argument("--workers", metavar="N", type=argument_type(options.integer(1)), help="threads (default: the cores "
                        "available); the result does not depend on it")  # fmt: skip


def compress(args):
    """`npvae compress`."""
    model, arguments, config = commands.trained_model(args)
    bits_back.check(model)
    run_folder.check_free(args.out, SUFFIX)
    x, name = data_of(args, arguments, config)
    if args.binarize:
        x = binarized(model, x, name)
    default = Path(args.run_folder) / (Path(args.data or arguments["data"]).stem.replace(":", "-") + SUFFIX)
    content, account = bits_back.compress(model, x, workers=args.workers, progress=True, name=name, order=args.order)
    path = run_folder.write_new(args.out, default, lambda file: file.write(content))
    print(f"run       {args.run_folder}, {report.name_of(model)}\n"
          f"data      {name}: {x.dtype} of shape {x.shape}, {x.nbytes:,} bytes\n"
          f"file      {path}: {report.counted(len(content), 'byte')}\n")  # fmt: skip
    print("\n".join(account_lines(account, x.size)))
    if args.compare:
        print("\n" + "\n".join(comparison_lines(model, x, len(content), config["image_shape"])))
    return 0


def decompress(args):
    """`npvae decompress`."""
    model, _, _ = commands.trained_model(args)
    bits_back.check(model)
    run_folder.check_free(args.out, ".npy")
    content = Path(args.file).read_bytes()
    x = bits_back.decompress(model, content, args.workers, progress=True, name=str(args.file))
    default = Path(args.file).with_suffix(".npy")
    path = run_folder.write_new(args.out, default, lambda file: np.save(file, x, allow_pickle=False))
    print(f"{path}: {x.dtype} of shape {x.shape}, the array that was compressed")
    return 0


def data_of(args, arguments, config):
    """The array (n, ...) to compress, and what it is called: that of a file, with its own dtype and shape, or the validation
    rows of a data set of npvae's, or of the run."""
    if args.data is None:
        return commands.data_of_run(args, arguments, config).x_val, f"the validation rows of {args.run_folder}"
    if args.data in data.NAMES:
        folder = args.data_dir or (arguments["data_dir"] if arguments["data"] == args.data else None)
        return data.load(args.data, folder, progress=True).x_val, f"the validation rows of {args.data}"
    return array_in(Path(args.data)), str(args.data)


def array_in(path):
    """The data in a .npy or .npz file, as they are there; ValueError or OSError for what `npvae train` would not take."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", checks.NpvaeWarning)  # labels are of no interest here
        arrays.load(path)
    with path.open("rb") as file:
        n_bytes = path.stat().st_size
        if path.suffix.lower() == ".npy":
            return files.read_npy(file, n_bytes)
        (x,) = files.read_npz(file, n_bytes, _data_of_archive).values()
        return x


def _data_of_archive(shapes):
    """Which array of a .npz is the data: x, or the only one of two or more axes."""
    return ["x"] if "x" in shapes else [name for name, shape in shapes.items() if len(shape) > 1 and name not in arrays.LABELS]


def binarized(model, x, name):
    """One draw of zeros and ones, uint8, with grey levels x (n, ...) as probabilities; x as it is where it holds zeros and
    ones."""
    if model.data_kind != "binary":
        raise ValueError(f"--binarize is for a model of zeros and ones, and the likelihood {model.likelihood} codes the levels "
                         "themselves: leave it out")  # fmt: skip
    if is_binary(x):
        return x
    return model_input(model, x.reshape(len(x), -1), 0, name).astype(np.uint8).reshape(x.shape)


def account_lines(account, n_values):
    """Where the bits of a file went, as a table: whole bits, which add up, and bits for each of the n_values of the array."""
    rows = [
        ("−ELBO of these data", account.bound, "what the model promises: nll + KL(q(z|x) ‖ p(z))"),
        ("draws of z", account.sampling, "those in this file, against their mean"),
        ("buckets of z", account.discretisation, "z is coded as the number of an interval"),
        ("whole numbers", account.rounding, "probabilities are rounded, to 1 at least"),
        ("rANS", account.coder, "what the coder adds"),
        ("start", account.start, "bits for the first z of each chain, which no data gave"),
        ("heads", account.heads, "the last bits of each chain take up two words"),
        ("header", account.header, "dtype, shape, checksums"),
    ]
    lines, exact, shown = [f"{'':24}{'bits':>16}{'per dimension':>16}"], 0.0, 0
    for label, bits, note in rows:
        exact += bits
        whole, shown = round(exact) - shown, round(exact)  # of the running sum: so no roundings add up
        lines.append(f"{label:24}{whole:16,}{round(bits / n_values, 6) + 0.0:16.6f}  {note}")  # + 0.0: no −0
    return [*lines, f"{'file':24}{shown:16,}{shown / n_values:16.6f}"]


def comparison_lines(model, x, n_bytes, image_shape):
    """What other compressors make of the same data, as a table, the smallest first."""
    symbols, _ = bits_back.symbols_of(model, x)
    sides = tuple(side for side in x.shape[1:] if side > 1)  # (28, 28, 1) has one channel
    shape = sides if len(sides) == 2 else image_shape and tuple(image_shape)
    others = standard_compressors.sizes(symbols, shape, model.data_kind == "binary")
    lines = [f"{'':24}{'bytes':>16}{'per dimension':>16}"]
    for label, size in sorted([("npvae", n_bytes), *others.items()], key=lambda item: item[1]):
        lines.append(f"{label:24}{size:16,}{8 * size / x.size:16.6f}")
    packing = "eight to a byte" if model.data_kind == "binary" else "a byte each"
    how = f"images of {shape[0]} x {shape[1]} side by side" if shape else "one row after the other"
    return [*lines, f"values packed {packing}; pictures: {how}"]
