"""Shards written by Apache Beam: any of its runners, on any number of machines.

The plan is made here, the manifest is published here; each element of the pipeline is one shard,
written by the very function that local workers run. Input and output must be reachable from
every machine under the same name: a shared file system, or s3://, gs://, ….
"""

import logging
import shlex
import threading
from collections.abc import Iterable

from tfrecords_tools import workers
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import records, storage
from tfrecords_tools.sources.spool import Spooled
from tfrecords_tools.writing import shard
from tfrecords_tools.writing.planning import Job, Plan


def run(plan: Plan, output_dir: str, jobs: Iterable[Job], options: str, on_progress: shard.Progress) -> None:
    """Writes shards by a Beam pipeline.

    Args:
      plan: the plan.
      output_dir: the data folder.
      jobs: the shards that are still to be written.
      options: Beam's own, as on a command line: "--runner=DirectRunner --direct_num_workers=2".
      on_progress: called with (images, bytes, rejected) of finished shards.

    Raises:
      DataError: Beam is not installed, the pipeline failed, or workers would not see the images.
    """
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions
    except ImportError as error:
        raise DataError(
            f"--runner=beam needs Apache Beam ({error}); pip install 'deepduel[beam]', in an environment "
            "of its own if its requirements conflict with others"
        ) from error
    try:
        chosen = PipelineOptions(shlex.split(options))
    except (SystemExit, ValueError) as error:
        raise UsageError(f"--beam_options={options}: Apache Beam rejects them ({error})") from error
    source = plan.listing.source
    if isinstance(source, Spooled) and source.is_copied and storage.is_remote(output_dir):
        raise DataError(
            f"{source.root}: its images were copied to this machine, since they can only be read in order, "
            "and Beam's workers do not see them there; write to a folder that all machines share, or use "
            "--runner=local"
        )
    chosen.view_as(SetupOptions).save_main_session = False
    # Beam logs a worker's traceback before raising it; the DataError below has the important part.
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    context = shard.ShardContext.of(plan, output_dir)
    jobs = list(jobs)
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(output_dir, jobs, done, on_progress), daemon=True)
    watcher.start()
    try:
        with apache_beam.Pipeline(options=chosen) as pipeline:
            shards = pipeline | "shards" >> apache_beam.Create(jobs, reshuffle=True)
            _ = shards | "write" >> apache_beam.Map(_write, context)
    except DataError as error:
        raise DataError(str(error).partition(" [while running")[0]) from error
    except Exception as error:  # runners wrap what the workers raised, each in its own way
        lines = [line.strip() for line in str(error).splitlines() if "DataError: " in line]
        message = (
            lines[-1].rpartition("DataError: ")[2].partition(" [while running")[0]
            if lines
            else " ".join(str(error).split())[-500:]
        )
        raise DataError(f"the Beam pipeline failed: {message}") from error
    finally:
        done.set()
        watcher.join()


def _write(job: Job, context: shard.ShardContext) -> str:
    shard.write(context, job, workers.Counts([0, 0, 0]))
    return records.key_text(job.file.encode())


def _watch(output_dir: str, jobs: list[Job], done: threading.Event, on_progress: shard.Progress) -> None:
    """Reports progress as shards appear in the folder, wherever they are written."""
    target = storage.open_folder(output_dir)
    waiting, images, size = list(jobs), 0, 0
    while not done.wait(1.0):
        published = set(target.names())
        for job in [job for job in waiting if job.file in published]:
            waiting.remove(job)
            images += len(job.images)
            size += sum(image[1] for image in job.images)
        on_progress(images, size, 0)
