"""Reads and decodes images for trainers on other machines, until it is stopped.

    cpu1$ python -m deepduel.data_service --host=cpu1 --port=5050
    gpu$  python -m deepduel.train --data_workers=cpu1:5050,cpu2:5050 …

The shards must lie under the same path, or URL, on all machines. Without --host
it can be reached from its own machine alone. Whoever reaches the port may read
every folder of shards that this process may read, without a password: open it to
a trusted network only, or leave --host out and use a tunnel, such as
ssh -L 5050:localhost:5050 cpu1. No code is accepted from trainers.
"""

import sys

from absl import flags

from deepduel.reading import data_protocol
from deepduel.reading import flags as read_flags
from tfrecords_tools import cli
from tfrecords_tools.errors import UsageError

FLAGS = flags.FlagValues()
flags.DEFINE_integer(
    "port", None, "Port to listen on, such as 5050.", lower_bound=1, upper_bound=65535, flag_values=FLAGS,
    required=True,
)  # fmt: skip
flags.DEFINE_string(
    "host", "127.0.0.1",
    "Name or address of this machine on which it can be reached; 0.0.0.0 for all of its networks.",
    flag_values=FLAGS,
)  # fmt: skip
read_flags.define(FLAGS, ("threads", "remote_cache"))


def main(options: flags.FlagValues) -> None:
    """Listens, and serves until it is interrupted."""
    from deepduel.decoding import remote_cache

    remote_cache.parse(options.remote_cache)
    cli.quiet_tensorflow()  # usage errors need not wait for it
    from deepduel.reading.data_server import DataServer

    address = data_protocol.Address(options.host, options.port)
    try:
        server = DataServer(address, threads=options.threads or None, remote_cache=options.remote_cache)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {address} ({error.strerror or error}); give another --port, or as --host "
            "a name or an address of this machine"
        ) from error
    with server:
        print(f"data worker on {address} with {server.greeting.cores} cores; Ctrl-C stops it", flush=True)
        server.serve_forever()


def entry() -> int:
    """The command; returns its exit code."""
    return cli.run(
        main,
        FLAGS,
        name="deepduel.data_service",
        usual={"Address": ("host", "port"), "Reading": ("threads", "remote_cache")},
        usage="--port=5050",
    )


if __name__ == "__main__":
    sys.exit(entry())
