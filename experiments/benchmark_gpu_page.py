"""The page of `benchmark_gpu`: its result as Markdown."""

WAYS = {
    "deepduel": "deepduel", "deepduel-xla": "deepduel, XLA", "keras": "Keras' fit",
    "keras-xla": "Keras' fit, XLA",
}  # fmt: skip


def page(result: dict) -> str:
    machine, rows = result["machine"], result["rows"]
    card = machine["gpu"] or "no GPU: these figures are the CPU's"
    software = ", ".join(f"{name} {machine[name]}" for name in ("python", "tensorflow", "keras", "keras-cv"))
    parts = [f"# {card}\n\n{machine['cores']} cores, {software}, {machine['date']}"]
    for kind, title, make in (
        (
            "training",
            "Training, images/s (peak memory, estimate; utilisation by nvidia-smi)",
            _training,
        ),
        ("augmentation", "Augmentation of 200 px to the networks' input, images/s", _augmentation),
        ("waiting", "Waiting for input", _waiting),
    ):
        of_kind = [row for row in rows if row["kind"] == kind]
        if of_kind:
            parts.append(f"## {title}\n\n{make(of_kind)}")
    return "\n\n".join(parts) + "\n"


def _table(head: list[str], lines: list[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _training(rows: list[dict]) -> str:
    cells: dict[tuple, dict[str, str]] = {}
    whole = []
    for row in rows:
        if "batch" not in row:
            whole.append(f"- {row['network']}, {row['precision']}: {row['failed']}")
            continue
        key = row["network"], row["precision"], row["batch"]
        cells.setdefault(key, {})[row["way"]] = _cell(row)
    lines = [
        [network, precision, f"{batch:,}", *(by_way.get(way, "") for way in WAYS)]
        for (network, precision, batch), by_way in cells.items()
    ]
    table = _table(["network", "precision", "batch", *WAYS.values()], lines)
    return "\n\n".join(part for part in (table, "\n".join(whole)) if part)


def _cell(row: dict) -> str:
    if "failed" in row:
        return row["failed"]
    used = "" if row["utilisation"] is None else f"; {row['utilisation']:.0f} %"
    estimate = f", {row['estimated_bytes'] / 1e9:.2f} estimated" if "estimated_bytes" in row else ""
    return f"{row['images_per_second']:,.1f} ({row['peak_bytes'] / 1e9:.2f} GB{estimate}{used})"


def _augmentation(rows: list[dict]) -> str:
    lines = [[row.get("way", ""), row.get("failed") or f"{row['images_per_second']:,.0f}"] for row in rows]
    return _table(["", "images/s"], lines)


def _waiting(rows: list[dict]) -> str:
    lines, notes = [], []
    for row in sorted(rows, key=lambda row: row["cores"]):
        if "failed" in row:
            lines.append([str(row["cores"]), row["failed"], ""])
            continue
        rate = f"{row['images_per_second']:,.1f}"
        lines.append([str(row["cores"]), rate, f"{row['waiting_share']:.0%}"])
        if "trace" in row:
            notes.append(_trace(row))
    return "\n\n".join([_table(["cores", "images/s", "of the time spent waiting"], lines), *notes])


def _trace(row: dict) -> str:
    trace = row["trace"]
    if trace is None:
        return "The profiler's trace has no GPU."
    text = (
        f"Trace of three steps with {row['cores']} cores: kernels ran {trace['busy_share']:.0%} of the time; "
    )
    if not trace["copies"]:
        return text + "nothing was copied to the GPU."
    return text + (
        f"{trace['copies']} copies to the GPU took {trace['copy_seconds'] * 1000:.1f} ms, of which "
        f"{trace['overlapped_share']:.0%} overlapped with kernels."
    )
