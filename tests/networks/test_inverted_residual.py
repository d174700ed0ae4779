"""Networks of inverted residual blocks: published sizes, PyTorch's own layers, the entry's arithmetic."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from bitwright.costs.macs import Macs
from bitwright.errors import ConfigError
from bitwright.modules import Training, Weights, forward, run
from bitwright.network import Add, BatchNorm, Conv2d, DepthwiseConv2d, GlobalSumPool, Linear
from bitwright.networks import named, names, read
from bitwright.networks.checkpoints import initialise
from bitwright.networks.inverted_residual import (
    Block,
    BlockList,
    Options,
    build,
    parse_block_list,
)
from bitwright.networks.published import BLOCK_LISTS

# parameters as imgclsmob states them for its float models (torchvision for MobileNetV2), MACs as the papers do
PUBLISHED = {
    "proxyless-cpu": (4361648, None),
    "proxyless-gpu": (7119848, None),
    "proxyless-mobile": (4080512, 320e6),
    "proxyless-mobile14": (6857568, 581e6),
    "mobilenetv2-1.0": (3504872, 300e6),
}
# unit, weights, MACs, channels in, middle and out, height in and out of mobile14
UNITS = """
stage1/unit1 1584 19869696 48 48 24 112 112
stage2/unit1 6408 36352512 24 72 40 112 56
stage2/unit2 10680 33492480 40 120 40 56 56
stage3/unit1 17400 24931200 40 120 56 56 28
stage3/unit2 20328 15937152 56 168 56 28 28
stage3/unit3 23016 18044544 56 168 56 28 28
stage3/unit4 23016 18044544 56 168 56 28 28
stage4/unit1 72912 25354560 56 336 112 28 14
stage4/unit2 83664 16398144 112 336 112 14 14
stage4/unit3 83664 16398144 112 336 112 14 14
stage4/unit4 83664 16398144 112 336 112 14 14
stage4/unit5 183456 35957376 112 672 136 14 14
stage4/unit6 121176 23750496 136 408 136 14 14
stage4/unit7 121176 23750496 136 408 136 14 14
stage4/unit8 121176 23750496 136 408 136 14 14
stage5/unit1 359856 33946416 136 816 256 14 7
stage5/unit2 861696 42223104 256 1536 256 7 7
stage5/unit3 430848 21111552 256 768 256 7 7
stage5/unit4 430848 21111552 256 768 256 7 7
stage5/unit5 1156608 56673792 256 1536 448 7 7
"""
SMALL = BlockList(
    8,
    (
        (Block(3, 1, 4),),
        (Block(5, 3, 6, 2), Block(3, 2, 6, shortcut=True), None, Block(7, 3, 6, shortcut=True)),
        (Block(3, 6, 8, 2), Block(5, 3, 10)),
    ),
    12,
    resolution=32,
    classes=7,
)


def parameters(network) -> int:
    return sum(p.numel() for p in Weights([network]).parameters())


class PlainBlock(nn.Module):
    """A block as anybody writes it in PyTorch, under the names of ProxylessNAS."""

    def __init__(self, cin: int, block: Block, eps: float) -> None:
        super().__init__()
        mid = block.middle_of(cin)
        if block.expansion > 1:
            self.inverted_bottleneck = self.layer(nn.Conv2d(cin, mid, 1, bias=False), eps)
        padding = block.kernel // 2
        depthwise = nn.Conv2d(mid, mid, block.kernel, block.stride, padding, groups=mid, bias=False)
        self.depth_conv = self.layer(depthwise, eps)
        self.point_linear = self.layer(nn.Conv2d(mid, block.filters, 1, bias=False), eps)

    @staticmethod
    def layer(conv: nn.Conv2d, eps: float) -> nn.ModuleDict:
        return nn.ModuleDict({"conv": conv, "bn": nn.BatchNorm2d(conv.out_channels, eps)})

    def forward(self, x):
        for name, layer in self.named_children():
            x = layer["bn"](layer["conv"](x))
            x = x if name == "point_linear" else nn.functional.relu6(x)
        return x


class PlainNetwork(nn.Module):
    def __init__(self, blocks: BlockList) -> None:
        super().__init__()
        self.first_conv = PlainBlock.layer(nn.Conv2d(3, blocks.stem, 3, 2, 1, bias=False), blocks.epsilon)
        self.shortcuts, self.blocks, cin = [], nn.ModuleList(), blocks.stem
        for block in (b for stage in blocks.stages for b in stage):
            self.shortcuts.append(block is None or block.shortcut)
            plain = nn.Module() if block is None else PlainBlock(cin, block, blocks.epsilon)
            holder = nn.Module()
            holder.mobile_inverted_conv = plain
            self.blocks.append(holder)
            cin = cin if block is None else block.filters
        self.feature_mix_layer = PlainBlock.layer(nn.Conv2d(cin, blocks.head, 1, bias=False), blocks.epsilon)
        self.classifier = nn.ModuleDict({"linear": nn.Linear(blocks.head, blocks.classes)})

    def forward(self, x):
        ends = (self.first_conv, self.feature_mix_layer)
        x = nn.functional.relu6(ends[0]["bn"](ends[0]["conv"](x)))
        for shortcut, holder in zip(self.shortcuts, self.blocks, strict=True):
            block = holder.mobile_inverted_conv
            if isinstance(block, PlainBlock):
                x = x + block(x) if shortcut else block(x)
        x = nn.functional.relu6(ends[1]["bn"](ends[1]["conv"](x)))
        return self.classifier["linear"](x.mean((2, 3)))


def plain_network(blocks: BlockList, seed: int = 0) -> PlainNetwork:
    """With random weights and statistics, in evaluation."""
    generator = torch.Generator().manual_seed(seed)
    plain = PlainNetwork(blocks)
    with torch.no_grad():
        for name, tensor in plain.state_dict().items():
            if tensor.dim() > 1:
                scale = math.sqrt(2 / math.prod(tensor.shape[1:]))
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale)
            elif name.endswith("running_var") or name.endswith("bn.weight"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return plain.eval()


def images(count: int, size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_the_published_ones(name):
    wanted, macs = PUBLISHED[name]
    network = named(name)
    assert parameters(network) == wanted
    assert macs is None or Macs()(network).total == pytest.approx(macs, rel=3e-3)


def test_mobile14_has_the_published_layers():
    network = named("mobile14-4b5b")
    macs = Macs()(network).per_node
    rows = {}
    for position, node in enumerate(network.nodes):
        unit, _, layer = node.key.rpartition("/")
        if layer in ("bc_conv", "dw_conv", "pw_conv"):
            rows.setdefault(unit, {})[layer] = position
    assert list(rows) == [line.split()[0] for line in UNITS.split("\n") if line]
    for line in filter(None, UNITS.split("\n")):
        unit, *numbers = line.split()
        at = rows[unit]
        weights = sum(network.weights(p)[0].size for p in at.values())
        shape_in = network.shapes[network.nodes[next(iter(at.values()))].inputs[0]]
        middle, out = network.shapes[at["dw_conv"]], network.shapes[at["pw_conv"]]
        found = [weights, sum(macs[p] for p in at.values()), shape_in[0], middle[0], out[0], shape_in[1], out[1]]
        assert found == list(map(int, numbers)), unit
    assert sum(macs.values()) == 580883408
    assert sum(w.size for p in range(len(network.nodes)) for w in network.weights(p)) == 6809288


@pytest.mark.parametrize("name", ["mobile14-4b", "mobile14-4b5b"])
def test_the_quantized_form_has_the_entry_s_tensors(name):
    weights = dict(Weights([named(name)]).named_parameters())
    scales = {name: p for name, p in weights.items() if name.endswith("/log2_range")}
    assert len(weights) == 233
    assert sum(p.numel() for p in weights.values()) == 6867077
    assert sum(p.numel() for p in scales.values()) == 9509
    assert sum(p.numel() > 1 for p in scales.values()) == 19  # what depthwise convolutions read
    groups = {name for name in scales if name.endswith("/group/log2_range")}
    assert sorted(g.removesuffix("/group/log2_range") for g in groups) == [
        "stage1/unit1", "stage2/unit1", "stage3/unit1", "stage4/unit1", "stage4/unit5", "stage5/unit1", "stage5/unit5",
    ]  # fmt: skip
    assert all(float(scales[g].detach().exp2()) == pytest.approx(10) for g in groups)
    others = torch.cat([p.detach().exp2().flatten() for name, p in scales.items() if name not in groups])
    assert torch.allclose(others, torch.tensor(6.0))


def test_bits_are_where_the_entry_has_them():
    network = named("mobile14-4b5b")
    for position, node in enumerate(network.nodes):
        match node.op:
            case Conv2d(weight=weight) | DepthwiseConv2d(weight=weight) | Linear(weight=weight):
                highest = {"init_block/conv": 127}.get(node.key, 15 if node.key.endswith("dw_conv") else 7)
                assert (weight.levels.lowest, weight.levels.highest) == (-highest, highest)
                assert weight.per_channel == (node.key != "output")
            case BatchNorm(activation=activation):
                levels = (activation.levels.lowest, activation.levels.highest)
                wanted = {"bc_bn": (0, 31), "pw_bn": (-8, 7)}.get(node.key.rpartition("/")[2], (0, 15))
                assert levels == wanted and activation.per_channel == node.key.endswith("bc_bn")
            case GlobalSumPool(shift=shift):
                assert shift == 6
                assert (network.ranges[position].lowest, network.ranges[position].highest) == (0, 735 // 64)
    assert network.product_ranges[-1].bits == 19


@pytest.mark.parametrize("blocks", [SMALL, BLOCK_LISTS["gpu"]], ids=["small", "gpu"])
def test_the_float_network_is_what_pytorch_s_layers_compute(blocks, tmp_path):
    plain = plain_network(blocks)
    torch.save({"state_dict": plain.state_dict()}, tmp_path / "checkpoint.pth")
    network = build(blocks, Options(quantized=False, pool="mean", pixels="symmetric"))
    weights = Weights([network], seed=1)
    loaded = initialise(weights, network, tmp_path / "checkpoint.pth")
    assert not (loaded.missing or loaded.unexpected or loaded.misshapen)
    x = images(2, blocks.resolution)
    with torch.no_grad():
        wanted = plain((x.float() / 255 - 0.5) / 0.5)
        ours, _ = forward(network, weights, x)
    assert torch.allclose(ours, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


def by_hand(network, weights, position, before):
    """Codes and scale of a node: the rules of the entry, in float64, from the codes and scales that it reads."""
    node = network.nodes[position]
    get = {name: tensor.detach().double() for name, tensor in weights.state_dict().items()}
    values, scale = before[0]
    match node.op:
        case Conv2d(stride=stride) | DepthwiseConv2d(stride=stride):
            w = get[node.key]
            largest, top = w.abs().amax((1, 2, 3), keepdim=True), node.op.weight.levels.highest
            codes = (w / largest * top).round().clamp(-top, top)
            groups = len(w) if isinstance(node.op, DepthwiseConv2d) else 1
            out = nn.functional.conv2d(values, codes, stride=stride, padding=w.shape[2] // 2, groups=groups)
            return out, scale * largest.reshape(1, -1, 1, 1) / top
        case BatchNorm(activation=quantizer):
            mean, variance, gain, offset = (get[f"{node.key}/{n}"].reshape(1, -1, 1, 1) for n in NORM)
            z = (values * scale - mean) / (variance + 1e-3).sqrt() * gain + offset
            low, high = quantizer.levels.lowest, quantizer.levels.highest
            unit, _, layer = node.key.rpartition("/")
            groups = sorted({n.op.scale_key for n in network.nodes[: position + 1] if isinstance(n.op, BatchNorm)})
            key = groups[-1] if layer == "pw_bn" else node.key
            step = get[f"{key}/log2_range"].exp2() / max(-low, high)
            return (z / step).round().clamp(low, high), step
        case Add():
            return (values + before[1][0]).clamp(-8, 7), scale
        case GlobalSumPool():
            pixels = values.shape[2] * values.shape[3]
            return values.sum((2, 3)) // 2 ** (math.ceil(math.log2(15 * pixels)) - 4), scale
        case Linear():
            largest = get["output"].abs().max()
            unit = scale * largest / 7
            product = values @ (get["output"] / largest * 7).round().clamp(-7, 7).T
            return product + (get["output/bias"] / unit).round(), unit
        case _:
            raise AssertionError(node.op)


NORM = ("mean", "variance", "gain", "offset")


@pytest.mark.parametrize("depthwise_bits", [4, 5])
def test_the_quantized_network_is_the_entry_s_arithmetic(depthwise_bits):
    network = build(SMALL, Options(depthwise_bits=depthwise_bits))
    weights = Weights([network], seed=3)
    x = images(64, 32)
    with torch.no_grad():
        forward(network, weights, x, training=Training(momentum=1.0))
        generator = torch.Generator().manual_seed(0)
        for name, tensor in weights.state_dict().items():
            if name.endswith(("/offset", "/bias", "/log2_range")):
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.3)
            if name.endswith("/gain"):
                tensor.mul_(torch.randn(tensor.shape, generator=generator).sign())
        values = [(v.codes.double(), torch.as_tensor(v.scale).double()) for v in run(network, weights, x)]
    for position, node in enumerate(network.nodes[1:], 1):
        codes, scale = by_hand(network, weights, position, [values[i] for i in node.inputs])
        ours = values[position]
        assert torch.allclose(ours[1], scale, rtol=1e-6), node.key
        apart = (ours[0] - codes).abs()
        if isinstance(node.op, BatchNorm):  # offsets are kept as integers: a level begins one accumulator off at times
            assert float(apart.max()) <= 1 and float(apart.mean()) < 0.02, node.key
        else:
            assert float(apart.max()) == 0, node.key


def test_float_and_quantized_are_one_definition():
    quantized, plain = named("mobile14-4b"), named("mobile14-float")
    assert [n.key for n in quantized.nodes] == [n.key for n in plain.nodes]
    assert quantized.shapes == plain.shapes


def test_a_float_network_may_clip_where_the_quantized_one_does():
    network = build(SMALL, Options(quantized=False, clip_residuals=True, hard_tanh=2.0))
    weights = Weights([network])
    with torch.no_grad():
        weights["stage1/unit1/pw_bn/gain"].mul_(100)
        values = run(network, weights, images(4, 32))
    at = next(i for i, n in enumerate(network.nodes) if n.key == "stage1/unit1/pw_bn")
    assert float(values[at].real.max()) == 2.0 and float(values[at].real.min()) == -2.0


def test_any_bit_widths_and_resolutions_build():
    for bits in (2, 3, 8):
        network = build(BLOCK_LISTS["mobile"], Options(weight_bits=bits, depthwise_bits=bits + 1), resolution=96)
        assert network.shapes[-1] == (1000,)
        assert network.ranges[-1] is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_bits": 1}, "2 to 16 bits"),
        ({"dropout": 1.0}, "dropout is in"),
        ({"hard_tanh": 0.0}, "hard_tanh is positive"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        build(SMALL, Options(**options))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match="mobile14-4b5b"):
        named("mobile15")
    assert {"mobile14-float", "mobile14-4b", "mobile14-4b5b", "proxyless-cpu", "mobilenetv2-1.4"} <= set(names())
    assert all(named(name).shapes[-1] == (10 if name == "proxyless-cifar" else 1000,) for name in names())


# block lists in files


def as_json(blocks: BlockList) -> dict:
    conv = {"use_bn": True, "act_func": "relu6", "groups": 1, "dilation": 1}
    entries, cin = [], blocks.stem
    for block in (b for stage in blocks.stages for b in stage):
        layer = {"name": "ZeroLayer", "stride": 1}
        if block is not None:
            layer = {
                "name": "MBInvertedConvLayer", "in_channels": cin, "out_channels": block.filters,
                "kernel_size": block.kernel, "stride": block.stride, "expand_ratio": block.expansion,
                "act_func": "relu6", "use_se": False,
            }  # fmt: skip
            cin = block.filters
        shortcut = {"name": "IdentityLayer"} if block is None or block.shortcut else None
        entries.append({"mobile_inverted_conv": layer, "shortcut": shortcut})
    return {
        "name": "ProxylessNASNets",
        "bn": {"momentum": 0.1, "eps": blocks.epsilon},
        "first_conv": conv | {"kernel_size": 3, "stride": 2, "out_channels": blocks.stem},
        "blocks": entries,
        "feature_mix_layer": conv | {"kernel_size": 1, "stride": 1, "out_channels": blocks.head},
        "classifier": {"out_features": blocks.classes},
        "resolution": blocks.resolution,
    }


@pytest.mark.parametrize("name", ["mobile", "mobile14", "cpu", "gpu"])
def test_a_json_block_list_makes_the_same_network(name, tmp_path):
    path = tmp_path / "net.json"
    path.write_text(json.dumps(as_json(BLOCK_LISTS[name])))
    assert build(read(path), Options()) == build(BLOCK_LISTS[name], Options())


def broken(change):
    content = as_json(SMALL)
    change(content)
    return content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(name="PyramidTreeNet"), "holds a PyramidTreeNet"),
        (lambda c: c["blocks"][1]["mobile_inverted_conv"].update(use_se=True), "block 1 has squeeze"),
        (lambda c: c["blocks"][1]["mobile_inverted_conv"].update(name="Other"), "block 1 is a Other"),
        (lambda c: c["blocks"][4].update(shortcut=None), "block 3|neither"),
        (lambda c: c["blocks"][1].update(shortcut={"name": "IdentityLayer"}), "block 1 has a shortcut past"),
        (lambda c: c["first_conv"].update(stride=1), "first_conv has stride 1"),
    ],
)
def test_a_block_list_with_another_meaning_is_refused(change, message):
    content = as_json(SMALL)
    if "neither" in message:
        content["blocks"][3]["shortcut"] = None
    change(content)
    with pytest.raises(ConfigError, match=message):
        parse_block_list(content)


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"name": "ProxylessNASNets"}', "\x00"])
def test_a_file_that_is_no_block_list_is_named(text, tmp_path):
    path = tmp_path / "net.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"net\.json"):
        read(path)
    with pytest.raises(ConfigError, match="cannot read"):
        read(tmp_path / "absent.json")


def test_a_shortcut_cannot_come_first():
    with pytest.raises(ConfigError, match="stage1/unit1: a shortcut"):
        build(BlockList(4, ((Block(3, 1, 4, shortcut=True),),), 8), Options())


def test_the_published_checkpoint_classifies(shared):
    folder = shared / "data" / "models" / "proxylessnas"
    blocks = read(folder / "proxyless-w0.3-r176_imagenet.json")
    network = build(blocks, Options(quantized=False, pool="mean", pixels="symmetric"))
    assert parameters(network) == 754280
    weights = Weights([network])
    loaded = initialise(weights, network, folder / "proxyless-w0.3-r176_imagenet.pth")
    assert not (loaded.missing or loaded.unexpected or loaded.misshapen)
    from PIL import Image

    pixels = []
    for path in sorted((shared / "data" / "imagenet-samples" / "val").glob("*/*"))[:40]:
        image = Image.open(path).convert("RGB")
        image = image.resize((201 * image.width // min(image.size), 201 * image.height // min(image.size)))
        left, top = (image.width - 176) // 2, (image.height - 176) // 2
        pixels.append(np.asarray(image.crop((left, top, left + 176, top + 176))))
    wnids = sorted(p.name for p in (shared / "data" / "imagenet-samples" / "val").iterdir())[:40]
    x = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    with torch.no_grad():
        found = forward(network, weights, x)[0].argmax(1)
    # classes are in the order of their names, and the images are of increasing ones
    assert len(wnids) == 40
    order = np.argsort(np.argsort(found.numpy(), kind="stable"))
    assert np.corrcoef(order, np.arange(40))[0, 1] > 0.7
