"""docs/benchmarks.md, its pictures, and the short table of the README: all from the rows, nothing typed in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from peers.installed import TOOLS
from peers.picture import LATENCY, SIZE, draw
from peers.rows import OK, Row, read_rows

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "side_by_side.csv"
PAGE = ROOT / "docs" / "benchmarks.md"
PICTURES = {ROOT / "docs" / "benchmarks_size.svg": SIZE, ROOT / "docs" / "benchmarks_latency.svg": LATENCY}
README = ROOT / "README.md"
BEGIN, END = "<!-- side by side: begin -->", "<!-- side by side: end -->"
GROUPS = {"weight8": "8", "weight6": "6", "weight5": "5", "weight4": "4", "weight3": "3"} | {
    "full8": "int8",
    "dynamic8": "dynamic int8",
}
SHORT_GROUPS = ("weight8", "weight4", "weight3", "full8", "dynamic8")

HEAD = """\
# Side by side with other tools

ptq_lab and the other quantizers for ONNX models that are installed, on the same models, samples and runtime. This page
is generated: every number comes from [`side_by_side.csv`](../benchmarks/results/side_by_side.csv), which
`python benchmarks/side_by_side.py` writes.

![Size against error](benchmarks_size.svg)

![Latency against error](benchmarks_latency.svg)
"""
READING = """\
## How to read the tables

- **file**: bytes of the quantized model, external data included; beside it the share of the float file.
- **cosine**: of the first output with that of the float model; mean over the evaluation samples, and the worst 1 %
  below. `agree`: the share of samples that get the same class.
- **latency**: ratio to the float model, one thread, batch 1, both measured in turn in one process with the order
  swapped; median and quartiles. Below 1 is faster than float32.
- **CPU s**, **peak**: processor seconds (all threads and children) and largest memory of the whole quantizing process,
  imports included, with one thread for linear algebra. Clock times are in the CSV; on a busy machine they say little.
- Every tool gets the same calibration samples, and its adapter (`benchmarks/peers/peer_<tool>.py`) uses what its
  documentation advises for a CPU. All rounds go through all tools, in alternating order.
- *not offered*: the tool has no such mode for this model. *not loadable*: it wrote a file that plain onnxruntime
  refuses. *nothing quantized*: it ended well, and the file holds the float weights.
- `round to nearest` is no product but a yardstick: what a page of numpy does.
"""
AGAIN = """\
## Run it yourself

```bash
python benchmarks/peers/installed.py                # one environment per tool, in PTQ_LAB_PEERS (default ../.peers)
python benchmarks/side_by_side.py                   # everything that is installed, all models; then this page
python benchmarks/side_by_side.py --only ptqlab --modes weight4,weight3     # measures some rows again, keeps the rest
python benchmarks/side_by_side.py --page            # the page alone, from the CSV
```

`PTQ_LAB_MODELS` names the folder of the trained models; without them the three embedded demos are measured, so a clone
is enough. onnxruntime's own quantizer needs no environment of its own. Results for a page of your own go elsewhere with
`--results FILE`. It needs Linux or macOS.

Another tool takes an adapter, `peer_<tool>.py`, and a line in `installed.py`; `adapter.py` says what an adapter
prints. Adapters of this form can be kept elsewhere too: `--adapters FOLDER`.
"""


def build(results: Path = RESULTS) -> dict[Path, str]:
    """Return every generated file with its text."""
    rows = read_rows(results)
    made = {PAGE: page(rows), **{path: draw(rows, axis) for path, axis in PICTURES.items()}}
    return made | {README: with_short_table(README.read_text(encoding="utf-8"), rows)}


def page(rows: Sequence[Row]) -> str:
    """Return docs/benchmarks.md."""
    models = list(dict.fromkeys(row.model for row in rows))
    parts = [HEAD, _origin(rows), READING, *(_of_model(rows, model) for model in models), AGAIN]
    return "\n".join(parts)


def with_short_table(readme: str, rows: Sequence[Row]) -> str:
    """Return the README with its table written anew."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{short_table(rows)}{END}{after}"


def short_table(rows: Sequence[Row]) -> str:
    """Return, per model and kind of quantization, our most accurate row and the most accurate of all others.

    Files that are hardly smaller than the float model do not count here.
    """
    head = ("model", "bits", "tool", "file", "cosine", "metric", "latency", "CPU s")
    lines = []
    for model in dict.fromkeys(row.model for row in rows):
        for group in SHORT_GROUPS:
            some = [row for row in rows if row.model == model and row.smaller and row.mode.startswith(group)]
            ours = [row for row in some if row.tool == "ptqlab"]
            others = [row for row in some if row.tool != "ptqlab"]
            firsts = [min(part, key=lambda row: row.error) for part in (ours, others) if part]
            lines += [(model, GROUPS[group], _tool(best), *_short(best)) for best in firsts]
    return table(head, lines, right=head[3:])


def table(head: Sequence[str], lines: Sequence[Sequence[str]], right: Sequence[str]) -> str:
    """Return a markdown table."""
    rule = ["---:" if name in right else "---" for name in head]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *lines))


def _origin(rows: Sequence[Row]) -> str:
    def told(name: str) -> str:
        return "; ".join(dict.fromkeys(str(getattr(row, name)) for row in rows if getattr(row, name)))

    loads = sorted(float(row.load) for row in rows if row.load)
    versions = {}
    for row in rows:
        if row.version and row.tool not in ("naive", "ptqlab"):
            versions.setdefault(TOOLS[row.tool].title, row.version)
    rounds = sorted({row.rounds for row in rows if row.rounds is not None and row.usable})
    dates = sorted({row.date for row in rows if row.date})
    facts = [
        f"- Measured {dates[0]}" + (f" to {dates[-1]}" if dates[1:] else "") + " (UTC)." if dates else "",
        f"- Processor: {told('processor')}; load average {loads[0]:.1f} to {loads[-1]:.1f}." if loads else "",
        f"- Rounds: {rounds[0]}" + (f" to {rounds[-1]}" if rounds[1:] else "") + "." if rounds else "",
        f"- Judged by {told('runtime')}.",
        "- Tools: " + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".",
        "- Commands: " + ", ".join(f"`{each}`" for each in dict.fromkeys(row.command for row in rows)) + ".",
    ]
    return "## Where the numbers come from\n\n" + "\n".join(filter(None, facts)) + "\n"


def _of_model(rows: Sequence[Row], model: str) -> str:
    some = [row for row in rows if row.model == model]
    first = next((row for row in some if row.metric_float is not None), some[0])
    size = f"{(first.float_bytes or 0) / 1e6:.3f} MB"
    metric = f", {first.metric_name} {_metric(first, first.metric_float)}" if first.metric_float is not None else ""
    parts = [f"## {model}\n\nFloat model: {size}{metric}; {first.data}.\n"]
    head = ("tool", "settings", "file", "cosine", "worst 1 %", "agree", "metric", "latency", "CPU s", "peak MB")
    for group, title in GROUPS.items():
        lines = [_line(row) for row in _ranked(row for row in some if row.mode.startswith(group))]
        if lines:
            name = f"{title} bits, weights only" if title.isdigit() else title
            parts.append(f"### {model}: {name}\n\n{table(head, lines, right=head[2:])}")
    return "\n".join(parts)


def _ranked(rows: Iterator[Row]) -> list[Row]:
    """Most accurate first; then what came to nothing."""
    return sorted(rows, key=lambda row: (not row.usable, row.error if row.usable else 0.0))


def _line(row: Row) -> tuple[str, ...]:
    settings = " ".join(filter(None, (row.mode.partition("-")[2], row.variant))) or "default"
    if row.status != OK:
        said = f"*{row.status}*: {_escaped(row.reason)}"
        return _tool(row), settings, said, *[""] * 5, _number(row.cpu_s, ".1f"), _number(row.peak_mb, ".0f")
    cosine = "*nothing quantized*" if row.unchanged else _number(row.cosine, ".5f")
    quartiles = f" ({_number(row.latency_low, '.2f')}-{_number(row.latency_high, '.2f')})"
    return (
        _tool(row),
        settings,
        f"{(row.bytes or 0) / 1e6:.3f} MB ({100 * (row.bytes or 0) / (row.float_bytes or 1):.0f} %)",
        cosine,
        _number(row.cosine_p1, ".4f"),
        _number(row.agreement, ".3f"),
        _metric(row, row.metric),
        _number(row.latency, ".2f") + quartiles,
        _number(row.cpu_s, ".1f"),
        _number(row.peak_mb, ".0f"),
    )


def _short(row: Row) -> tuple[str, ...]:
    return (
        f"{(row.bytes or 0) / 1e6:.2f} MB",
        _number(row.cosine, ".5f"),
        _metric(row, row.metric),
        f"{_number(row.latency, '.2f')}x",
        _number(row.cpu_s, ".1f"),
    )


def _metric(row: Row, value: float | None) -> str:
    if value is None:
        return ""
    forms = {"top-1": f"{100 * value:.2f} %", "Spearman": f"{100 * value:.2f}", "PSNR dB": f"{value:.2f} dB"}
    return forms[row.metric_name]


def _tool(row: Row) -> str:
    title = TOOLS[row.tool].title
    return f"**{title}**" if row.tool == "ptqlab" else title


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _escaped(text: str) -> str:
    return text.replace("|", "/").replace("<", "&lt;")
