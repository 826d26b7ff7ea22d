"""All networks by name, with their papers and the options they were published with. A new net is one entry here."""

from __future__ import annotations

from typing import Any

from attentus.nets.anu_net import ANUNet, unet_plus_plus
from attentus.nets.attention_unet import AttentionUNet, unet
from attentus.nets.card import Card, Preset
from attentus.nets.classic_unet import classic_unet, unet_3d
from attentus.nets.daf import DAF
from attentus.nets.dpc_net import DPCNet
from attentus.nets.fcn import FCN
from attentus.nets.msconvlstm_att import MSConvLSTMAtt
from attentus.nets.plain_unet import plain_unet, resenc_unet
from attentus.nets.r2u_net import attention_r2u_net, r2u_net
from attentus.nets.ra_unet import RAUNet

ANU, OKTAY, RA, MS, DPC = "Li 2020", "Oktay 2018", "Jin 2018", "Ait Skourt 2021", "Zhang 2022"


def _of(**options: Any) -> Preset:
    return Preset(options)


def _classic(**options: Any) -> Preset:
    return Preset(options, net="classic-unet")


_TINY_PYRAMID = (4, 8, 8, 16, 16)

CARDS = {
    "anu-net": Card(
        ANUNet,
        ANU,
        (256, 256),
        presets={
            "paper": _of(),  # Table 6: 8.9506 M parameters
            "release": _of(gates="last"),  # the author's code
            **{f"l{level}": _of(levels=level) for level in (1, 2, 3)},  # Table 6: 0.1038, 0.5134, 2.1918 M
            "wide": _of(width=64),
            "tiny": _of(width=4),
        },
    ),
    "unet++": Card(
        unet_plus_plus,
        "Zhou 2018",
        (256, 256),
        presets={
            "anu": _of(),  # ANU-Net's comparison
            "official": _of(share_up=False, up="transposed-plain", norm="none", deep_supervision=False),
            "tiny": _of(width=4),
        },
    ),
    "unet": Card(
        unet,
        f"{OKTAY}, baseline",
        (96, 160, 160),
        classes=4,
        presets={
            "paper": _of(),  # Table 1: 5.88 M
            "capacity-match": _of(feature_scale=3.82),  # control of Table 1: 6.44 M
            "huge": _of(feature_scale=3),  # control of Table 1: 10.40 M
            "anu": _classic(),  # comparison of ANU-Net
            "anu-wide": _classic(width=64, up="nearest"),
            "tiny": _of(feature_scale=16),
        },
    ),
    "attention-unet": Card(
        AttentionUNet,
        OKTAY,
        (96, 160, 160),
        classes=4,
        presets={
            "paper": _of(),  # Table 1: 6.40 M
            "release": _of(gating=256, gate_init="kaiming"),  # the authors' published code
            "anu": _classic(gated=True),  # comparison of ANU-Net, gates on the skip's own grid
            "anu-release": _classic(gated=True, gate_floor=32),
            "anu-wide": _classic(width=64, up="nearest", gated=True),
            "dpc": Preset({"gated": True}, net="unet-3d"),  # Table 4 of DPC-Net: 3D U-Net + AG
            "tiny": _of(feature_scale=16),
        },
    ),
    "classic-unet": Card(
        classic_unet,
        f"{ANU} and {MS}, baseline",
        (256, 256),
        presets={
            "anu": _of(),
            "anu-attention": _of(gated=True),
            "wide": _of(width=64, up="nearest"),
            "wide-attention": _of(width=64, up="nearest", gated=True),
            "tiny": _of(width=4),
        },
    ),
    "r2u-net": Card(
        r2u_net,
        f"Alom 2018; {ANU}, baseline",
        (256, 256),
        presets={"fair": _of(), "release": _of(width=64), "tiny": _of(width=4)},
    ),
    "attention-r2u-net": Card(
        attention_r2u_net,
        f"{ANU}, baseline",
        (256, 256),
        presets={"fair": _of(), "release": _of(width=64), "tiny": _of(width=4)},
    ),
    "fcn": Card(
        FCN,
        f"Long 2015; {MS}, baseline",
        (190, 190),
        channels=4,
        classes=4,
        presets={
            "8s": _of(),
            "16s": _of(stride=16),
            "32s": _of(stride=32),
            "light": _of(fc_width=512),
            "tiny": _of(fc_width=64, width_divisor=8, dropout=0.0),
        },
    ),
    "ra-unet": Card(
        RAUNet,
        RA,
        (32, 224, 224),
        presets={
            "one": _of(widths=(16, 16, 32, 64, 128, 256)),  # RA-UNet-I, Table II: 0.74 M in 2D
            "two": _of(widths=(32, 32, 64, 128, 256, 512)),  # RA-UNet-II, Table III: 4.42 M in 3D
            "brats": _of(widths=(32, 64, 128, 256, 512, 512)),  # Table VIII: 12.78 M with four channels
            "tiny": _of(widths=(4, 4, 8, 8, 16, 16)),
        },
    ),
    "msconvlstm-att": Card(
        MSConvLSTMAtt,
        MS,
        (190, 190),
        channels=4,
        classes=4,
        dims=(2,),
        presets={
            "paper": _of(),
            "detail": _of(detail=True),
            "small": _of(widths=(8, 32, 64), channels=32, residual_blocks=1),
            "tiny": _of(widths=(4, 16, 16), channels=16, residual_blocks=1),
        },
    ),
    "dpc-net": Card(
        DPCNet,
        DPC,
        (128, 128, 128),
        classes=3,
        presets={
            "table4": _of(),
            "equations": _of(design="equations"),
            "sem-first": _of(order="sem_first"),
            "no-pfe": _of(pfe=False),  # Table 4: baseline + SpaCor and SemCor
            "pfe": _of(spacor=False, semcor=False),  # Table 2: the pyramid feature encoder alone
            "nnu-net-levels": _of(widths=(32, 64, 128, 256, 320, 320), down="strided3"),
            "tiny": _of(widths=_TINY_PYRAMID),
        },
    ),
    "unet-3d": Card(
        unet_3d,
        f"{DPC}, baseline",
        (128, 128, 128),
        classes=3,
        presets={
            "table4": _of(),  # 22.58 M
            "pyramid": _of(heads="pyramid"),  # the raw pyramid of Tables 1 to 4
            "ag": _of(gated=True),  # + 1.02 M
            "tiny": _of(width=4),
        },
    ),
    "daf": Card(
        DAF,
        f"Wang 2019; {DPC}, baseline",
        (128, 128, 128),
        classes=3,
        presets={"table4": _of(), "tiny": _of(width=4, level_width=8, fused_width=8)},
    ),
    "plain-unet": Card(
        plain_unet,
        "Isensee 2021, reference",
        (128, 128, 128),
        classes=3,
        presets={
            "nnu-net": _of(),
            "five-levels": _of(widths=(32, 64, 128, 256, 320)),
            "tiny": _of(widths=_TINY_PYRAMID),
        },
    ),
    "resenc-unet": Card(
        resenc_unet,
        "Isensee 2024, reference",
        (128, 128, 128),
        classes=3,
        presets={"nnu-net": _of(), "tiny": _of(widths=_TINY_PYRAMID, blocks=(1, 1, 2, 2, 2))},
    ),
}
