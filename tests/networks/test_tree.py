"""Networks of trees against PyTorch's own layers, wired by the JSON itself; the published one against its file."""

import copy
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitwright.costs.macs import Macs
from bitwright.errors import ConfigError
from bitwright.modules import Training, Weights, forward
from bitwright.networks import build, named, read
from bitwright.networks.checkpoints import initialise
from bitwright.networks.inverted_residual import LINEAR_FLOAT, Options
from bitwright.networks.published import TREE_NETS
from bitwright.networks.tree import Layer, ResidualTree, Tree, TreeNet, parse_tree_net
from bitwright.spaces.proxylessnas import Proxylessnas

ORDERS = ("bn_act_weight", "weight_bn_act", "act_weight_bn", "act_bn_weight", "weight_act_bn", "bn_weight_act")


# the same networks in PyTorch, under the names of ProxylessNAS


def shares(total, parts):
    return [total // parts + (i < total % parts) for i in range(parts)]


class PlainLayer(nn.Module):
    def __init__(self, content, eps):
        super().__init__()
        self.content, self.order = content, content["ops_order"].split("_")
        cin, cout, name = content["in_channels"], content["out_channels"], content["name"]
        if content["use_bn"]:
            self.bn = nn.BatchNorm2d(cin if self.order.index("bn") < self.order.index("weight") else cout, eps)
        kernel, stride = content.get("kernel_size"), content.get("stride")
        if name in ("ConvLayer", "DepthConvLayer"):
            dilation, groups = content["dilation"], content["groups"]
            where = {"stride": stride, "padding": kernel // 2 * dilation, "dilation": dilation, "bias": False}
            if name == "ConvLayer":
                self.conv = nn.Conv2d(cin, cout, kernel, groups=groups, **where)
            else:
                self.depth_conv = nn.Conv2d(cin, cin, kernel, groups=cin, **where)
                self.point_conv = nn.Conv2d(cin, cout, 1, groups=groups, bias=False)
        elif name == "PoolingLayer":
            padding = kernel // 2 if stride == 1 else 0
            average = nn.AvgPool2d(kernel, stride, padding, count_include_pad=False)
            self.pool = average if content["pool_type"] == "avg" else nn.MaxPool2d(kernel, stride, padding)

    def operation(self, x):
        for name in ("conv", "depth_conv", "point_conv", "pool"):
            if hasattr(self, name):
                x = getattr(self, name)(x)
        return nn.ChannelShuffle(self.content["groups"])(x) if self.content.get("has_shuffle") else x

    def forward(self, x):
        for step in self.order:
            if step == "weight":
                x = self.operation(x)
            elif step == "bn" and self.content["use_bn"]:
                x = self.bn(x)
            elif step == "act" and self.content["act_func"]:
                x = {"relu": F.relu, "relu6": F.relu6}[self.content["act_func"]](x)
        return x


def maybe(content, kind, eps):
    return None if content is None else kind(content, eps)


class PlainNode(nn.Module):
    def __init__(self, content, eps):
        super().__init__()
        self.content = content
        self.edges = nn.ModuleList(maybe(c, PlainLayer, eps) for c in content["edges"])
        self.child_nodes = nn.ModuleList(maybe(c, PlainNode, eps) for c in content["child_nodes"])
        count, out = len(self.edges), content["out_channels"]
        outs = shares(out, count) if content["merge_type"] == "concat" else [out] * count
        norms = outs if content["has_branch_bn"] else []
        self.branch_bns = nn.ModuleList(nn.BatchNorm2d(channels, eps) for channels in norms)

    def forward(self, x):
        count = len(self.edges)
        split = self.content["split_type"] == "split"
        parts = x.split(shares(x.shape[1], count), 1) if split else [x] * count
        ends = []
        for i, part in enumerate(parts):
            edge = part if self.edges[i] is None else self.edges[i](part)
            end = edge if self.child_nodes[i] is None else self.child_nodes[i](edge)
            ends.append(edge + self.branch_bns[i](end) if len(self.branch_bns) else end)
        return torch.cat(ends, 1) if self.content["merge_type"] == "concat" else sum(ends[1:], ends[0])


class PlainBlock(nn.Module):
    def __init__(self, content, eps):
        super().__init__()
        self.transition = content["name"] == "TransitionBlock"
        if self.transition:
            self.layers = nn.ModuleList(PlainLayer(c, eps) for c in content["layers"])
            return
        self.shortcut = PlainLayer(content["shortcut"], eps)
        self.in_bottle = maybe(content["in_bottle"], PlainLayer, eps)
        self.cell = PlainNode(content["cell"], eps)
        self.out_bottle = maybe(content["out_bottle"], PlainLayer, eps)
        out = (content["out_bottle"] or content["cell"])["out_channels"]
        self.final_bn = nn.BatchNorm2d(out, eps) if content["final_bn"] else None

    def forward(self, x):
        if self.transition:
            return nn.Sequential(*self.layers)(x)
        residual = x
        for part in (self.in_bottle, self.cell, self.out_bottle, self.final_bn):
            residual = residual if part is None else part(residual)
        short = self.shortcut(x)
        return residual + F.pad(short, (0, 0, 0, 0, 0, residual.shape[1] - short.shape[1]))


class PlainNet(nn.Module):
    def __init__(self, content):
        super().__init__()
        eps = content.get("bn", {"eps": 1e-5})["eps"]
        self.blocks = nn.Sequential(*(PlainBlock(c, eps) for c in content["blocks"]))
        last = content["classifier"]
        self.classifier = nn.ModuleDict({"linear": nn.Linear(last["in_features"], last["out_features"], last["bias"])})

    def forward(self, x):
        return self.classifier["linear"](self.blocks(x).flatten(1))


def scattered(plain, seed=0):
    """With random weights and statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in plain.state_dict().items():
            if tensor.dim() > 1:
                scale = math.sqrt(2 / math.prod(tensor.shape[1:]))
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale)
            elif name.endswith(("running_var", "bn.weight")):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return plain


# random block lists


class Draw:
    """Block lists with every feature."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def pick(self, options):
        return options[int(self.rng.integers(len(options)))]

    def layer(self, name, cin, cout, **more):
        return {
            "name": name,
            **more,
            "in_channels": cin,
            "out_channels": cout,
            "use_bn": bool(self.rng.random() < 0.7),
            "act_func": self.pick([None, "relu", "relu6"]),
            "dropout_rate": 0,
            "ops_order": self.pick(ORDERS),
        }

    def convolution(self, cin, cout, stride=1):
        return self.layer(
            self.pick(["ConvLayer", "DepthConvLayer"]), cin, cout, kernel_size=self.pick([1, 3, 5, 7]), stride=stride,
            dilation=self.pick([1, 2, 3]), groups=self.pick([g for g in (1, 2, 3) if cin % g == cout % g == 0]),
            bias=False, has_shuffle=self.pick([True, False]),
        )  # fmt: skip

    def pool(self, channels, kernel, stride):
        kind = self.pick(["max", "avg"])
        return self.layer("PoolingLayer", channels, channels, pool_type=kind, kernel_size=kernel, stride=stride)

    def edge(self, cin, cout):
        if cin != cout:
            return self.convolution(cin, cout)
        return self.pick(
            [None, self.layer("IdentityLayer", cin, cin), self.pool(cin, 3, 1), self.convolution(cin, cin)]
        )

    def node(self, cin, cout, depth):
        count = int(self.rng.integers(1, min(cin, cout, 3) + 1))
        split, merge = self.pick(["copy", "split"]), self.pick(["add", "concat"])
        if count == 1:
            split, merge = self.pick([split, None]), self.pick([merge, None])
        norms = depth == 2 and bool(self.rng.random() < 0.6)
        edges, children = [], []
        ins = shares(cin, count) if split == "split" else [cin] * count
        outs = shares(cout, count) if merge == "concat" else [cout] * count
        for a, b in zip(ins, outs, strict=True):
            child = depth > 0 and self.rng.random() < 0.7
            middle = b if norms or not child else int(self.rng.integers(3, 8))
            edges.append(self.edge(a, middle))
            children.append(self.node(middle, b, depth - 1) if child else None)
        return {
            "name": "TreeNode", "in_channels": cin, "out_channels": cout, "split_type": split, "merge_type": merge,
            "has_branch_bn": norms, "path_drop_rate": 0, "edges": edges, "child_nodes": children,
        }  # fmt: skip

    def residual(self, cin, cout, stride):
        """Only the first child of a cell's one branch has branch norms, as ProxylessNAS builds them."""
        width, wide = (int(v) for v in self.rng.integers(3, 7, 2))
        bottles = (self.pick([True, False]), self.pick([True, False]))
        inner, outer = width if bottles[0] else cin, wide if bottles[1] else cout
        middle = int(self.rng.integers(3, 13))
        cell = {
            "name": "TreeNode", "in_channels": inner, "out_channels": outer, "split_type": None, "merge_type": None,
            "has_branch_bn": False, "path_drop_rate": 0, "edges": [self.convolution(inner, middle, stride)],
            "child_nodes": [self.node(middle, outer, 2)],
        }  # fmt: skip
        shortcut = self.layer("IdentityLayer", cin, cin) if stride == 1 else self.pool(cin, 2, 2)
        return {
            "name": "ResidualTreeBlock", "cell_drop_rate": 0.3, "final_bn": self.pick([True, False]),
            "shortcut": shortcut, "cell": cell,
            "in_bottle": self.convolution(cin, inner) if bottles[0] else None,
            "out_bottle": self.convolution(outer, cout) if bottles[1] else None,
        }  # fmt: skip

    def net(self):
        blocks = [{"name": "TransitionBlock", "layers": [self.convolution(3, 4), self.layer("IdentityLayer", 4, 4)]}]
        channels = 4
        for stride in (1, 2, 1):
            wider = channels + int(self.rng.integers(0, 4))
            blocks.append(self.residual(channels, wider, stride))
            channels = wider
        blocks.append({"name": "TransitionBlock", "layers": [self.pool(channels, 4, 4)]})
        last = {"name": "LinearLayer", "in_features": channels, "out_features": 5, "bias": self.pick([True, False])}
        net = {"name": "PyramidTreeNet", "blocks": blocks, "classifier": last | {"act_func": None, "use_bn": False}}
        return net | self.pick([{}, {"bn": {"eps": 1e-2, "momentum": 0.1}}])


def images(count, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def loaded(content, folder, resolution):
    """The plain network, and ours with its weights."""
    plain = scattered(PlainNet(content))
    torch.save({"state_dict": plain.state_dict()}, folder / "checkpoint.pth")
    network = build(parse_tree_net(content), LINEAR_FLOAT, resolution=resolution)
    weights = Weights([network], seed=1)
    found = initialise(weights, network, folder / "checkpoint.pth")
    assert not (found.missing or found.unexpected or found.misshapen)
    return plain, network, weights


@pytest.mark.parametrize("seed", range(24))
def test_any_tree_is_what_pytorch_s_layers_compute(seed, tmp_path):
    content = Draw(seed).net()
    plain, network, weights = loaded(content, tmp_path, 8)
    x = images(6, 8)
    pixels = (x.float() - 128) / 128
    with torch.no_grad():
        wanted = plain.eval()(pixels)
        ours, _ = forward(network, weights, x)
    assert torch.allclose(ours, wanted, rtol=1e-3, atol=1e-3 * float(wanted.detach().abs().max()))
    wanted = plain.train()(pixels)
    ours, _ = forward(network, weights, x, training=Training())
    assert torch.allclose(ours, wanted, rtol=1e-3, atol=2e-3 * float(wanted.detach().abs().max()))
    wanted.square().sum().backward()
    ours.square().sum().backward()
    first = content["blocks"][0]["layers"][0]["name"] == "ConvLayer"
    name = "blocks/0/layers/0/" + ("conv" if first else "point_conv")
    gradient = plain.get_parameter(name.replace("/", ".") + ".weight").grad
    assert torch.allclose(weights[name].grad, gradient, rtol=1e-2, atol=1e-2 * float(gradient.abs().max()))


def test_random_trees_have_every_feature():
    text = json.dumps([Draw(seed).net() for seed in range(24)])
    for word in ('"split"', '"concat"', '"has_branch_bn": true', '"final_bn": false', '"groups": 3', '"dilation": 3',
                 '"has_shuffle": true', '"in_bottle": null', '"out_bottle": null', '"eps"', '"bias": true',
                 "null, null", '"DepthConvLayer"', '"max"', '"avg"', '"relu6"', *ORDERS):  # fmt: skip
        assert word in text, word


# the published network


def layer_json(layer):
    if layer is None:
        return None
    names = {"conv": "ConvLayer", "separable": "DepthConvLayer", "identity": "IdentityLayer"}
    content = {"name": names.get(layer.kind, "PoolingLayer")}
    if layer.kind in ("max", "avg"):
        content |= {"pool_type": layer.kind}
    if layer.kind != "identity":
        content |= {"kernel_size": layer.kernel, "stride": layer.stride}
    if layer.kind in ("conv", "separable"):
        content |= {"dilation": layer.dilation, "groups": layer.groups, "bias": False, "has_shuffle": layer.shuffle}
    return content | {
        "in_channels": layer.channels, "out_channels": layer.filters, "use_bn": layer.normalised,
        "act_func": layer.activation, "dropout_rate": 0, "ops_order": "_".join(layer.order),
    }  # fmt: skip


def node_json(tree, cin, cout):
    return {
        "name": "TreeNode", "in_channels": cin, "out_channels": cout, "split_type": tree.split,
        "merge_type": tree.merge, "has_branch_bn": tree.branch_norms, "path_drop_rate": 0,
        "edges": [layer_json(branch.edge) for branch in tree.branches],
        "child_nodes": [b.child and node_json(b.child, b.edge.filters, cout) for b in tree.branches],
    }  # fmt: skip


def block_json(block):
    if not isinstance(block, ResidualTree):
        return {"name": "TransitionBlock", "layers": list(map(layer_json, block))}
    width = block.in_bottle.filters
    return {
        "name": "ResidualTreeBlock", "cell_drop_rate": 0.0, "final_bn": block.norm,
        "shortcut": layer_json(block.shortcut), "in_bottle": layer_json(block.in_bottle),
        "out_bottle": layer_json(block.out_bottle), "cell": node_json(block.cell, width, width),
    }  # fmt: skip


def published_json():
    """proxyless_cifar.config as ProxylessNAS wrote it."""
    last = {
        "name": "LinearLayer", "in_features": 400, "out_features": 10, "bias": True, "use_bn": False,
        "act_func": None, "dropout_rate": 0, "ops_order": "bn_act_weight",
    }  # fmt: skip
    return {
        "name": "PyramidTreeNet",
        "blocks": list(map(block_json, TREE_NETS["cifar"].blocks)),
        "classifier": last,
    }


def test_the_published_network_is_that_of_the_published_file():
    """Its length depends on the kind of every edge; what its pages of 16,000 characters begin with, on their places."""
    text = json.dumps(published_json(), indent=4)
    assert len(text) == 968879
    begins = {
        16000: '_bn": true,',
        64000: '"name": "DepthConvLayer"',
        112000: '"IdentityLayer"',
        208000: '"name": "TreeNode"',
        389500: '"PoolingLayer",',
        517500: '_drop_rate": 0',
        597500: '": "add"',
        709500: '"act_func": null',
        789500: ': "relu"',
        869500: '"pool_type": "avg"',
        933500: '"kernel_size": 3,',
    }
    assert {at: text[at : at + 80].lstrip()[: len(word)] for at, word in begins.items()} == begins
    assert parse_tree_net(json.loads(text)) == TREE_NETS["cifar"]


def test_the_published_network_has_the_published_size_and_is_what_pytorch_computes(tmp_path):
    plain, network, weights = loaded(published_json(), tmp_path, 32)
    count = sum(p.numel() for p in weights.parameters())
    assert count == sum(p.numel() for p in plain.parameters())
    assert round(count / 1e6, 1) == 5.7
    assert network == named("proxyless-cifar")
    x = images(2, 32)
    with torch.no_grad():
        wanted = plain.eval()((x.float() - 128) / 128)
        ours, _ = forward(network, weights, x)
    assert torch.allclose(ours, wanted, rtol=1e-3, atol=1e-3 * float(wanted.detach().abs().max()))


def test_macs_are_those_of_pytorch_s_convolutions():
    plain, macs = PlainNet(published_json()), []

    def count(module, inputs, output):
        macs.append(output[0].numel() * module.weight[0].numel())

    for module in plain.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        plain.eval()(torch.zeros(1, 3, 32, 32))
    assert Macs()(named("proxyless-cifar")).total == sum(macs)


# block lists in files


def test_every_kind_of_block_list_is_read(tmp_path):
    path = tmp_path / "net.json"
    path.write_text(json.dumps(published_json()))
    assert read(path) == TREE_NETS["cifar"]
    space = Proxylessnas((3, 32, 32), 10, (0.0,), (1.0,), network=str(path), quantized=False, dropout=0.2)
    (architecture,) = space.covering()
    assert space.network(architecture).shapes[-1] == (10,)
    path.write_text('{"name": "ResNet"}')
    with pytest.raises(
        ConfigError, match=r"net.json: holds a ResNet; .* ProxylessNASNets, MobileNetV2, PyramidTreeNet"
    ):
        read(path)


def test_a_tree_has_no_quantized_form():
    with pytest.raises(ConfigError, match="no quantized form"):
        build(TREE_NETS["cifar"], Options())


def test_images_must_leave_one_pixel():
    with pytest.raises(ConfigError, match="images of 64 pixels leave 2x2"):
        build(TREE_NETS["cifar"], LINEAR_FLOAT, resolution=64)


def test_settings_of_all_nodes_replace_their_own():
    content = Draw(3).net()
    explicit = copy.deepcopy(content)
    content["tree_node_config"] = {"has_branch_bn": True, "path_drop_rate": 0}
    for block in explicit["blocks"][1:4]:
        block["cell"]["child_nodes"][0]["has_branch_bn"] = True
    assert parse_tree_net(content) == parse_tree_net(explicit)


SMALL = TreeNet(
    (
        ResidualTree(
            Layer("identity", 3, 3), Tree(()), Layer("conv", 3, 4, 3, groups=1), Layer("conv", 4, 3), norm=False
        ),
    ),
    resolution=1,
)


def small():
    """One residual block whose cell splits four channels in two."""
    content = {"name": "PyramidTreeNet", "blocks": [block_json(SMALL.blocks[0])]}
    cell = content["blocks"][0]["cell"]
    edges = [layer_json(Layer("separable", 2, 4, 3)), layer_json(Layer("max", 2, 2, 3))]
    cell |= {"split_type": "split", "merge_type": "add", "edges": edges, "child_nodes": [None, None]}
    cell["edges"][1] = layer_json(Layer("conv", 2, 4))
    content["classifier"] = {"name": "LinearLayer", "in_features": 3, "out_features": 10}
    return content


def test_the_smallest_list_builds():
    assert build(parse_tree_net(small()), LINEAR_FLOAT, resolution=1).shapes[-1] == (10,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, b: c.update(name="ResNet"), "holds a ResNet"),
        (lambda c, b: c.update(cell_drop_rate=0.2), "cell_drop_rate 0.2"),
        (lambda c, b: c["classifier"].update(act_func="relu"), "the classifier is no LinearLayer"),
        (lambda c, b: b.update(name="Other"), "blocks/0 is a Other"),
        (lambda c, b: b["in_bottle"].update(name="ZeroLayer"), "blocks/0/in_bottle is a ZeroLayer"),
        (lambda c, b: b["in_bottle"].update(bias=True), "blocks/0/in_bottle has a bias"),
        (lambda c, b: b["in_bottle"].update(dropout_rate=0.1), "has dropout"),
        (lambda c, b: b["in_bottle"].update(act_func="swish"), "the activation swish"),
        (lambda c, b: b["in_bottle"].update(ops_order="bn_weight"), "the order bn_weight"),
        (lambda c, b: b["in_bottle"].update(kernel_size=4), "a kernel of 4"),
        (lambda c, b: b["in_bottle"].update(kernel_size=[1, 3]), r"a kernel of \[1, 3\]"),
        (lambda c, b: b["in_bottle"].update(groups=2), "blocks/0/in_bottle/conv cuts inputs"),
        (lambda c, b: b["in_bottle"].update(in_channels=5), "in_bottle takes 5 channels and gets 3"),
        (lambda c, b: b["out_bottle"].update(out_channels=2), "blocks/0/pad pads 3 channels to 2"),
        (lambda c, b: b["cell"].update(path_drop_rate=0.1), "path_drop_rate 0.1"),
        (lambda c, b: b["cell"].update(split_type="halve"), "splits by halve"),
        (
            lambda c, b: b["cell"].update(merge_type=None),
            "blocks/0/cell has 2 edges, splits by split and merges by None",
        ),
        (lambda c, b: b["cell"].update(child_nodes=[None]), "2 edges and 1 child nodes"),
        (lambda c, b: b["cell"]["edges"][1].update(out_channels=5), "blocks/0/cell/add/1 adds"),
        (
            lambda c, b: b.update(shortcut=layer_json(Layer("max", 3, 3, 2, 2))),
            "blocks/0/shortcut does not tile",
        ),
        (lambda c, b: b.update(shortcut=layer_json(Layer("avg", 3, 3, 2, 2))), "a 2x2 window does not fit"),
    ],
)
def test_a_list_with_another_meaning_is_refused(change, message):
    content = small()
    change(content, content["blocks"][0])
    with pytest.raises(ConfigError, match=message):
        build(parse_tree_net(content), LINEAR_FLOAT, resolution=1)


@pytest.mark.parametrize("change", [lambda c: c.pop("blocks"), lambda c: c["blocks"][0]["cell"].update(child_nodes=[])])
def test_a_file_without_what_it_needs_is_named(change, tmp_path):
    content = small()
    change(content)
    path = tmp_path / "net.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"net\.json is no block list"):
        read(path)
