"""Whether all processes of a team train the same run: flags, data, and code.

Each compares what all of them have, so that all end with the same message.
"""

import hashlib
import importlib.metadata
import pathlib
import zlib
from typing import Any

import keras

import deepduel
import tfrecords_tools
from deepduel.training.team import Team
from deepduel.training.trainer import MultiTaskTrainer
from tfrecords_tools.errors import DataError

# What may differ from machine to machine: where folders lie, and what worker 0 alone goes by.
OWN_FLAGS = (
    "data_dir", "workdir", "threads", "cache", "remote_cache", "max_minutes", "save_every", "keep_epochs",
    "profile_steps",
)  # fmt: skip


def check_start(team: Team, flags: str, data_sha256: str) -> None:
    """Raises DataError where workers were started with other flags, on other data, or with other code.

    Args:
      flags: the flagfile of this process' command.
      data_sha256: of the splits.
    """
    if team.count == 1:
        return
    facts = _by_flag(flags) | {
        "the data (SHA-256)": data_sha256[:16],
        "the code of deepduel (SHA-256)": _code_sha256()[:16],
        "TensorFlow": importlib.metadata.version("tensorflow"),
        "Keras": importlib.metadata.version("keras"),
    }
    everyone = team.gather(facts)
    for index, facts in enumerate(everyone):
        for name in [*everyone[0], *facts]:
            first, other = (worker.get(name, "nothing") for worker in (everyone[0], facts))
            if first != other:
                chosen = "; what is left out may be chosen by the machine, so give this flag too"
                raise DataError(
                    f"worker {index} differs from worker 0 in {name}: {other} there, {first} in worker 0; "
                    "start the same command with the same data and packages everywhere"
                    f"{chosen if name.startswith('--') else ''}"
                )


class SameWeights(keras.callbacks.Callback):
    """Compares the weights of all workers after each epoch, before its state is saved."""

    def __init__(self, trainer: MultiTaskTrainer):
        super().__init__()
        self._trainer = trainer

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        check_weights(self._trainer)


def check_weights(trainer: MultiTaskTrainer) -> None:
    """Raises DataError where workers have other weights, which sums of gradients would mix up."""
    if trainer.team.count == 1:
        return
    sums = trainer.team.gather(_checksum(trainer))
    if len(set(sums)) > 1:
        others = [str(index) for index, checksum in enumerate(sums) if checksum != sums[0]]
        raise DataError(
            f"the weights of worker {', '.join(others)} are not those of worker 0; initial weights have to "
            "be the same file everywhere, and the processors and GPUs of one kind, which round alike"
        )


def _checksum(trainer: MultiTaskTrainer) -> int:
    """CRC-32 of all weights, the frozen ones too, and of all else that training changes."""
    checksum = 0
    for variable in (*trainer.state_variables(), *_frozen(trainer)):
        checksum = zlib.crc32(variable.numpy().tobytes(), checksum)
    return checksum


def _frozen(trainer: MultiTaskTrainer) -> list[keras.Variable]:
    return [
        variable
        for task in trainer.tasks
        if not task.trainable
        for variable in task.model.extractor.variables
    ]


def _by_flag(flags: str) -> dict[str, str]:
    """{flag: its lines}, without those that may differ."""
    values: dict[str, str] = {}
    for line in flags.splitlines():
        name = line.removeprefix("--").partition("=")[0]
        if line.startswith("--") and name not in OWN_FLAGS:
            values[f"--{name}"] = f"{values.get(f'--{name}', '')} {line}".strip()
    return values


def _code_sha256() -> str:
    total = hashlib.sha256()
    for package in deepduel, tfrecords_tools:
        root = pathlib.Path(package.__path__[0])
        for path in sorted(root.rglob("*.py")):
            total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()
