"""Compares two runs that were evaluated on the same split, image by image.

    python -m deepduel.compare RUN_A RUN_B --split=validation \\
        --output=comparison.html

It reads the files that both runs' evaluations wrote, and tests whether the
difference of their accuracies could be chance (McNemar's test).
"""

import json
import pathlib
import sys

from absl import flags

from tfrecords_tools import cli
from tfrecords_tools.errors import UsageError

FLAGS = flags.FlagValues()
WORDS = "runs"  # the flag of words without a name
USUAL = {"Flags": ("runs", "split", "output", "data_dir", "bootstrap")}
flags.DEFINE_multi_string(
    "runs", None, "The two run folders; they may be written without the flag's name.", flag_values=FLAGS
)
flags.DEFINE_string(
    "split",
    "validation",
    "Evaluation of both runs: the name of the split, or --name of deepduel.evaluate.",
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "output",
    None,
    "Files to write the comparison to, as a page (.html) or as figures for programs (.json).",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of shards, for the pictures of the page; by default the one that was evaluated.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "bootstrap",
    1000,
    "Bootstrap samples for each 95 % confidence interval; 0 computes no intervals.",
    lower_bound=0,
    flag_values=FLAGS,
)


def main(options: flags.FlagValues) -> None:
    """Prints the table, and writes the files."""
    runs = options.runs or []
    if len(runs) != 2:
        raise UsageError(f"needs two run folders, RUN_A RUN_B, got {' '.join(runs) or 'none'}")
    for output in options.output or ():
        if not output.endswith((".html", ".json")):
            raise UsageError(
                f"--output={output}: must end in .html (a page) or .json (the same figures, machine-readable)"
            )

    from deepduel.evaluation import comparison, saved_evaluation
    from deepduel.reports import comparison_page
    from tfrecords_tools.atomic import published

    evaluations = [saved_evaluation.read(run, options.split) for run in runs]
    document = comparison.document(*evaluations, replicates=options.bootstrap)
    print(comparison.table(document))
    for output in map(pathlib.Path, options.output or ()):
        if output.suffix == ".html":
            text = comparison_page.render(document, *comparison_page.pictures(document, options.data_dir))
        else:
            text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        output.parent.mkdir(parents=True, exist_ok=True)
        with published(output) as file:
            file.write(text)
        print(f"comparison: {output}")


def entry() -> int:
    """The command; returns its exit code."""
    return cli.run(
        main, FLAGS, name="deepduel.compare", usual=USUAL, words=WORDS, usage="RUN_A RUN_B [--output=FILE]"
    )


if __name__ == "__main__":
    sys.exit(entry())
