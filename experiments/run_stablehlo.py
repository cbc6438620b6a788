"""Runs what `experiments.export_stablehlo` wrote, on whatever device JAX finds. Needs JAX and NumPy alone.

    python run_stablehlo.py --folder=FOLDER --output=RESULT.json [--only='augment*,forward*'] [--seconds=2]

Each program (FOLDER/NAME.mlir.gz, described in FOLDER/programs.json) runs in a process of its own, so that
the peak of the device's memory is that of the program, and a program that fails ends no other:

    rules of the inputs --values--> arrays, computed on the device
    StableHLO text --ir.Module.parse, compile_and_load--> executable
    outputs --compare--> the CPU's results: equal bits, or the largest relative difference
    again and again for some seconds --> images/s, the device's peak memory

RESULT.json has a row for each program, RESULT.md is the same as a table. Exit code 1: a program failed, or
differs from the CPU's results by more than its tolerance.
"""

import argparse
import fnmatch
import gzip
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

SAMPLES = 256  # values of each output that travel with the programs


def values(rule: dict, shape: tuple[int, ...], dtype: str, xp=np):
    """The array that a rule stands for; the same bits in NumPy and in JAX, on any device.

    Args:
      rule: {"fill": x}: x everywhere. {"values": [...]}: these. All others hash the place in the array with
        "seed": {"kind": "uniform", "scale": s}: in [-s, s). {"kind": "bytes"}: 0..255.
        {"kind": "bits"}: any int32. {"kind": "below", "limit": n}: 0..n-1.
      dtype: NumPy's name of it, or "bfloat16".
      xp: numpy or jax.numpy.
    """
    if "fill" in rule:
        return xp.full(shape, rule["fill"], dtype)
    if "values" in rule:
        return xp.asarray(np.array(rule["values"], dtype).reshape(shape))
    word = _hash(xp, int(np.prod(shape, dtype=np.int64)), rule["seed"]).reshape(shape)
    match rule["kind"]:
        case "uniform":  # one rounding: the whole number is exact in float32
            whole = (word >> np.uint32(8)).astype(np.int32) - np.int32(2**23)
            return (whole.astype(np.float32) * np.float32(rule["scale"] * 2.0**-23)).astype(dtype)
        case "bytes":
            return (word >> np.uint32(24)).astype(dtype)
        case "bits":
            return word.astype(dtype)
        case "below":
            return ((word >> np.uint32(8)) % np.uint32(rule["limit"])).astype(dtype)
    raise ValueError(f"unknown rule {rule}")


def _hash(xp, count: int, seed: int):
    """uint32 [count]; a multiplicative hash of the index (lowbias32, Chris Wellons)."""
    start = np.uint32((seed * 0x85EBCA77 + 0x9E3779B9) % 2**32)
    word = xp.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B1) + start
    word = (word ^ (word >> np.uint32(16))) * np.uint32(0x7FEB352D)
    word = (word ^ (word >> np.uint32(15))) * np.uint32(0x846CA68B)
    return word ^ (word >> np.uint32(16))


def describe(array: np.ndarray) -> dict:
    """What travels of a result: a digest of its bits, and some of its values."""
    flat = np.ascontiguousarray(array).reshape(-1)
    places = np.linspace(0, flat.size - 1, min(SAMPLES, flat.size)).astype(np.int64)
    floats = flat.astype(np.float64)
    return {
        "sha256": hashlib.sha256(flat.tobytes()).hexdigest(),
        "mean_abs": float(np.abs(floats).mean()),
        "samples": [float(value) for value in floats[places]],
    }


def difference(actual: dict, expected: dict) -> float:
    """The largest difference of the samples and of the means, relative to the expected values' mean size."""
    scale = max(expected["mean_abs"], 1e-12)
    samples = np.abs(np.array(actual["samples"]) - np.array(expected["samples"])).max()
    worst = max(samples, abs(actual["mean_abs"] - expected["mean_abs"])) / scale
    return float(worst) if np.isfinite(worst) else float("inf")


class Program:
    """One compiled program and its inputs, on JAX's first device."""

    def __init__(self, folder: pathlib.Path, card: dict):
        import jax
        import jax.extend.backend
        import jax.numpy as jnp
        from jax.interpreters import mlir
        from jaxlib import _jax, xla_client
        from jaxlib.mlir import ir

        self.card, self.device = card, jax.devices()[0]
        backend = jax.extend.backend.get_backend()
        text = gzip.decompress((folder / card["file"]).read_bytes()).decode("utf-8")
        started = time.perf_counter()
        with mlir.make_ir_context():
            module = ir.Module.parse(text)
            devices = _jax.DeviceList((self.device,))
            self._loaded = backend.compile_and_load(module, devices, xla_client.CompileOptions())
        self.compile_seconds = time.perf_counter() - started
        jax.config.update("jax_enable_x64", True)  # int64 states of random generators
        self.inputs = []
        for entry in card["inputs"]:
            draw = jax.jit(lambda entry=entry: values(entry["rule"], entry["shape"], entry["dtype"], jnp))
            self.inputs.append(jax.device_put(draw(), self.device))

    def run(self) -> list:
        """The outputs; the inputs that are state become them."""
        results = self._loaded.execute_sharded(self.inputs)
        outputs = [part[0] for part in results.disassemble_into_single_device_arrays()]
        first = len(self.card["compared"])
        for place, output in zip(self.card["state"], outputs[first:], strict=True):
            self.inputs[place] = output
        return outputs

    def compare(self) -> dict:
        """Runs as often as the CPU's results are there for, once at least; whether they are equal."""
        expected = self.card["expected"] or [None]
        worst, bits = 0.0, True
        for step in expected:
            outputs = self.run()
            for output, reference in zip(outputs, step or [], strict=False):
                array = np.asarray(output)
                actual = describe(array[: reference["rows"]] if reference["rows"] else array)
                bits &= actual["sha256"] == reference["sha256"]
                worst = max(worst, difference(actual, reference))
        if not self.card["expected"]:
            return {"equal": None, "difference": None, "passed": None}
        tolerance = self.card["tolerance"]
        return {"equal": bits, "difference": worst, "passed": bits if tolerance == 0 else worst <= tolerance}

    def rate(self, seconds: float) -> float:
        """Images a second."""
        self.run()[0].block_until_ready()
        done, started = 0, time.perf_counter()
        while not done or time.perf_counter() - started < seconds:
            for _ in range(1 if self.device.platform == "cpu" else 5):  # so that the device never waits
                outputs = self.run()
                done += 1
            outputs[0].block_until_ready()
        return self.card["images"] * done / (time.perf_counter() - started)

    def peak_bytes(self) -> int | None:
        """As the device reports it; CPUs report nothing."""
        return (self.device.memory_stats() or {}).get("peak_bytes_in_use")

    def planned_bytes(self) -> int | None:
        """As the compiler plans it: inputs, outputs and what lies between."""
        try:
            stats = self._loaded.get_compiled_memory_stats()
        except Exception:  # not every backend of JAX has it, and each raises a type of its own
            return None
        parts = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
        return sum(getattr(stats, part) for part in parts)


def measure(folder: pathlib.Path, card: dict, seconds: float) -> dict:
    """One row of the result."""
    import jax

    program = Program(folder, card)
    row = {"name": card["name"], "kind": card["kind"], "images": card["images"]}
    row |= program.compare()
    row |= {
        "images_per_second": program.rate(seconds),
        "peak_bytes": program.peak_bytes(),
        "planned_bytes": program.planned_bytes(),
        "compile_seconds": program.compile_seconds,
        "device": program.device.device_kind,
        "jax": jax.__version__,
    }
    return row


def in_own_process(folder: pathlib.Path, card: dict, options) -> dict:
    words = [sys.executable, __file__, f"--folder={folder}", f"--seconds={options.seconds}"]
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    try:
        done = subprocess.run(
            [*words, f"--job={card['name']}"],
            capture_output=True, text=True, env=environment, timeout=options.limit,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"name": card["name"], "failed": f"not done after {options.limit} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"name": card["name"], "failed": lines[-1][:300]}
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: list[dict]) -> str:
    """Markdown."""
    lines = ["| program | images/s | peak MB | planned MB | equal to the CPU's | compiled in s |"]
    lines.append("|---|---|---|---|---|---|")
    for row in rows:
        if "failed" in row:
            lines.append(f"| {row['name']} | failed: {row['failed'].replace('|', ' ')} | | | | |")
            continue
        peak, planned = (
            "-" if row[name] is None else f"{row[name] / 1e6:,.0f}"
            for name in ("peak_bytes", "planned_bytes")
        )
        lines.append(
            f"| {row['name']} | {row['images_per_second']:,.1f} | {peak} | {planned} | {_verdict(row)} | "
            f"{row['compile_seconds']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def _verdict(row: dict) -> str:
    if row["equal"] is None:
        return "not compared"
    if row["equal"]:
        return "bits"
    return f"{'within' if row['passed'] else '**beyond**'} tolerance: {row['difference']:.1e}"


def save(path: pathlib.Path, rows: list[dict]) -> None:
    for target, text in (
        (path, json.dumps({"rows": rows}, indent=1) + "\n"), (path.with_suffix(".md"), table(rows)),
    ):  # fmt: skip
        partial = target.with_name(f".{target.name}.partial")
        partial.write_text(text, "utf-8")
        partial.replace(target)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    own_folder = pathlib.Path(__file__).parent
    parser.add_argument("--folder", type=pathlib.Path, default=own_folder, help="what export_stablehlo wrote")
    parser.add_argument("--output", type=pathlib.Path, help="RESULT.json to write; RESULT.md lies beside it")
    parser.add_argument("--only", default="*", help="patterns of the programs' names, separated by commas")
    parser.add_argument("--seconds", type=float, default=2.0, help="to time each program for")
    parser.add_argument(
        "--limit", type=float, default=600.0, help="seconds after which a program is given up"
    )
    parser.add_argument("--job", default="", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    cards = json.loads((options.folder / "programs.json").read_text("utf-8"))["programs"]
    if options.job:
        (card,) = [card for card in cards if card["name"] == options.job]
        print(json.dumps(measure(options.folder, card, options.seconds)))
        return 0
    if options.output is None:
        parser.error("--output=RESULT.json is needed")
    chosen = [
        card for card in cards if any(fnmatch.fnmatch(card["name"], part) for part in options.only.split(","))
    ]
    if not chosen:
        parser.error(f"--only={options.only}: no program has such a name; see programs.json")
    rows = []
    for card in chosen:
        rows.append(in_own_process(options.folder, card, options))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
        save(options.output, rows)
    return int(any("failed" in row or row["passed"] is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
