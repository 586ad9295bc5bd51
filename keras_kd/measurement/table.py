"""A measurement as a short table for a terminal."""

import textwrap

WIDTH = 100
_FIRST = 24
_BYTES = ("bytes", "gzip_bytes", "peak_activation_bytes")


def of(measurement):
    """The table of a `Measurement`, lines of at most 100 characters."""
    head = f"{measurement.name} ({measurement.kind}, {measurement.task})"
    lines = [f"{head}: {measurement.samples:,} rows"]
    lines += _section("quality", {k: f"{v:.4f}" for k, v in measurement.quality.items()})
    lines += _section("teacher", {k: f"{v:.4f}" for k, v in (measurement.teacher or {}).items()})
    lines += _section("size", {k: _size(k, v) for k, v in measurement.size.items()})
    lines += _section("latency", _latency(measurement.latency))
    for note in measurement.notes:
        lines += textwrap.wrap(f"- {note}", WIDTH, subsequent_indent="  ")
    return "\n".join(lines)


def _section(title, rows):
    return [
        f"{title if i == 0 else '':<9}{name:<{_FIRST}}{value:>16}"
        for i, (name, value) in enumerate(rows.items())
    ]


def _size(name, value):
    return f"{value:,.0f} B" if name in _BYTES else f"{value:,.0f}"


def _latency(latency):
    if latency is None:
        return {}
    return {
        latency["runtime"]: f"{latency['threads']} thread(s)",
        "median": f"{latency['median_us']:,.1f} us",
        "95th percentile": f"{latency['p95_us']:,.1f} us",
    }
