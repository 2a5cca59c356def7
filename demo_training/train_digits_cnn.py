"""Train and export ``digits_cnn``: a depthwise-separable CNN with BatchNormalization left in the graph.

The BatchNormalization gains start from a log-normal draw instead of 1. Training keeps much of that spread,
so the filters of one layer differ widely in range, as they do in MobileNets: one scale per tensor then costs
far more than one scale per channel.
"""

from __future__ import annotations

import numpy as np
import torch
from artifacts import DEMO_ROOM, GraphWriter, float_value, require_same, save_arrays
from digits_data import CALIBRATION_SAMPLES, Digits, as_images, jitter, load_split
from torch import Tensor, nn
from torch.nn import functional

NAME = "digits_cnn"
SEED = 3
EPOCHS = 60
GAIN_SPREAD = 0.8  # standard deviation of the logarithm of the initial BatchNormalization gains
STEM = 32
BLOCKS = (  # (channels in, channels out, stride, residual)
    (32, 48, 2, False),
    (48, 64, 1, False),
    (64, 64, 1, True),
    (64, 128, 2, False),
    (128, 128, 1, True),
    (128, 192, 1, False),
    (192, 192, 1, True),
)


class Block(nn.Module):
    """Depthwise 3x3, pointwise 1x1; a residual block adds its input before the last activation."""

    def __init__(self, inputs: int, outputs: int, stride: int, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.stride = stride
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, H, W) to (batch, outputs, H / stride, W / stride)."""
        y = functional.hardtanh(self.depthwise_norm(self.depthwise(x)), 0.0, 6.0)
        y = self.pointwise_norm(self.pointwise(y))
        return functional.relu(y + x) if self.residual else functional.hardtanh(y, 0.0, 6.0)


class DigitsCnn(nn.Module):
    """Stem, seven separable blocks, global average, linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, STEM, 3, 1, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(STEM)
        self.blocks = nn.ModuleList(Block(*shape) for shape in BLOCKS)
        self.classifier = nn.Linear(BLOCKS[-1][1], 10)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 0.0, GAIN_SPREAD)
                module.weight.data.exp_()

    def forward(self, image: Tensor) -> Tensor:
        """Map (batch, 1, 16, 16) to logits (batch, 10)."""
        x = functional.hardtanh(self.stem_norm(self.stem(image)), 0.0, 6.0)
        for block in self.blocks:
            x = block(x)
        return self.classifier(x.mean((2, 3)))


def train(data: Digits) -> DigitsCnn:
    """Adam with a one-cycle rate on jittered pictures; repeatable for one torch build and thread count."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    images, labels = torch.from_numpy(as_images(data.levels)), torch.from_numpy(data.labels)
    network = DigitsCnn()
    batches = len(images) // 65
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=EPOCHS * batches)
    for epoch in range(EPOCHS):
        for batch in torch.randperm(len(images), generator=generator).chunk(batches):
            inputs = jitter(images[batch], generator, degrees=12, zoom=0.12, shift=1.5)
            loss = functional.cross_entropy(network(inputs), labels[batch], label_smoothing=0.03)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {loss.item():.4f}", flush=True)
    return network.eval()


def write_norm(graph: GraphWriter, scope: str, norm: nn.BatchNorm2d, x: str) -> str:
    """Write BatchNormalization as its own node."""
    state = norm.state_dict()
    names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}
    inputs = [graph.weight(f"{scope}/norm/{name}", state[key].numpy()) for name, key in names.items()]
    return graph.node("BatchNormalization", scope, [x, *inputs], epsilon=norm.eps)


def write_conv(graph: GraphWriter, scope: str, conv: nn.Conv2d, x: str) -> str:
    """Write a Conv without bias."""
    weight = graph.weight(f"{scope}/weight", conv.weight.detach().numpy())
    kernel, pad = conv.kernel_size[0], conv.padding[0]
    return graph.node(
        "Conv",
        scope,
        [x, weight],
        kernel_shape=[kernel] * 2,
        strides=[conv.stride[0]] * 2,
        pads=[pad] * 4,
        group=conv.groups,
    )


def write_clip(graph: GraphWriter, scope: str, x: str) -> str:
    """Write ReLU6."""
    low = graph.weight("relu6/low", np.float32(0))
    high = graph.weight("relu6/high", np.float32(6))
    return graph.node("Clip", scope, [x, low, high])


def write_block(graph: GraphWriter, scope: str, block: Block, x: str) -> str:
    """Write one separable block."""
    depthwise, pointwise = f"{scope}/depthwise", f"{scope}/pointwise"
    y = write_norm(graph, depthwise, block.depthwise_norm, write_conv(graph, depthwise, block.depthwise, x))
    y = write_clip(graph, depthwise, y)
    y = write_norm(graph, pointwise, block.pointwise_norm, write_conv(graph, pointwise, block.pointwise, y))
    if not block.residual:
        return write_clip(graph, pointwise, y)
    return graph.node("Relu", f"{scope}/residual", [graph.node("Add", f"{scope}/residual", [y, x])])


def export(network: DigitsCnn) -> None:
    """Write model.onnx."""
    graph = GraphWriter(NAME)
    x = write_norm(graph, "stem", network.stem_norm, write_conv(graph, "stem", network.stem, "image"))
    x = write_clip(graph, "stem", x)
    for number, block in enumerate(network.blocks, start=1):
        assert isinstance(block, Block)
        x = write_block(graph, f"block{number}", block, x)
    x = graph.node("Flatten", "pool", [graph.node("GlobalAveragePool", "pool", [x])])
    weight = graph.weight("classifier/weight", network.classifier.weight.detach().numpy())
    bias = graph.weight("classifier/bias", network.classifier.bias.detach().numpy())
    graph.node("Gemm", "classifier", [x, weight, bias], output="logits", transB=1)
    graph.save(
        DEMO_ROOM / NAME / "model.onnx",
        takes=float_value("image", ["batch", 1, 16, 16]),
        gives=float_value("logits", ["batch", 10]),
    )


def main() -> None:
    """Train, export, compare, write the data."""
    torch.set_num_threads(2)
    training, evaluation = load_split()
    network = train(training)
    export(network)
    images = as_images(evaluation.levels)
    with torch.no_grad():
        logits = network(torch.from_numpy(images)).numpy()
    print(f"{NAME}: top-1 {float((logits.argmax(1) == evaluation.labels).mean()):.4f}")
    folder = DEMO_ROOM / NAME
    require_same(folder / "model.onnx", images, logits)
    calibration = training.part(slice(0, CALIBRATION_SAMPLES))
    save_arrays(folder / "calib.npz", image=as_images(calibration.levels))
    save_arrays(folder / "eval.npz", image=images, labels=evaluation.labels)


if __name__ == "__main__":
    main()
