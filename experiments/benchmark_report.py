"""Runs of `benchmark_throughput` -> one document (JSON), its tables and its bar chart."""

import datetime
import io
import os
import pathlib
import platform
import statistics
import sys

from experiments import benchmark_contenders as contenders
from experiments.benchmark_job import Job

FORMAT_VERSION = 1
_OURS, _OTHERS, _LIMIT = "#0b6e8f", "#b9c2c9", "#e3e6e8"


def document(job: Job, settings, runs: list[dict]) -> dict:
    """Everything that is worth keeping, from the runs of `benchmark_throughput.measure_all`."""
    return {
        "format": "deepduel-benchmark",
        "format_version": FORMAT_VERSION,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "-m", f"experiments.{pathlib.Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "machine": machine(),
        "images": {"split": job.split, "count": len(job.files), "bytes": job.bytes, "size": list(job.size)},
        "settings": {
            "threads": list(settings.threads), "cache": list(settings.caches), "rounds": settings.rounds,
            "seconds": settings.seconds, "warmup_seconds": settings.warmup_seconds,
            "batch_size": settings.batch_size, "image_size": settings.image_size,
        },
        "contenders": [_entry(contender, runs) for contender in settings.contenders],
        "ratios": _ratios(settings, runs),
    }  # fmt: skip


def machine() -> dict:
    """Processor, cores in use, memory in bytes, kernel, and how busy the machine was besides."""
    information = pathlib.Path("/proc/cpuinfo")
    models = [
        line.partition(":")[2].strip()
        for line in (information.read_text().splitlines() if information.exists() else [])
        if line.startswith("model name")
    ]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "load_average": os.getloadavg()[0],
    }


def _entry(contender: contenders.Contender, runs: list[dict]) -> dict:
    own = [run for run in runs if run["contender"] == contender.name]
    entry = {
        "name": contender.name,
        "title": contender.title,
        "group": contender.group,
        "note": contender.note,
    }
    for run in own:
        if "missing" in run:
            return entry | {"status": "not installed", "reason": f"needs {', '.join(run['missing'])}"}
        if "failed" in run:
            return entry | {"status": "failed", "reason": run["failed"], "runs": own}
    measured = [run for run in own if run["round"] is not None]
    if not measured:
        return entry | {"status": "not measured", "reason": "reads memory, whatever the page cache holds"}
    last = measured[-1]
    entry |= {
        "status": "measured",
        "versions": last["versions"],
        "batch": last["batch"],
        "bytes": last["bytes"],
    }
    entry["results"] = []
    for threads, cache in dict.fromkeys((run["threads"], run["cache"]) for run in measured):
        rates = _rates(runs, contender.name, threads, cache).values()
        entry["results"].append(
            {
                "threads": threads,
                "cache": cache,
                "images_per_second": statistics.median(rates),
                "lowest": min(rates),
                "highest": max(rates),
                "images_per_cpu_second": statistics.median(
                    _rates(runs, contender.name, threads, cache, "cpu_seconds").values()
                ),
                "peak_rss_bytes": max(
                    run["peak_rss_bytes"]
                    for run in measured
                    if (run["threads"], run["cache"]) == (threads, cache)
                ),
            }
        )
    return entry | {"runs": own}


def _rates(runs: list[dict], name: str, threads: int, cache: str, per: str = "seconds") -> dict[int, float]:
    """images/s by round; with `per` "cpu_seconds", images per second of processor time."""
    return {
        run["round"]: run["images"] / max(run[per], 0.01)  # the kernel counts processor time in 1/100 s
        for run in runs
        if (run["contender"], run["threads"], run["cache"]) == (name, threads, cache) and "images" in run
    }


def _ratios(settings, runs: list[dict]) -> list[dict]:
    """Ratios are taken within each round, where machine and neighbours were the same."""
    ratios = []
    for cache in settings.caches:
        for threads in settings.threads:
            for of, over in contenders.RATIOS:
                values = _quotients(runs, of, over, threads, cache, "seconds")
                if not values:
                    continue
                work = _quotients(runs, of, over, threads, cache, "cpu_seconds")
                ratios.append(
                    {
                        "of": of, "over": over, "threads": threads, "cache": cache,
                        "ratio": statistics.median(values), "lowest": min(values), "highest": max(values),
                        "cpu_ratio": statistics.median(work),
                    }
                )  # fmt: skip
    return ratios


def _quotients(runs: list[dict], of: str, over: str, threads: int, cache: str, per: str) -> list[float]:
    ours, theirs = (_rates(runs, name, threads, cache, per) for name in (of, over))
    return [ours[turn] / theirs[turn] for turn in ours if turn in theirs]


def text(document: dict) -> str:
    """The tables for the terminal."""
    host, images, settings = (document[key] for key in ("machine", "images", "settings"))
    height, width = images["size"]
    lines = [
        f"{host['processor']}, {host['cores']} cores, {host['memory_bytes'] / 2**30:.0f} GB, "
        f"{host['system']}",
        f"{images['count']:,} JPEG images {width}x{height}, {images['bytes'] / 1e6:.1f} MB; batches of "
        f"{settings['batch_size']}; median (lowest - highest) of {settings['rounds']} rounds",
    ]
    for group in contenders.GROUPS:
        entries = [entry for entry in document["contenders"] if entry["group"] == group]
        if entries:
            lines += ["", group, *_rows(entries, settings)]
    if document["ratios"]:
        lines += ["", "Ratios, taken within each round"]
        lines += _columns([_ratio_row(ratio, settings) for ratio in document["ratios"]], right=(0,))
    if scaling := _scaling(document):
        most = max(settings["threads"])
        lines += ["", f"Scaling: images/s with {most} cores over those with {min(settings['threads'])}"]
        lines += _columns(scaling, right=(0,))
    lines += ["", "Versions"] + _versions(document)
    return "\n".join(lines)


def _rows(entries: list[dict], settings: dict) -> list[str]:
    rows = [("", "images/s", "", "per CPU s", "batches", "data set", "peak memory")]
    for entry in entries:
        if entry["status"] != "measured":
            rows.append((entry["title"], entry["status"], "", "", entry["reason"][:60], "", ""))
        for result in entry.get("results", []):
            rows.append(
                (
                    entry["title"] + _where(result, settings),
                    f"{result['images_per_second']:,.0f}",
                    f"({result['lowest']:,.0f} - {result['highest']:,.0f})",
                    f"{result['images_per_cpu_second']:,.0f}",
                    entry["batch"],
                    f"{entry['bytes'] / 1e6:,.0f} MB",
                    f"{result['peak_rss_bytes'] / 2**20:,.0f} MB",
                )
            )
    noted = {}
    for entry in entries:
        noted.setdefault(entry["note"], []).append(entry["name"])
    notes = [f"    {', '.join(names)}: {note}" for note, names in noted.items() if note]
    return _columns(rows, right=(1, 3, 5, 6)) + notes


def _where(result: dict, settings: dict) -> str:
    """What distinguishes a row, if there is more than one kind: ", 2 cores, cold"."""
    cores = (
        f", {result['threads']} core{'s' if result['threads'] > 1 else ''}"
        if len(settings["threads"]) > 1
        else ""
    )
    return cores + (f", {result['cache']}" if len(settings["cache"]) > 1 else "")


def _ratio_row(ratio: dict, settings: dict) -> tuple[str, ...]:
    of, over = (contenders.by_name(ratio[key]).title for key in ("of", "over"))
    return (
        f"{ratio['ratio']:.3g}x",
        f"({ratio['lowest']:.3g} - {ratio['highest']:.3g})",
        f"per CPU s {ratio['cpu_ratio']:.3g}x",
        of,
        f"over {over}{_where(ratio, settings)}",
    )


def _scaling(document: dict) -> list[tuple[str, ...]]:
    """A row for each contender that was measured on several numbers of cores; the best first."""
    few, most = (pick(document["settings"]["threads"]) for pick in (min, max))
    rows = []
    for entry in document["contenders"]:
        for cache in document["settings"]["cache"]:
            rate = {
                result["threads"]: result["images_per_second"]
                for result in entry.get("results", [])
                if result["cache"] == cache
            }
            if few < most and rate.keys() >= {few, most}:
                where = f", {cache}" if len(document["settings"]["cache"]) > 1 else ""
                rows.append((rate[most] / rate[few], entry["title"] + where))
    return [(f"{ratio:.2f}x", title) for ratio, title in sorted(rows, reverse=True)]


def _versions(document: dict) -> list[str]:
    versions = {}
    for entry in document["contenders"]:
        for name, version in entry.get("versions", {}).items():
            versions.setdefault(name, set()).add(version)
    return ["  " + ", ".join(f"{name} {' and '.join(sorted(v))}" for name, v in sorted(versions.items()))]


def _columns(rows: list[tuple[str, ...]], *, right: tuple[int, ...]) -> list[str]:
    """Rows as lines, in columns as wide as need be; those in `right` are aligned to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  " + "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]  # fmt: skip


def chart(document: dict) -> bytes:
    """A PNG: images/s, a panel per group, warm cache, most threads; whiskers from lowest to highest."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [(group, bars) for group in contenders.GROUPS if (bars := _bars(document, group))]
    if not panels:
        panels = [("nothing was measured", [])]
    heights = [max(len(bars), 1) + 1.2 for _, bars in panels]
    figure, axes = pyplot.subplots(
        len(panels), 1, figsize=(10, 0.34 * sum(heights) + 0.6), height_ratios=heights, squeeze=False
    )
    for axis, (group, bars) in zip(axes[:, 0], panels, strict=True):
        _panel(axis, group, bars)
    host = document["machine"]
    axes[-1, 0].set_xlabel(f"images/s on {host['cores']} cores, {host['processor']}", fontsize=8)
    figure.tight_layout()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=144)
    pyplot.close(figure)
    return stream.getvalue()


def _bars(document: dict, group: str) -> list[tuple[dict, dict]]:
    """(entry, result), fastest first."""
    threads = max(document["settings"]["threads"])
    bars = [
        (entry, result)
        for entry in document["contenders"]
        if entry["group"] == group and entry["status"] == "measured"
        for result in entry["results"]
        if result["threads"] == threads and result["cache"] == document["settings"]["cache"][0]
    ]
    return sorted(bars, key=lambda bar: -bar[1]["images_per_second"])


def _panel(axis, group: str, bars: list[tuple[dict, dict]]) -> None:
    rates = [result["images_per_second"] for _, result in bars]
    spread = [
        [result["images_per_second"] - result["lowest"] for _, result in bars],
        [result["highest"] - result["images_per_second"] for _, result in bars],
    ]
    colours = [
        _OURS if entry["name"].startswith("ours") else _LIMIT if entry["name"].startswith("bare") else _OTHERS
        for entry, _ in bars
    ]
    places = range(len(bars))
    axis.barh(places, rates, color=colours, xerr=spread, error_kw={"elinewidth": 0.8, "ecolor": "#555"})
    for place, result in zip(places, (result for _, result in bars), strict=True):
        axis.text(result["highest"], place, f"  {result['images_per_second']:,.0f}", va="center", fontsize=8)
    axis.set_yticks(places, [entry["title"] for entry, _ in bars], fontsize=8)
    axis.set_ylim(len(bars) - 0.4, -0.6)  # fastest on top, bars equally thick in all panels
    axis.set_title(group, loc="left", fontsize=9, fontweight="bold")
    axis.tick_params(axis="x", labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.12)
    axis.set_xlim(left=0)
