"""Rates of the stages of the input -> a table, and one sentence that says what limits and what to do."""

import dataclasses

_NEAR = 1.15  # rates nearer than this to each other are called equal


@dataclasses.dataclass(frozen=True)
class Rates:
    """Images/s of each stage.

    Attributes:
      disk: reading the encoded images with the page cache emptied; each record once.
      memory: the same from the page cache.
      decoding: reading and decoding.
      pipeline: the same through tf.data.
      augmentation: alone, on the device.
      together: pipeline and augmentation.
      cached, cached_together: the last and the last but two with the cache; None without --cache.
    """

    disk: float
    memory: float
    decoding: float
    pipeline: float
    augmentation: float
    together: float
    cached: float | None = None
    cached_together: float | None = None


@dataclasses.dataclass(frozen=True)
class Situation:
    """What a verdict depends on besides the rates.

    Attributes:
      reader, fast, cache: flags.
      device: that augments, "CPU" or "GPU".
      in_memory: whether all the shards' bytes fit into the page cache.
    """

    reader: str = "random"
    fast: bool = False
    cache: str = "none"
    device: str = "CPU"
    in_memory: bool = True


def table(rates: Rates, situation: Situation) -> str:
    rows = [
        ("reading bytes from the disk", rates.disk),
        ("reading bytes from memory", rates.memory),
        ("reading and decoding", rates.decoding),
        (f"the pipeline, reader {situation.reader}", rates.pipeline),
        (f"augmentation, on the {situation.device}", rates.augmentation),
        ("pipeline and augmentation", rates.together),
    ]
    if rates.cached is not None and rates.cached_together is not None:
        rows += [
            (f"the pipeline, --cache={situation.cache}", rates.cached),
            ("the same and augmentation", rates.cached_together),
        ]
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(
        [f"{'stage':<{width}}{'images/s':>10}", *(f"{name:<{width}}{value:>10,.0f}" for name, value in rows)]
    )


def verdict(rates: Rates, situation: Situation) -> str:
    """One sentence: what limits, what the cache would change, which flag to change."""
    read = rates.memory if situation.in_memory else rates.disk
    if rates.augmentation < rates.pipeline / _NEAR:
        where = "CPU, which also decodes" if situation.device == "CPU" else "GPU"
        helps = _cached(rates, situation) if situation.device == "CPU" else "a cache would not help"
        return (
            f"The bottleneck is augmentation on the {where} ({rates.augmentation:,.0f} images/s, "
            f"{rates.together:,.0f} with the pipeline): choose a lighter --augmentation, a smaller "
            f"--image_size or a faster device; {helps}."
        )
    if read < rates.decoding * _NEAR:
        return (
            f"The bottleneck is the disk ({read:,.0f} images/s): put the shards on a faster one; "
            f"{_cached(rates, situation)}."
        )
    if rates.pipeline < rates.decoding / _NEAR:
        remedy = "--reader=random" if situation.reader == "sequential" else "a larger --batch_size"
        return (
            f"The bottleneck is Python and tf.data around decoding ({rates.pipeline:,.0f} of "
            f"{rates.decoding:,.0f} images/s): try {remedy}; {_cached(rates, situation)}."
        )
    more = "add cores or data workers (--plan says how many)"
    flag = more if situation.fast else f"try --fast_decode, or {more}"
    return (
        f"The bottleneck is decoding ({rates.pipeline:,.0f} images/s): {flag}; {_cached(rates, situation)}."
    )


def _cached(rates: Rates, situation: Situation) -> str:
    """What the limit is, or would be, with the cache."""
    if situation.reader == "sequential":
        return "a cache needs --reader=random"
    if rates.cached is None:
        return (
            "with --cache=ram or decoded:FOLDER the bottleneck would be augmentation, at most "
            f"{rates.augmentation:,.0f} images/s (add --cache to this command to measure it)"
        )
    what = "augmentation" if rates.augmentation < rates.cached else "the cache"
    return (
        f"with --cache={situation.cache} it is {rates.cached_together:,.0f} instead of {rates.together:,.0f} "
        f"images/s, and the bottleneck is {what}"
    )
