"""FCN-8s, -16s and -32s (Long et al. 2015) on the VGG-16 body: a baseline of the MSConvLSTM-Att paper.

Classes are scored on the coarsest map and, for the finer variants, on those of the fourth and third pooling too;
scores are brought up by interpolation and added. No weights from photographs: scans have other channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from attentus.nets.parts import conv, he_initialise, one_of, resize

GROUPS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Width and number of convolutions between two poolings of VGG-16."""

_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_DROPOUT = {2: nn.Dropout2d, 3: nn.Dropout3d}


class FCN(nn.Module):
    """Fully convolutional VGG-16.

    input    (N, in_channels, *spatial), any size: poolings round up, and scores are brought to exact sizes
    returns  a tuple with one tensor of logits, (N, out_channels, *spatial)

    Args:
        dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes.
        stride: how fine the finest scores are: 8, 16 or 32.
        fc_width: channels of the two layers that were fully connected in VGG; 512 makes a light variant.
        width_divisor: divides the width of every convolution of the body, for small machines.
        dropout: share of channels left out after each of those two layers.
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 8,
        fc_width: int = 4096,
        width_divisor: int = 1,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        one_of("stride", stride, (8, 16, 32))
        widths = [width // width_divisor for width, _ in GROUPS]
        self.body = nn.ModuleList()
        channels = in_channels
        for width, (_, count) in zip(widths, GROUPS, strict=True):
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += [conv(dims, channels, width, 3), nn.ReLU(inplace=True)]
                channels = width
            self.body.append(nn.Sequential(*layers, _POOL[dims](2, ceil_mode=True)))
        self.classifier = nn.Sequential(
            *[conv(dims, channels, fc_width, 7), nn.ReLU(inplace=True), _DROPOUT[dims](dropout)],
            *[conv(dims, fc_width, fc_width, 1), nn.ReLU(inplace=True), _DROPOUT[dims](dropout)],
        )
        pools = {32: [], 16: [4], 8: [4, 3]}[stride]  # whose maps are scored besides the coarsest, coarse to fine
        self.score = conv(dims, fc_width, out_channels, 1)
        self.pool_scores = nn.ModuleDict({f"pool{n}": conv(dims, widths[n - 1], out_channels, 1) for n in pools})
        he_initialise(self, slope=0)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, *spatial) to a tuple of one (N, out_channels, *spatial)."""
        size = x.shape[2:]
        pooled: dict[str, Tensor] = {}
        for number, group in enumerate(self.body, start=1):
            x = group(x)
            pooled[f"pool{number}"] = x
        scores: Tensor = self.score(self.classifier(x))
        for name, head in self.pool_scores.items():
            finer = pooled[name]
            scores = resize(scores, finer.shape[2:]) + head(finer)
        return (resize(scores, size),)
