"""Train and export ``digits_transformer``: two pre-norm encoder layers over 32 pixel pairs.

The LayerNormalization gains start from a log-normal draw instead of 1. As in large language models, a few
input columns of each MatMul then carry far more than the rest, which is what makes low bits hard there.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from artifacts import DEMO_ROOM, GraphWriter, float_value, integer_value, require_same, save_arrays
from digits_data import CALIBRATION_SAMPLES, LEVELS, Digits, as_tokens, jitter, load_split
from torch import Tensor, nn
from torch.nn import functional

NAME = "digits_transformer"
SEED = 5
EPOCHS = 180
GAIN_SPREAD = 1.3  # standard deviation of the logarithm of the initial LayerNormalization gains
WIDTH = 64
HEADS = 4
HIDDEN = 192
LAYERS = 2
LENGTH = 32
WORDS = LEVELS * LEVELS


class Layer(nn.Module):
    """Pre-norm self-attention and feed-forward, each with its residual."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.feed_norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, HIDDEN)
        self.down = nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 32, 64) to the same shape."""
        y = self.attention_norm(x)
        query, key, value = (self._heads(part(y)) for part in (self.query, self.key, self.value))
        weights = (query @ key.transpose(2, 3) / math.sqrt(WIDTH // HEADS)).softmax(-1)
        x = x + self.mix((weights @ value).transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.feed_norm(x))))

    @staticmethod
    def _heads(y: Tensor) -> Tensor:
        return y.unflatten(2, (HEADS, WIDTH // HEADS)).transpose(1, 2)  # (batch, heads, 32, 16)


class DigitsTransformer(nn.Module):
    """Word and position embedding, two layers, mean over the words, linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.positions = nn.Parameter(torch.randn(1, LENGTH, WIDTH) * 0.5)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.classifier = nn.Linear(WIDTH, 10)
        self._relate_words()
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                nn.init.normal_(module.weight, 0.0, GAIN_SPREAD)
                module.weight.data.exp_()

    def _relate_words(self) -> None:
        """Start similar words at similar vectors: most pairs of levels are rare among 1300 pictures."""
        level = torch.linspace(-1, 1, LEVELS)
        left, right = level.repeat_interleave(LEVELS), level.repeat(LEVELS)
        features = torch.stack([left, right, left * right, left**2, right**2], dim=1)
        self.words.weight.data = features @ torch.randn(5, WIDTH) * 0.5 + torch.randn(WORDS, WIDTH) * 0.05

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (batch, 32) to logits (batch, 10)."""
        x = self.words(tokens) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.classifier(self.norm(x).mean(1))


def train(data: Digits) -> DigitsTransformer:
    """AdamW with a one-cycle rate on jittered pictures; repeatable for one torch build and thread count."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    pictures, labels = torch.from_numpy(data.levels).float()[:, None], torch.from_numpy(data.labels)
    network = DigitsTransformer()
    batches = len(pictures) // 65
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=EPOCHS * batches)
    for epoch in range(EPOCHS):
        for batch in torch.randperm(len(pictures), generator=generator).chunk(batches):
            moved = jitter(pictures[batch], generator, degrees=10, zoom=0.1, shift=0.7)
            levels = (moved * 1.1).round().clamp(0, 16).long()[:, 0]  # resampling dims the strokes
            tokens = torch.from_numpy(as_tokens(levels.numpy()))
            loss = functional.cross_entropy(network(tokens), labels[batch], label_smoothing=0.03)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        if epoch % 20 == 19:
            print(f"epoch {epoch + 1}: loss {loss.item():.4f}", flush=True)
    return network.eval()


def write_linear(graph: GraphWriter, scope: str, linear: nn.Linear, x: str) -> str:
    """Write MatMul and Add, the weight as (inputs, outputs)."""
    weight = np.ascontiguousarray(linear.weight.detach().numpy().T)
    product = graph.node("MatMul", scope, [x, graph.weight(f"{scope}/weight", weight)])
    return graph.node("Add", scope, [product, graph.weight(f"{scope}/bias", linear.bias.detach().numpy())])


def write_norm(graph: GraphWriter, scope: str, norm: nn.LayerNorm, x: str) -> str:
    """Write LayerNormalization over the last axis."""
    scale = graph.weight(f"{scope}/scale", norm.weight.detach().numpy())
    bias = graph.weight(f"{scope}/bias", norm.bias.detach().numpy())
    return graph.node("LayerNormalization", scope, [x, scale, bias], axis=-1, epsilon=norm.eps)


def write_heads(graph: GraphWriter, scope: str, order: list[int], linear: nn.Linear, x: str) -> str:
    """Write a projection split into heads, its axes in ``order``."""
    shape = graph.weight("heads/shape", np.array([0, 0, HEADS, WIDTH // HEADS], np.int64))
    split = graph.node("Reshape", scope, [write_linear(graph, scope, linear, x), shape])
    return graph.node("Transpose", scope, [split], perm=order)


def write_attention(graph: GraphWriter, scope: str, layer: Layer, x: str) -> str:
    """Write self-attention without its residual."""
    y = write_norm(graph, f"{scope}/norm", layer.attention_norm, x)
    query = write_heads(graph, f"{scope}/query", [0, 2, 1, 3], layer.query, y)
    key = write_heads(graph, f"{scope}/key", [0, 2, 3, 1], layer.key, y)
    value = write_heads(graph, f"{scope}/value", [0, 2, 1, 3], layer.value, y)
    scores = graph.node("MatMul", f"{scope}/scores", [query, key])
    divisor = graph.weight("heads/divisor", np.float32(math.sqrt(WIDTH // HEADS)))
    scores = graph.node("Div", f"{scope}/scores", [scores, divisor])
    weights = graph.node("Softmax", f"{scope}/scores", [scores], axis=-1)
    mixed = graph.node("MatMul", f"{scope}/context", [weights, value])
    mixed = graph.node("Transpose", f"{scope}/context", [mixed], perm=[0, 2, 1, 3])
    shape = graph.weight("heads/merged", np.array([0, 0, WIDTH], np.int64))
    mixed = graph.node("Reshape", f"{scope}/context", [mixed, shape])
    return write_linear(graph, f"{scope}/mix", layer.mix, mixed)


def write_gelu(graph: GraphWriter, scope: str, x: str) -> str:
    """Write the exact GELU, which opset 17 has no operator for: x (1 + erf(x / sqrt 2)) / 2."""
    ratio = graph.node("Div", scope, [x, graph.weight("gelu/sqrt2", np.float32(math.sqrt(2)))])
    gate = graph.node("Erf", scope, [ratio])
    gate = graph.node("Add", scope, [gate, graph.weight("gelu/one", np.float32(1))])
    product = graph.node("Mul", f"{scope}/gate", [x, gate])
    return graph.node("Mul", f"{scope}/half", [product, graph.weight("gelu/half", np.float32(0.5))])


def write_layer(graph: GraphWriter, scope: str, layer: Layer, x: str) -> str:
    """Write one encoder layer."""
    attention = write_attention(graph, f"{scope}/attention", layer, x)
    x = graph.node("Add", f"{scope}/attention/residual", [x, attention])
    y = write_norm(graph, f"{scope}/feed/norm", layer.feed_norm, x)
    y = write_linear(graph, f"{scope}/feed/up", layer.up, y)
    y = write_gelu(graph, f"{scope}/feed/gelu", y)
    y = write_linear(graph, f"{scope}/feed/down", layer.down, y)
    return graph.node("Add", f"{scope}/feed/residual", [x, y])


def export(network: DigitsTransformer) -> None:
    """Write model.onnx."""
    graph = GraphWriter(NAME)
    table = graph.weight("embedding/words", network.words.weight.detach().numpy())
    positions = graph.weight("embedding/positions", network.positions.detach().numpy())
    x = graph.node("Gather", "embedding", [table, "tokens"], axis=0)
    x = graph.node("Add", "embedding", [x, positions])
    for number, layer in enumerate(network.layers, start=1):
        assert isinstance(layer, Layer)
        x = write_layer(graph, f"layer{number}", layer, x)
    x = write_norm(graph, "final/norm", network.norm, x)
    x = graph.node("ReduceMean", "pool", [x], axes=[1], keepdims=0)
    weight = graph.weight("classifier/weight", network.classifier.weight.detach().numpy())
    bias = graph.weight("classifier/bias", network.classifier.bias.detach().numpy())
    graph.node("Gemm", "classifier", [x, weight, bias], output="logits", transB=1)
    graph.save(
        DEMO_ROOM / NAME / "model.onnx",
        takes=integer_value("tokens", ["batch", LENGTH]),
        gives=float_value("logits", ["batch", 10]),
    )


def main() -> None:
    """Train, export, compare, write the data."""
    torch.set_num_threads(2)
    training, evaluation = load_split()
    network = train(training)
    export(network)
    tokens = as_tokens(evaluation.levels)
    with torch.no_grad():
        logits = network(torch.from_numpy(tokens)).numpy()
    print(f"{NAME}: top-1 {float((logits.argmax(1) == evaluation.labels).mean()):.4f}")
    folder = DEMO_ROOM / NAME
    require_same(folder / "model.onnx", tokens, logits)
    calibration = training.part(slice(0, CALIBRATION_SAMPLES))
    save_arrays(folder / "calib.npz", tokens=as_tokens(calibration.levels))
    save_arrays(folder / "eval.npz", tokens=tokens, labels=evaluation.labels)


if __name__ == "__main__":
    main()
