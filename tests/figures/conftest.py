"""Reports made by hand, so that what a figure must show is known exactly."""

import pytest

from ptq_lab.report.diagnosis import Cause, Edit
from ptq_lab.report.findings import Explanation
from ptq_lab.report.rows import ErrorRow
from ptq_lab.report.tables import LayerRow, OutputRow, Report, Summary, Table


class MadeReports:
    """Builders of rows and reports; keywords replace the fields they name."""

    def layer(self, i: int, **changes: object) -> LayerRow:
        elements = 64 * 32 * 9
        fields: dict[str, object] = {
            "node": f"/backbone/stage{i}/conv/Conv",
            "op_type": "Conv",
            "tensor": f"stage{i}.weight",
            "shape": (64, 32, 3, 3),
            "bits": 8,
            "granularity": "per-channel (64)",
            "storage": "int8",
            "bytes_before": 4 * elements,
            "bytes_after": elements + 512,
            "relative_error": 0.003 * (1 + i % 5),
            "sqnr_db": 50.0 - i % 5,
        }
        return LayerRow(**(fields | changes))  # type: ignore[arg-type]

    def in_float(self, i: int, **changes: object) -> LayerRow:
        plain = {
            "bits": None,
            "granularity": "",
            "storage": "float32",
            "relative_error": None,
            "sqnr_db": None,
        }
        size = 4 * 64 * 32 * 9
        return self.layer(i, **(plain | {"bytes_after": size, "reason": "skip_quant_node"} | changes))

    def report(self, layers: list[LayerRow] | None = None, **changes: object) -> Report:
        rows = layers if layers is not None else [self.layer(0), self.in_float(1), self.layer(2)]
        fields: dict[str, object] = {
            "model": "tiny.onnx",
            "quant_type": "WEIGHT_QUANT",
            "bits": 8,
            "bytes_before": sum(row.bytes_before for row in rows) + 4_000,
            "bytes_after": sum(row.bytes_after for row in rows) + 3_000,
            "layers": len(rows),
            "layers_quantized": sum(row.quantized for row in rows),
            "cosine_mean": 0.99991,
            "cosine_min": 0.9997,
            "sqnr_db": 38.2,
            "compared_on": "32 samples of calib.npz",
            "metric": "accuracy",
            "metric_before": 0.971,
            "metric_after": 0.968,
            "left_float": ("1 tensor (73.7 kB): skip_quant_node",),
            "notes": ("The opset was raised from 11 to 13.",),
            "opset": 13,
            "ir_version": 8,
            "onnxruntime_required": "1.14",
            "seconds": {"quantize": 0.4, "compare": 1.3},
        }
        output = OutputRow(output="logits", cosine_mean=0.99991, cosine_min=0.9997, sqnr_db=38.2, max_abs_error=0.01)
        summary = Summary(**(fields | changes))  # type: ignore[arg-type]
        return Report(summary, Table(LayerRow, rows), Table(OutputRow, [output]))

    def error(self, i: int, alone: float = 0.01, after: float = 0.02, **changes: object) -> ErrorRow:
        fields: dict[str, object] = {
            "node": f"/backbone/stage{i}/conv/Conv",
            "op_type": "Conv",
            "tensor": f"stage{i}",
            "isolated_cosine": 1 - alone,
            "isolated_sqnr_db": 20.0,
            "accumulated_cosine": 1 - after,
            "accumulated_sqnr_db": 17.0,
        }
        return ErrorRow(**(fields | changes))  # type: ignore[arg-type]

    def cause(self, **changes: object) -> Cause:
        fields: dict[str, object] = {
            "kind": "bias shift",
            "nodes": ("/backbone/stage0/conv/Conv",),
            "evidence": "most of the error is the same for a whole channel",
            "harm": 0.1,
            "edits": (Edit("full_quant_param", "bias_correction", "true"),),
        }
        return Cause(**(fields | changes))  # type: ignore[arg-type]

    def explanation(self, rows: list[ErrorRow], there: list[ErrorRow] | None = None, **changes: object) -> Explanation:
        fields: dict[str, object] = {"looked_at": "8 samples", "evaluated_on": "6 images" if there else ""}
        causes = changes.pop("causes", (self.cause(),))
        return Explanation(Table(ErrorRow, rows), causes, Table(ErrorRow, there or ()), **(fields | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def made() -> MadeReports:
    return MadeReports()
