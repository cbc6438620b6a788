"""Flags shared by the commands that use a finished run: its folder, tasks, checkpoints and batch sizes."""

from absl import flags


def define(flag_values: flags.FlagValues) -> None:
    """Adds --workdir, --tasks, --model, --batch_size and --micro_batch."""
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=flag_values)
    flags.DEFINE_list(
        "tasks", None, "Tasks to use; by default all tasks of the run.", flag_values=flag_values
    )
    flags.DEFINE_string(
        "model", "best", "Checkpoint of each task to use: best, or epoch-NN.", flag_values=flag_values
    )
    flags.DEFINE_integer("batch_size", 256, "Images per batch.", lower_bound=1, flag_values=flag_values)
    flags.DEFINE_integer(
        "micro_batch", 32,
        "Images per pass through the models, which decides how much memory is needed.", lower_bound=1,
        flag_values=flag_values,
    )  # fmt: skip
