"""The plain U-Net of `microseg.models.unet` in PyTorch, with the weights of the one in Keras: a rival's network."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def convolution(inputs: int, outputs: int, side: int) -> nn.Sequential:
    """Convolution, batch normalisation and ReLU; even kernels are padded behind, as in Keras."""
    before = (side - 1) // 2
    pad = nn.ZeroPad2d((before, side - 1 - before) * 2)
    norm = nn.BatchNorm2d(outputs, eps=1e-3)
    return nn.Sequential(pad, nn.Conv2d(inputs, outputs, side), norm, nn.ReLU())


class UNet(nn.Module):
    """From (batch, 1, height, width) to the probability, of the same shape."""

    def __init__(self, depth: int, filters: int) -> None:
        super().__init__()
        widths = [filters * 2**level for level in range(depth)]
        self.down, self.up, self.decode = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for before, width in zip([1, *widths], widths, strict=False):
            self.down.append(nn.Sequential(convolution(before, width, 3), convolution(width, width, 3)))
        for width in widths[-2::-1]:
            self.up.append(convolution(2 * width, width, 2))
            self.decode.append(nn.Sequential(convolution(2 * width, width, 3), convolution(width, width, 3)))
        self.last = nn.Conv2d(filters, 1, 1)
        self.enlarge, self.shrink = nn.Upsample(scale_factor=2), nn.MaxPool2d(2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Predict."""
        skips = []
        for block in self.down:
            skips.append(image := block(self.shrink(image) if skips else image))
        skips.pop()
        for up, block in zip(self.up, self.decode, strict=True):
            image = block(torch.cat([skips.pop(), up(self.enlarge(image))], dim=1))
        return torch.sigmoid(self.last(image))

    def in_order(self) -> list[nn.Module]:
        """Return the layers with weights in the order of the one in Keras."""
        decoder = [part for pair in zip(self.up, self.decode, strict=True) for part in pair]
        parts = [module for part in [*self.down, *decoder, self.last] for module in part.modules()]
        return [module for module in parts if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]


def copied(network: Any, depth: int, filters: int) -> UNet:
    """Return a network with the weights of one of Keras."""
    copy, weights = UNet(depth, filters).eval(), iter(network.get_weights())
    with torch.no_grad():
        for layer in copy.in_order():
            if isinstance(layer, nn.Conv2d):
                layer.weight.copy_(torch.from_numpy(next(weights).transpose(3, 2, 0, 1)))
                layer.bias.copy_(torch.from_numpy(next(weights)))
            else:
                for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                    tensor.copy_(torch.from_numpy(next(weights)))
    return copy
