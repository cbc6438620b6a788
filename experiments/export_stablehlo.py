"""Exports augmentations, networks and training steps as StableHLO, for JAX to run without TensorFlow.

    python -m experiments.export_stablehlo --output=FOLDER
    python FOLDER/run_stablehlo.py --output=RESULT.json      where JAX and a GPU are

    FOLDER/NAME.mlir.gz        the text of each program, as tf.function(jit_compile=True) hands it to XLA
    FOLDER/programs.json       its inputs (rules, from which they are computed on the device) and the results
                               of the CPU here: digests of their bits and some values
    FOLDER/run_stablehlo.py    a copy of the script

Weights are drawn on the device, so FOLDER is a few megabytes. Networks are compared with float32 on the
CPU, whatever their own precision, on the first --reference_images images; training steps for two or three
steps, where the micro-batch is not above it.
"""

import fnmatch
import gc
import gzip
import json
import pathlib
import re
import shutil
import sys
from collections.abc import Iterator

from absl import flags

from experiments import run_stablehlo
from tfrecords_tools import cli
from tfrecords_tools.atomic import written_beside
from tfrecords_tools.errors import UsageError
from tfrecords_tools.progress import Progress

FLAGS = flags.FlagValues()
flags.DEFINE_string("output", None, "New folder to write.", flag_values=FLAGS, required=True)
flags.DEFINE_list(
    "only", ["*"], "Patterns of names of programs, such as 'augment-*,forward-vgg16-*'.", flag_values=FLAGS
)
flags.DEFINE_list(
    "networks", ["xception", "vgg16", "efficientnetv2s"], "Networks to export.", flag_values=FLAGS
)
flags.DEFINE_integer("stored_size", 200, "Side of the stored images in pixels.", flag_values=FLAGS)
flags.DEFINE_integer("image_size", 224, "Side of the networks' input in pixels.", flag_values=FLAGS)
flags.DEFINE_integer(
    "augment_batch", 256, "Images per augmentation program.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_integer("forward_batch", 64, "Images per forward program.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_list("micro_batches", ["32", "64", "128", "256"], "Images per training step.", flag_values=FLAGS)
flags.DEFINE_integer(
    "reference_images", 32,
    "Maximum number of images whose results this CPU computes for comparison; 0 for none.",
    lower_bound=0, flag_values=FLAGS,
)  # fmt: skip


def main(options: flags.FlagValues) -> None:
    folder = pathlib.Path(options.output)
    if folder.exists():
        raise UsageError(f"--output={folder} exists; give a new folder")
    cli.quiet_tensorflow()
    with written_beside(folder) as partial:
        partial.mkdir(parents=True)
        cards, left_out, expected = [], {}, {}
        with Progress("exporting", unit="programs") as bar:
            for number, program in enumerate(_programs(options)):
                bar.update(number)
                _export(program, options, partial, cards, left_out, expected)
                del program
                gc.collect()  # a network's parts are in cycles of references
        if not cards:
            raise UsageError(f"--only={','.join(options.only)}: no program has such a name")
        document = {"versions": _versions(), "left_out": left_out, "programs": cards}
        (partial / "programs.json").write_text(json.dumps(document) + "\n", "utf-8")
        shutil.copy(run_stablehlo.__file__, partial / "run_stablehlo.py")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {len(cards)} programs, {size / 1e6:.1f} MB; {len(left_out)} do not compile by XLA")
    for name, reason in left_out.items():
        print(f"  {name}: {reason}")


def _programs(options: flags.FlagValues) -> Iterator:
    """Those that `--only` names; networks are built only where one of theirs is."""
    from experiments import stablehlo_programs as programs

    unknown = set(options.networks) - set(programs.NETWORKS)
    if unknown:
        raise UsageError(f"--networks takes {', '.join(programs.NETWORKS)}, got {sorted(unknown)[0]!r}")

    def wanted(name: str) -> bool:
        return any(fnmatch.fnmatch(name, pattern) for pattern in options.only)

    stored, size = options.stored_size, options.image_size
    candidates = list(programs.augmentations(options.augment_batch, stored, size))
    candidates += programs.keras_cv_layers(options.augment_batch, stored)
    yield from (program for program in candidates if wanted(program.name))
    for network in options.networks:
        names = [f"forward-{network}-{way}-{p}" for way in ("folded", "plain") for p in programs.PRECISIONS]
        if any(map(wanted, names)):
            forwards = programs.forwards(network, options.forward_batch, size, options.reference_images)
            yield from (program for program in forwards if wanted(program.name))
        for precision in programs.PRECISIONS:
            for count in map(int, options.micro_batches):
                if wanted(f"train-{network}-{precision}-{count}"):
                    yield programs.train_step(network, precision, count, stored, size)


def _export(program, options, folder: pathlib.Path, cards: list, left_out: dict, expected: dict) -> None:
    import tensorflow as tf

    function = tf.function(lambda *arrays: program.function(*arrays), jit_compile=True, autograph=False)
    specs = [argument.spec for argument in program.inputs]
    try:
        text = function.experimental_get_compiler_ir(*specs)(stage="stablehlo")
    except (tf.errors.OpError, ValueError, NotImplementedError) as error:
        left_out[program.name] = str(error).splitlines()[0][:200]
        return
    inputs = [{"shape": list(g.shape), "dtype": g.dtype, "rule": g.rule} for g in program.inputs]
    passed = len(inputs)
    inputs += _captured(function.get_concrete_function(*specs))
    text = without_places(text)
    arguments, results = signature(text)
    state = list(program.state)
    if results > program.compared + len(state):  # a generator's new state is a result
        state += range(passed, len(inputs))
    if (arguments, results) != (len(inputs), program.compared + len(state)):
        left_out[program.name] = f"unknown arguments or results: {arguments}, {results}"
        return
    (folder / f"{program.name}.mlir.gz").write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))
    key = program.reference or program.name
    if key not in expected:
        expected[key] = _expected(program, function, options)
    cards.append(
        {
            "name": program.name, "kind": program.kind, "file": f"{program.name}.mlir.gz",
            "images": program.images, "inputs": inputs, "state": state,
            "compared": [None] * program.compared, "expected": expected[key],
            "tolerance": program.tolerance,
        }
    )  # fmt: skip


def _captured(concrete) -> list[dict]:
    """Variables that the function reads beside its inputs (keras-cv's generators); XLA takes them last."""
    inputs = []
    for variable in concrete.graph.variables:
        array = variable.numpy()
        rule = {"values": array.reshape(-1).tolist()}
        inputs.append({"shape": list(array.shape), "dtype": array.dtype.name, "rule": rule})
    return inputs


def _expected(program, function, options) -> list | None:
    """What the CPU makes of it, for each step; None where that would take too long."""
    import tensorflow as tf

    if program.kind == "train step" and program.images > options.reference_images:
        return None
    if program.rows == 0 and program.kind == "forward":
        return None
    arrays = [run_stablehlo.values(g.rule, g.shape, _numpy_type(g.dtype)) for g in program.inputs]
    if program.rows:
        arrays[0] = arrays[0][: program.rows]
    if not program.compiled:  # XLA's convolutions take minutes on a CPU
        function = tf.function(
            lambda *arrays: program.function(*arrays), autograph=False, reduce_retracing=True
        )
    steps = []
    for _ in range(program.steps):
        outputs = function(*map(tf.constant, arrays))
        rows = program.rows
        descriptions = [run_stablehlo.describe(output.numpy()) for output in outputs[: program.compared]]
        if not all(abs(part["mean_abs"]) < float("inf") for part in descriptions):
            raise RuntimeError(f"{program.name}: the CPU's results are not finite")
        steps.append([part | {"rows": rows} for part in descriptions])
        for place, output in zip(program.state, outputs[program.compared :], strict=True):
            arrays[place] = output.numpy()
    return steps


def _numpy_type(dtype: str):
    import tensorflow as tf

    return tf.as_dtype(dtype).as_numpy_dtype


def without_places(text: str) -> str:
    """Without the places in the source that each operation came from: two thirds of the text."""
    text = re.sub(r"^#loc.*\n", "", text, flags=re.MULTILINE)
    parts, start = [], 0
    while (at := text.find(" loc(", start)) >= 0:
        parts.append(text[start:at])
        start = _closing(text, at + len(" loc("))
    return "".join([*parts, text[start:]])


def _closing(text: str, at: int) -> int:
    """The place after the parenthesis that closes the one before `at`; strings may hold others."""
    depth = 1
    for match in re.compile(r'"(?:[^"\\]|\\.)*"|[()]').finditer(text, at):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth == 0:
            return match.end()
    raise ValueError("a location in the StableHLO text does not end")


def signature(text: str) -> tuple[int, int]:
    """How many arguments and results the main function has."""
    line = next(line for line in text.splitlines() if "func.func" in line and "@main" in line)
    arguments, _, results = line.partition(" -> ")
    return arguments.count(": tensor<"), results.count("tensor<")


def _versions() -> dict[str, str]:
    import keras
    import tensorflow as tf

    import deepduel

    return {"deepduel": deepduel.__version__, "tensorflow": tf.__version__, "keras": keras.__version__}


if __name__ == "__main__":
    sys.exit(cli.run(main, FLAGS, name="experiments.export_stablehlo"))
