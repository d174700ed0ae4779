"""Weights from files: every published naming, our own at other bit widths, and files that are no such thing."""

import re

import pytest
import safetensors.torch
import torch

from bitwright.errors import StorageError
from bitwright.modules import Weights
from bitwright.networks.checkpoints import initialise, translated
from bitwright.networks.inverted_residual import LINEAR_FLOAT, Options, build
from bitwright.networks.published import BLOCK_LISTS

MOBILE14 = build(BLOCK_LISTS["mobile14"], Options(depthwise_bits=5))
FLOAT14 = build(BLOCK_LISTS["mobile14"], LINEAR_FLOAT)
BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
STAGES = (1, 4, 4, 8, 5)
LEFT_OUT = {(2, 3), (2, 4)}


def layer(prefix, filters, channels, kernel):
    shapes = {f"{prefix}.conv.weight": (filters, channels, kernel, kernel)}
    return shapes | {f"{prefix}.bn.{n}": () if n == "num_batches_tracked" else (filters,) for n in BN}


def published_shapes(style: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the float mobile14 checkpoint: "cai" as ProxylessNAS, "imgclsmob" as imgclsmob names them."""
    widths, kernels = (24, 40, 56, (112,) * 4 + (136,) * 4, (256,) * 4 + (448,)), {
        1: [3], 2: [5, 3], 3: [7, 3, 5, 5], 4: [7, 5, 5, 5, 5, 5, 5, 5], 5: [7] * 5,
    }  # fmt: skip
    expansions = {1: [1], 2: [3, 3], 3: [3] * 4, 4: [6, 3, 3, 3, 6, 3, 3, 3], 5: [6, 6, 3, 3, 6]}
    names = {
        "cai": ("inverted_bottleneck", "depth_conv", "point_linear"),
        "imgclsmob": ("bc_conv", "dw_conv", "pw_conv"),
    }
    bc, dw, pw = names[style]
    first, last = (
        ("first_conv", "feature_mix_layer") if style == "cai" else ("features.init_block", "features.final_block")
    )
    shapes, cin, number = layer(first, 48, 3, 3), 48, -1
    for stage, units in enumerate(STAGES, 1):
        for unit in range(1, units + 1):
            number += 1
            if (stage, unit) in LEFT_OUT:
                continue
            width = widths[stage - 1]
            out = width if isinstance(width, int) else width[unit - 1]
            e, k = expansions[stage][unit - 1], kernels[stage][unit - 1]
            place = (
                f"blocks.{number}.mobile_inverted_conv" if style == "cai" else f"features.stage{stage}.unit{unit}.body"
            )
            if e > 1:
                shapes |= layer(f"{place}.{bc}", e * cin, cin, 1)
            shapes |= layer(f"{place}.{dw}", e * cin, 1, k) | layer(f"{place}.{pw}", out, e * cin, 1)
            cin = out
    shapes |= layer(last, 1792, 448, 1)
    classifier = "classifier.linear" if style == "cai" else "output"
    return shapes | {f"{classifier}.weight": (1000, 1792), f"{classifier}.bias": (1000,)}


def random_state(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("style", ["cai", "imgclsmob"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_public_mobile14_checkpoint_has_a_place_for_every_tensor(style, prefix, tmp_path):
    state = {prefix + name: tensor for name, tensor in random_state(published_shapes(style)).items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "model.pth.tar")
    weights = Weights([FLOAT14])
    loaded = initialise(weights, FLOAT14, tmp_path / "model.pth.tar")
    assert (loaded.missing, loaded.unexpected, loaded.misshapen) == ((), (), ())
    assert set(loaded.loaded) == set(weights.state_dict())
    middle, end = ("inverted_bottleneck", "classifier.linear") if style == "cai" else ("bc_conv", "output")
    place = "blocks.15.mobile_inverted_conv" if style == "cai" else "features.stage4.unit7.body"
    assert torch.equal(weights["stage4/unit7/bc_conv"], state[f"{prefix}{place}.{middle}.conv.weight"])
    assert torch.equal(weights["stage4/unit7/bc_bn/offset"], state[f"{prefix}{place}.{middle}.bn.bias"])
    assert torch.equal(weights.statistics("stage4/unit7/bc_bn")[1], state[f"{prefix}{place}.{middle}.bn.running_var"])
    assert torch.equal(weights["output/bias"], state[f"{prefix}{end}.bias"])


def test_a_float_checkpoint_leaves_the_learned_ranges_of_a_quantized_network_as_they_start(tmp_path):
    torch.save(random_state(published_shapes("cai")), tmp_path / "model.pth")
    weights = Weights([MOBILE14])
    loaded = initialise(weights, MOBILE14, tmp_path / "model.pth")
    assert len(loaded.missing) == 48 and all(name.endswith("/log2_range") for name in loaded.missing)
    assert not loaded.unexpected
    assert "48 missing: final_block/bn/log2_range" in str(loaded)


def test_learned_scales_of_the_entry_have_a_place():
    """Brevitas keeps log2 of the threshold; the hard tangent of a group appears under every unit that shares it."""
    proxy = "act_quant_proxy.fused_activation_quant_proxy.tensor_quant.scaling_impl.learned_value"
    found = translated(
        {
            f"module.features.init_block.activ.{proxy}": torch.tensor(2.0),
            f"module.features.stage4.unit3.body.bc_conv.activ.{proxy}": torch.zeros(1, 336, 1, 1),
            f"module.features.stage4.unit3.body.pw_conv.activ.{proxy}": torch.tensor(3.0),
            f"module.features.stage4.unit7.body.pw_conv.activ.{proxy}": torch.tensor(4.0),
        },
        MOBILE14,
    )
    assert {name: float(value.mean()) for name, value in found.items()} == {
        "init_block/bn/log2_range": 2.0,
        "stage4/unit3/bc_bn/log2_range": 0.0,
        "stage4/unit1/group/log2_range": 3.0,
        "stage4/unit5/group/log2_range": 4.0,
    }


def test_our_own_weights_continue_at_other_bit_widths(tmp_path):
    narrow = Weights([build(BLOCK_LISTS["mobile14"], Options())], seed=1)
    with torch.no_grad():
        for name, parameter in narrow.named_parameters():
            if name.endswith("/log2_range"):
                parameter.add_(0.25)
    safetensors.torch.save_file(narrow.state_dict(), tmp_path / "weights.safetensors")
    wide = Weights([MOBILE14])
    loaded = initialise(wide, MOBILE14, tmp_path)
    assert (loaded.missing, loaded.unexpected, loaded.misshapen) == ((), (), ())
    assert all(torch.equal(tensor, narrow.state_dict()[name]) for name, tensor in wide.state_dict().items())


def test_missing_unexpected_and_misshapen_tensors_are_named(tmp_path):
    shapes = published_shapes("imgclsmob")
    del shapes["features.stage5.unit2.body.dw_conv.conv.weight"]
    shapes |= {"features.stage5.unit9.body.dw_conv.conv.weight": (3,), "other.thing": (2,), "output.bias": (10,)}
    torch.save(random_state(shapes), tmp_path / "model.pth")
    loaded = initialise(Weights([FLOAT14]), FLOAT14, tmp_path / "model.pth")
    assert loaded.missing == ("stage5/unit2/dw_conv",)
    assert loaded.unexpected == ("other.thing", "stage5/unit9/dw_conv")
    assert loaded.misshapen == ("output/bias",)
    assert "1 missing: stage5/unit2/dw_conv; 2 unexpected: other.thing, stage5/unit9/dw_conv" in str(loaded)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated|no checkpoint"),
        (b"hello, this is text", "no checkpoint"),
        (b"PK\x03\x04 truncated", "truncated"),
    ],
)
@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_files_that_are_no_checkpoints_are_named(content, message, name, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StorageError, match=f"{re.escape(name)}.*(truncated|corrupt|no checkpoint)"):
        initialise(Weights([FLOAT14]), FLOAT14, tmp_path / name)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    torch.save({"conv1.weight": torch.ones(3), "fc.bias": torch.ones(2)}, tmp_path / "resnet.pth")
    with pytest.raises(StorageError, match=r"no tensor of this network; it holds conv1\.weight, fc\.bias"):
        initialise(Weights([FLOAT14]), FLOAT14, tmp_path / "resnet.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(StorageError, match="holds a list"):
        initialise(Weights([FLOAT14]), FLOAT14, tmp_path / "list.pth")
    with pytest.raises(StorageError, match="cannot read"):
        initialise(Weights([FLOAT14]), FLOAT14, tmp_path / "absent.pth")
