"""Mixed bits against one width for all and against the original's rule, on samples that the search has not seen.

Packed: at the bytes of one width for all weights, the best widths of the front against that width, with the same
corrections and without any. Coded: one step per tensor, sizes as order-0 entropy of the codes; steps by sensitivity at
the coded bytes of the original's rule, and the bytes they take at its error. The sensitivity pass is timed in turns
with plain runs of the same samples, one thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from bars import Cell, Measured, Table, arguments_parser
from numpy.typing import NDArray
from sentences import ranks, sentences
from timing import machine_facts
from workloads import DATA, Feeds, find_workloads

from ptq_lab.graph import Model, Rules, find_targets, load_model
from ptq_lab.numerics.entropy import code_entropy
from ptq_lab.numerics.step import decode_step, find_step, step_codes, try_step
from ptq_lab.plan import QuantPlan, make_plan
from ptq_lab.progress import silent
from ptq_lab.runtime import open_session, run_session
from ptq_lab.search.allocate import Tables, meet_error
from ptq_lab.search.coded import CodedSteps
from ptq_lab.search.packed import PackedWidths
from ptq_lab.search.relative import fewest_bits
from ptq_lab.search.sensitivity import Sensitivity, changes_of, measure_sensitivity
from ptq_lab.search.trials import Trials

WIDTHS = tuple(range(2, 9))
PACKED_BARS = {4: 0.7, 5: 0.5, 6: 0.5}  # of the error of one width for all, with the same corrections
UNCORRECTED_BARS = {4: None, 5: 0.25, 6: 0.25}
ENTROPY = {
    "mobilenet_v1_075": {0.02: 5.9, 0.05: 4.6, 0.1: 3.6},
    "minilm_l6": {0.02: 6.0, 0.05: 4.7, 0.1: 3.7},
}
CODED_BAR, PACKED_SIZE_BAR = 0.35, 7.4
PROBES, JUDGES, ALLOCATIONS = 8, 32, 60
COLUMNS = {"model": 17, "what": 52, "value": 34, "detail": 40}


@dataclass(frozen=True, slots=True)
class Case:
    """A model, the samples that the search sees, and others that judge."""

    name: str
    model: Model
    plan: QuantPlan
    probes: Sequence[Feeds]
    judges: Trials

    def error(self, plan: QuantPlan) -> float:
        """Return ``1 - cosine`` of the outputs with the weights of a plan."""
        return self.judges.error(changes_of(plan, self.model.weight))

    def with_bits(self, bits: Mapping[str, int] | int, *, correct: bool = True) -> QuantPlan:
        """Return the plan with other widths."""
        entries = tuple(replace(entry, correct=correct) for entry in self.plan.entries)
        return replace(self.plan, entries=entries).with_bits(bits)


def main() -> None:
    parser = arguments_parser(__doc__)
    parser.add_argument("--models", default="mobilenet_v1_075,minilm_l6", help="comma-separated (default %(default)s)")
    arguments = parser.parse_args()
    facts, table = machine_facts(), Table(COLUMNS, ("model", "what"))
    for name in arguments.models.split(","):
        case = open_case(name)
        sensitivity, seconds, plain = timed_sensitivity(case)
        widths = PackedWidths(plan=case.plan, read=case.model.weight, allowed=WIDTHS, pins={})
        tables = widths.tables(sensitivity)
        add = Rows(table, name)
        layers = len(case.plan.entries)
        add("sensitivity pass, in plain runs", Measured(value=seconds / plain, bar=2 * (layers + 2), form=".1f"))
        packed(case, tables, add)
        ordered(case, tables, add)
        tuned(case, tables, add)
        coded(case, add)
    table.finish(arguments, facts)


@dataclass(frozen=True, slots=True)
class Rows:
    """Adds rows of one model."""

    table: Table
    name: str

    def __call__(self, what: str, value: Measured, detail: str = "") -> None:
        """Add a row."""
        row: dict[str, Cell] = {"model": self.name, "what": what, "value": value, "detail": detail}
        self.table.add(row)


def open_case(name: str) -> Case:
    """Return a model with its samples: calibration data to search with, evaluation data to judge."""
    (workload,) = find_workloads(name)
    model = load_model(workload.path)
    plan = make_plan(find_targets(model, Rules(min_channels=0)), bits=8)
    if name == "minilm_l6":
        probes, judges = sentences("calib")[::16][:PROBES], sentences("eval")[::30][:JUDGES]
    else:
        calibration = "cifar10-calib" if "cifar" in name else "imagenet-calib"
        probes = list(replace(workload, source=lambda: DATA / calibration).samples(PROBES))
        judges = list(workload.samples(JUDGES))
    return Case(name, model, plan, probes, Trials(model, [entry.tensor for entry in plan.entries], judges))


def timed_sensitivity(case: Case) -> tuple[Sensitivity, float, float]:
    """Return gains, the seconds they took, and the seconds of one plain run of the same samples around them."""
    session = open_session(case.model)

    def plain() -> float:
        start = time.perf_counter()
        for feeds in case.probes:
            run_session(session, feeds)
        return time.perf_counter() - start

    plain()
    before = [plain() for _ in range(3)]
    start = time.perf_counter()
    sensitivity = measure_sensitivity(case.model, case.plan, case.probes)
    seconds = time.perf_counter() - start
    return sensitivity, seconds, float(np.median([*before, *(plain() for _ in range(3))]))


def packed(case: Case, tables: Tables, add: Rows) -> None:
    """Compare at the bytes of one width for all, and look at the size that the relative rule gives."""
    for bits, bar in PACKED_BARS.items():
        uniform = case.with_bits(bits)
        found = tables.within_size(sum(entry.bytes_after for entry in uniform.entries))
        assert found is not None  # one width for all is an allocation
        ours, theirs = case.error(case.with_bits(found.labels)), case.error(uniform)
        plain = case.error(case.with_bits(bits, correct=False))
        add(f"error of {bits} bits for all, at equal bytes", Measured(value=ours / theirs, bar=bar), f"{ours:.4g}")
        limit = UNCORRECTED_BARS[bits]
        add(f"error of uncorrected {bits} bits, at equal bytes", Measured(value=ours / plain, bar=limit))
    rule = fewest_bits(case.plan, case.model.weight, 0.02)
    before = sum(entry.bytes_before for entry in rule.entries)
    size = 32 * sum(entry.bytes_after for entry in rule.entries) / before
    add("bits per weight at init_scale 0.02, with scales", Measured(value=size, bar=PACKED_SIZE_BAR))


def ordered(case: Case, tables: Tables, add: Rows) -> None:
    """Compare predicted and true errors of random allocations, where the true one is below 0.05."""
    generator, expected, true = np.random.default_rng(0), [], []
    while len(true) < ALLOCATIONS:
        low = int(generator.integers(4, 7))
        bits = dict(
            zip(tables.sensitivity.tensors, generator.integers(low, 9, len(case.plan.entries)).tolist(), strict=True)
        )
        error = case.error(case.with_bits(bits))
        if error < 0.05:
            true.append(error)
            expected.append(tables.allocation(tables.columns(bits)).predicted)
    value = float(np.corrcoef(ranks(np.array(expected)), ranks(np.array(true)))[0, 1])
    add("Spearman of predicted and true errors", Measured(value=value, bar=0.89, at_least=True, form=".3f"))


def tuned(case: Case, tables: Tables, add: Rows) -> None:
    """Look for the coarsest widths with a cosine of 0.995."""
    before = case.judges.runs
    found = meet_error(tables, 0.005, lambda bits: case.error(case.with_bits(bits)))
    assert found is not None  # 8 bits are enough on the models here
    runs, layers = tables.sensitivity.runs + case.judges.runs - before, len(case.plan.entries)
    add("auto_tune: distance from 1 - cosine 0.005", Measured(value=abs(found.measured / 0.005 - 1), bar=0.2))
    add("auto_tune: model runs", Measured(value=runs, bar=layers + 5, form=".0f"), f"{layers} weights")


def coded(case: Case, add: Rows) -> None:
    """Compare steps by gain with steps by relative error at equal coded bytes, and bytes at equal error."""
    choices = CodedSteps(plan=case.plan, read=case.model.weight, pins={})
    tables = choices.tables(measure_sensitivity(case.model, case.plan, case.probes, single_step=True))
    known = ENTROPY.get(case.name, {})
    for target in (0.02, 0.05, 0.1):
        rule = choices.by_rule(target, progress=silent)
        size, error = coded_bytes(rule), case.error(rule)
        found = {entry.tensor: find_step(case.model.weight(entry.tensor), target) for entry in case.plan.entries}
        worst = max(abs(step.error / target - 1) for step in found.values())
        add(f"init_scale {target:g}: worst distance from the target", Measured(value=worst, bar=0.01, form=".3f"))
        if target in known:
            bits, channels = _average(rule), _average_by_channels(case, target)
            detail = f"{bits:.2f} bits; {channels:.2f} by the mean over channels"
            what = f"init_scale {target:g}: entropy from the reference"
            add(what, Measured(value=abs(bits - known[target]), bar=0.1), detail)
        same = tables.within_size(size)
        assert same is not None  # the rule itself is near one of the allocations
        ratio = case.error(choices.rounded(same.labels)) / error
        add(f"error of init_scale {target:g}, at equal coded bytes", Measured(value=ratio, bar=CODED_BAR))
        equal = meet_error(tables, error, lambda labels: case.error(choices.rounded(labels)))
        assert equal is not None  # finer steps reach any error
        saved = 1 - coded_bytes(choices.rounded(equal.labels)) / size
        what = f"coded bytes saved at the error of {target:g}"
        add(what, Measured(value=saved, bar=0.15, at_least=True), f"{equal.measured / error:.2f} of its error")


def coded_bytes(plan: QuantPlan) -> int:
    return sum(entry.bytes_after for entry in plan.entries)


def _average(plan: QuantPlan) -> float:
    """Return the entropy per weight, over all weights."""
    counts = [math.prod(entry.shape) for entry in plan.entries]
    bits = [entry.coding.entropy for entry in plan.entries if entry.coding is not None]
    return sum(count * each for count, each in zip(counts, bits, strict=True)) / sum(counts)


def _average_by_channels(case: Case, target: float) -> float:
    """Return the entropy per weight if the error of a weight is the mean of its channels' relative errors.

    Channels of less than a hundredth of the median norm are left out of the mean.
    """
    total = count = 0.0
    for entry in case.plan.entries:
        values = np.moveaxis(case.model.weight(entry.tensor), entry.channel_axis, 0)
        values = values.reshape(len(values), -1)
        step = find_step(values, target).step
        for _ in range(8):
            step *= min(max(target / _channel_error(values, step), 0.5), 2.0)
        total += code_entropy(step_codes(values, step)) * values.size
        count += values.size
    return total / count


def _channel_error(values: NDArray[np.float32], step: float) -> float:
    found = try_step(values, step)
    error = decode_step(step_codes(values, step), found.spread * step, found.mean) - values
    norms = np.linalg.norm(values, axis=1)
    kept = norms > 0.01 * np.median(norms)
    return float((np.linalg.norm(error[kept], axis=1) / norms[kept]).mean())


if __name__ == "__main__":
    main()
