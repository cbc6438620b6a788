"""Flags of the commands that use a run's models: which run, which models, how many images at a time."""

from absl import flags


def define(flag_values: flags.FlagValues) -> None:
    """Adds --workdir, --tasks, --model, --batch_size and --micro_batch."""
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=flag_values)
    flags.DEFINE_list("tasks", None, "Tasks to use; by default all of the run.", flag_values=flag_values)
    flags.DEFINE_string(
        "model", "best", "Which model of each task: best, or epoch-NN.", flag_values=flag_values
    )
    flags.DEFINE_integer("batch_size", 256, "Images per batch.", lower_bound=1, flag_values=flag_values)
    flags.DEFINE_integer(
        "micro_batch", 32,
        "Images per pass through the models, which decides how much memory is needed.", lower_bound=1,
        flag_values=flag_values,
    )  # fmt: skip
