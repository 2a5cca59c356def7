"""Train and export ``photo_denoiser``: a CNN that predicts the noise in a colour picture and subtracts it.

Both sample photographs of scikit-learn are 427 x 640. Columns 240..431 of each evaluate: half of the pagoda,
half of the dahlia. Columns 0..223 and 448..639 train and calibrate. The 16 columns between belong to neither,
so no evaluation patch touches a training patch.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from artifacts import DEMO_ROOM, GraphWriter, float_value, require_same, save_arrays
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.nn import functional

from ptq_lab.demo import picture_psnr

NAME = "photo_denoiser"
SEED = 7
STEPS = 2200
BATCH = 32
PATCH = 40
CHANNELS = 32
LAYERS = 6
NOISE = 25 / 255  # standard deviation
TRAIN_COLUMNS = (slice(0, 224), slice(448, 640))
EVAL_COLUMNS = (slice(240, 432),)
EVAL_SIDE = 64
EVAL_PATCHES = 20
CALIBRATION_SIDE = 32
CALIBRATION_PATCHES = 100
Pictures = NDArray[np.float32]


class PhotoDenoiser(nn.Module):
    """Six 3x3 convolutions with ReLU between, their result subtracted from the input."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, *[CHANNELS] * (LAYERS - 1), 3]
        self.convs = nn.ModuleList(nn.Conv2d(*pair, 3, 1, 1) for pair in itertools.pairwise(widths))
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)
        self.convs[-1].weight.data *= 0.1

    def forward(self, image: Tensor) -> Tensor:
        """Map (batch, 3, H, W) to the same shape."""
        noise = image
        for conv in self.convs[:-1]:
            noise = functional.relu(conv(noise))
        return image - self.convs[-1](noise)


def load_columns(parts: tuple[slice, ...]) -> list[Pictures]:
    """Return each part of each photograph as (3, H, W) in 0..1."""
    pieces = [photo[:, part] for photo in load_sample_images().images for part in parts]
    return [np.ascontiguousarray(piece.transpose(2, 0, 1)) / np.float32(255) for piece in pieces]


def add_noise(clean: Pictures, rng: np.random.Generator) -> Pictures:
    """Add Gaussian noise and store the picture in 8 bits, as a camera does; returns multiples of 1/255."""
    noisy = clean + rng.normal(0, NOISE, clean.shape)
    return (np.rint(np.clip(noisy, 0, 1) * 255) / 255).astype(np.float32)


def draw_patches(photos: list[Pictures], count: int, side: int, rng: np.random.Generator) -> Pictures:
    """Cut ``count`` square patches at random, taking turns among the pieces."""
    patches = []
    for number in range(count):
        photo = photos[number % len(photos)]
        top = rng.integers(photo.shape[1] - side + 1)
        left = rng.integers(photo.shape[2] - side + 1)
        patches.append(photo[:, top : top + side, left : left + side])
    return np.stack(patches)


def vary(patches: Pictures, rng: np.random.Generator) -> Pictures:
    """Mirror, turn, exchange colours and change the contrast: two photographs are few."""
    patches = np.rot90(patches, rng.integers(4), (2, 3))[:, rng.permutation(3)]
    if rng.random() < 0.5:
        patches = patches[..., ::-1]
    contrast = rng.uniform(0.7, 1.0, (len(patches), 1, 1, 1))
    offset = rng.uniform(0, 1, contrast.shape) * (1 - contrast)
    return (patches * contrast + offset).astype(np.float32)


def train() -> PhotoDenoiser:
    """Adam with a one-cycle rate on fresh noise; repeatable for one torch build and thread count."""
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    photos = load_columns(TRAIN_COLUMNS)
    network = PhotoDenoiser()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)
    for step in range(STEPS):
        clean = vary(draw_patches(photos, BATCH, PATCH, rng), rng)
        output = network(torch.from_numpy(add_noise(clean, rng)))
        loss = functional.mse_loss(output, torch.from_numpy(clean))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.1)
        optimizer.step()
        schedule.step()
        if step % 200 == 199:
            print(f"step {step + 1}: {-10 * loss.log10().item():.2f} dB", flush=True)
    return network.eval()


def eval_patches() -> Pictures:
    """Return the evaluation patches: the most textured of a regular grid, as many from each photograph."""
    chosen = []
    for photo in load_columns(EVAL_COLUMNS):
        _, height, width = photo.shape
        corners = [
            (y, x)
            for y in range(0, height - EVAL_SIDE + 1, EVAL_SIDE)
            for x in range(0, width - EVAL_SIDE + 1, EVAL_SIDE)
        ]
        cut = np.stack([photo[:, y : y + EVAL_SIDE, x : x + EVAL_SIDE] for y, x in corners])
        texture = cut.std(axis=(1, 2, 3))
        chosen.append(cut[np.sort(np.argsort(-texture, kind="stable")[: EVAL_PATCHES // 2])])
    return np.concatenate(chosen)


def export(network: PhotoDenoiser) -> None:
    """Write model.onnx."""
    graph = GraphWriter(NAME)
    x = "image"
    for number, conv in enumerate(network.convs, start=1):
        scope = f"layer{number}"
        weight = graph.weight(f"{scope}/weight", conv.weight.detach().numpy())
        bias = graph.weight(f"{scope}/bias", conv.bias.detach().numpy())
        x = graph.node("Conv", scope, [x, weight, bias], kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4)
        if number < LAYERS:
            x = graph.node("Relu", scope, [x])
    graph.node("Sub", "residual", ["image", x], output="denoised")
    shape: list[int | str] = ["batch", 3, "height", "width"]
    graph.save(
        DEMO_ROOM / NAME / "model.onnx",
        takes=float_value("image", shape),
        gives=float_value("denoised", shape),
    )


def main() -> None:
    """Train, export, compare, write the data."""
    torch.set_num_threads(2)
    network = train()
    export(network)
    rng = np.random.default_rng(SEED + 1)
    target = eval_patches()
    image = add_noise(target, rng)
    with torch.no_grad():
        output = network(torch.from_numpy(image)).numpy()
    before, after = picture_psnr(image, target).mean(), picture_psnr(output, target).mean()
    print(f"{NAME}: PSNR {after:.2f} dB, of the noisy pictures {before:.2f} dB")
    folder = DEMO_ROOM / NAME
    require_same(folder / "model.onnx", image, output)
    photos = load_columns(TRAIN_COLUMNS)
    clean = draw_patches(photos, CALIBRATION_PATCHES, CALIBRATION_SIDE, rng)
    save_arrays(folder / "calib.npz", image=add_noise(clean, rng))
    save_arrays(folder / "eval.npz", image=image, target=target)


if __name__ == "__main__":
    main()
