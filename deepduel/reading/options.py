"""How a split is read: options that check themselves, without TensorFlow."""

import dataclasses

from deepduel.decoding import bad_records, pixel_cache, remote_cache
from deepduel.decoding.image import DecodeOptions
from deepduel.decoding.split import Split
from deepduel.reading import data_protocol, order
from deepduel.reading.sampling import Sampling
from tfrecords_tools.errors import UsageError

READERS = ("random", "sequential")


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How a split is read.

    Attributes:
      batch_size: images per batch, >= 1.
      size: (height, width) of the batches; None takes the images' own, if they have one size.
      fit: "crop", "pad" or "native", see DecodeOptions. In training, "native" cuts at a random place, by the
        image's seed; in evaluation in the centre.
      fast_decode: approximate JPEG decoding, see DecodeOptions.
      reader: "random" reads records by number, each at its place in its shard, in a true global
        shuffle. "sequential" streams the shards (any file system that TensorFlow knows) and
        shuffles shards and windows of 8,192 records.
      threads: processes that decode where there is much to decode, see `worker_pool` (sequential: threads);
        None: one per core.
      on_error: what a record does that does not decode: "fail" ends the reading with its shard, number
        and key; "skip" leaves it out: its row is black and has weight 0, `bad_records` counts it.
      sampling: how often an epoch takes each record, see `sampling`. Needs the random reader.
      cache: of decoded pixels, see `pixel_cache`: "none", "ram" or "decoded:PATH". Filled while the
        first epoch runs. Needs the random reader.
      remote_cache: of the encoded images of shards in an object store, see `remote_cache`: "auto", "none",
        "ram[:SIZE]" or "FOLDER[:SIZE]". Used by the random reader.
      worker: which part of every batch to read; `batch_size` is that of all workers together.
      data_workers: HOST:PORT of processes on other machines that read and decode, see `data_workers`; they
        have caches and a number of threads of their own.
    """

    batch_size: int
    size: tuple[int, int] | None = None
    fit: str = "crop"
    fast_decode: bool = False
    reader: str = "random"
    threads: int | None = None
    on_error: str = "fail"
    sampling: str = "uniform"
    cache: str = "none"
    worker: order.Worker = order.Worker()
    remote_cache: str = "auto"
    data_workers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.reader not in READERS:
            raise UsageError(f"reader must be one of {', '.join(READERS)}, got {self.reader!r}")
        if self.on_error not in bad_records.POLICIES:
            raise UsageError(
                f"on_error must be one of {', '.join(bad_records.POLICIES)}, got {self.on_error!r}"
            )
        if Sampling.parse(self.sampling).kind != "uniform" and self.reader == "sequential":
            raise UsageError(
                f"sampling={self.sampling} needs reader=random: the sequential reader takes the records as "
                "they lie in the shards"
            )
        pixel_cache.check(self.cache)
        if self.cache != "none" and self.reader == "sequential":
            raise UsageError(f"cache={self.cache} needs reader=random: its rows are read by record number")
        remote_cache.parse(self.remote_cache)
        if self.remote_cache != "auto" and self.reader == "sequential":
            raise UsageError(
                f"remote_cache={self.remote_cache} needs reader=random: the sequential reader streams shards"
            )
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads must be at least 1, got {self.threads}")
        self._check_data_workers()

    def _check_data_workers(self) -> None:
        if not self.data_workers:
            return
        addresses = [data_protocol.Address.parse(address) for address in self.data_workers]
        if len(set(addresses)) < len(addresses):
            raise UsageError(f"data_workers={','.join(self.data_workers)} names an address twice")
        if self.cache != "none":
            raise UsageError(
                f"cache={self.cache} keeps what this machine decodes, and with data_workers it decodes "
                "nothing; leave one of the two out"
            )
        if self.remote_cache != "auto":
            raise UsageError(
                f"remote_cache={self.remote_cache} keeps what this machine reads, and with data_workers it "
                "reads nothing; give --remote_cache to deepduel.data_service instead"
            )

    def check_equal_parts(self) -> None:
        """Raises UsageError where the workers of a training would have parts of different sizes.

        Data workers may: their parts are joined before anything is computed.
        """
        if self.batch_size % self.worker.count:
            raise UsageError(
                f"batch_size is that of all workers together and must be a multiple of their number, "
                f"{self.worker.count}; got {self.batch_size}"
            )

    def decoding(self, split: Split) -> DecodeOptions:
        """Raises UsageError when the images differ in size and no size was asked for."""
        size = self.size or split.one_size
        if size is None:
            sizes = split.manifest.image_sizes
            raise UsageError(
                f"the images of {split.data_dir} have {len(sizes)} different sizes; set size=(height, width) "
                "to resize them"
            )
        if self.fit == "native" and self.cache != "none" and split.one_size != size:
            raise UsageError(
                f"cache={self.cache}: at native resolution every epoch cuts other places out of the images, "
                "so no pixels can be kept; leave the cache out"
            )
        return DecodeOptions(size, self.fit, self.fast_decode)
