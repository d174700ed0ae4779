"""Block lists as they were published.

mobile, mobile14, cpu, gpu: ProxylessNAS for those targets (Cai et al. 2019, arXiv:1812.00332).
mobilenetv2-1.0, mobilenetv2-1.4: MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381, table 2); the wide one is the
    reference of the MicroNet challenge.
cifar: ProxylessNAS for CIFAR-10, a network of trees.
"""

from __future__ import annotations

from .inverted_residual import Block, BlockList
from .tree import Branch, Layer, ResidualTree, Tree, TreeNet


def _stage(*blocks: str, filters: int, stride: int = 1) -> tuple[Block | None, ...]:
    """A stage from words such as e3k5, or - for a block that was left out; all but the first have a shortcut."""
    return tuple(
        None
        if word == "-"
        else Block(int(word[3]), int(word[1]), filters, stride if number == 0 else 1, shortcut=number > 0)
        for number, word in enumerate(blocks)
    )


def _mobilenet(width: float) -> BlockList:
    """Expansion, channels, repeats and stride of each stage as in the paper; channels in multiples of 8."""

    def channels(published: int) -> int:
        scaled = published * width
        rounded = max(8, int(scaled + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * scaled else rounded

    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    stages = tuple(_stage(*[f"e{e}k3"] * n, filters=channels(c), stride=s) for e, c, n, s in table)
    return BlockList(channels(32), stages, channels(1280) if width > 1 else 1280)


BLOCK_LISTS = {
    "mobile": BlockList(
        32,
        (
            _stage("e1k3", filters=16),
            _stage("e3k5", "e3k3", "-", "-", filters=32, stride=2),
            _stage("e3k7", "e3k3", "e3k5", "e3k5", filters=40, stride=2),
            _stage("e6k7", "e3k5", "e3k5", "e3k5", filters=80, stride=2)
            + _stage("e6k5", "e3k5", "e3k5", "e3k5", filters=96),
            _stage("e6k7", "e6k7", "e3k7", "e3k7", filters=192, stride=2) + _stage("e6k7", filters=320),
        ),
        1280,
    ),
    "mobile14": BlockList(
        48,
        (
            _stage("e1k3", filters=24),
            _stage("e3k5", "e3k3", "-", "-", filters=40, stride=2),
            _stage("e3k7", "e3k3", "e3k5", "e3k5", filters=56, stride=2),
            _stage("e6k7", "e3k5", "e3k5", "e3k5", filters=112, stride=2)
            + _stage("e6k5", "e3k5", "e3k5", "e3k5", filters=136),
            _stage("e6k7", "e6k7", "e3k7", "e3k7", filters=256, stride=2) + _stage("e6k7", filters=448),
        ),
        1792,
    ),
    "cpu": BlockList(
        40,
        (
            _stage("e1k3", filters=24),
            _stage("e6k3", "e3k3", "e3k3", "e3k3", filters=32, stride=2),
            _stage("e6k3", "e3k3", "e3k3", "e3k5", filters=48, stride=2),
            _stage("e6k3", "-", "-", "e3k3", filters=88, stride=2)
            + _stage("e6k5", "e3k3", "e3k3", "e3k3", filters=104),
            _stage("e6k5", "e3k5", "e3k5", "e3k3", filters=216, stride=2) + _stage("e6k5", filters=360),
        ),
        1432,
    ),
    "gpu": BlockList(
        40,
        (
            _stage("e1k3", filters=24),
            _stage("e3k5", "-", "-", "-", filters=32, stride=2),
            _stage("e3k7", "-", "-", "e3k3", filters=56, stride=2),
            _stage("e6k7", "-", "-", "e3k5", filters=112, stride=2) + _stage("e6k5", "-", "e3k3", "e3k5", filters=128),
            _stage("e6k7", "e6k7", "e6k7", "e6k5", filters=256, stride=2) + _stage("e6k7", filters=432),
        ),
        1728,
    ),
    "mobilenetv2-1.0": _mobilenet(1.0),
    "mobilenetv2-1.4": _mobilenet(1.4),
}

# The edges of a cell: those of the node that reads the first half of the channels, of its two children, and the same
# for the second half. 3, 5, 7: separable convolutions; d: of 3x3 taps two pixels apart; A, M: 3x3 pools; I: identity.
CIFAR_CELLS = (
    "7M dI 7M 5d 55 77", "AI AA 3I M7 dI dd", "7I 3A 5A 3d 3A d5", "A5 5d 3d d7 73 I7", "AI 5d d5 7M 7A IM",
    "7M 7M 35 A7 d3 II", "dM IM 77 77 53 II", "dd 57 57 M5 AA 37", "7d 5M II MM 3A Ad", "5I 3I 37 3I 57 57",
    "7A 75 35 dI Ad d3", "5d A5 33 A5 77 d3", "MM 73 7d 3M A5 7I", "37 Md 7d 5d I3 73", "dA M3 dd AI 5I 5I",
    "5I d5 AA d5 55 73", "75 55 d3 Id M7 37", "Md II 3I 7M 57 Id", "dM 5A A7 5A 73 AM", "7d I7 I7 dM 37 M5",
    "Md A3 Id MM M5 IA", "dA 73 A3 3A 7I dd", "dM MA 7I 7d dI AM", "75 M7 MI MI Ad M7", "I5 A5 M5 dd 7A dM",
    "3I Ad dd d3 AA A3", "d7 M7 IM MM 55 5d", "37 73 AI M7 37 MM", "75 77 A3 33 Id A3", "5I AI A5 A7 3A AM",
    "I3 Ad I7 IA 7M Id", "7M 5I 7d M7 dM 77", "37 M3 I3 53 I3 5I", "d7 d3 d7 3I 3d MI", "MI I5 5A 37 AI Ad",
    "7M 75 dA 73 75 55", "AA AA dA 7I 5I IA", "M7 IA 5I II AI 7I", "d3 7M I5 AI 3I MA", "77 A5 A3 MI A3 MM",
    "II A7 I7 IM A5 A7", "dI 5I M5 75 d7 Id", "MM IA AM dA I5 3I", "77 57 7A d7 3M 7A", "dA dM d3 7d Id M5",
    "Ad AM 3M dI 7d AI", "MM A7 33 5d AI I3", "5d 7d IM M7 35 MI", "77 3M dA M5 MM 5M", "M5 IA d3 53 73 77",
    "I3 A5 77 I7 77 3A", "5M 53 AI 55 AM 5I", "3M d3 MA I7 Md 33", "77 3M 5I 5M M3 37",
)  # fmt: skip


def _edge(word: str, width: int) -> Layer:
    match word:
        case "I":
            return Layer("identity", width, width)
        case "A" | "M":
            return Layer("avg" if word == "A" else "max", width, width, kernel=3)
        case _:
            kernel, dilation = (3, 2) if word == "d" else (int(word), 1)
            return Layer("separable", width, width, kernel, dilation=dilation, normalised=True, activation="relu")


def _node(words: str, children: tuple[Tree | None, ...], width: int) -> Tree:
    edges = (_edge(word, width) for word in words)
    return Tree(tuple(map(Branch, edges, children)), "copy", "add")


def _cell(words: str, width: int, stride: int) -> Tree:
    pairs = words.split()
    halves = (
        _node(pair, tuple(_node(leaf, (None, None), width) for leaf in leaves), width)
        for pair, *leaves in (pairs[:3], pairs[3:])
    )
    widened = Layer("conv", width, 2 * width, 3, stride, groups=2, shuffle=True, normalised=True, activation="relu")
    branches = tuple(Branch(_edge("I", width), half) for half in halves)
    return Tree((Branch(widened, Tree(branches, "split", "add", branch_norms=True)),))


def _cifar() -> TreeNet:
    """Cells widen evenly from 16 to 100 channels, in even numbers; what lies between them is four times as wide."""
    stem = (Layer("conv", 3, 16, 3), Layer("identity", 16, 16, normalised=True))
    blocks: list[ResidualTree | tuple[Layer, ...]] = [stem]
    channels = 16
    for number, words in enumerate(CIFAR_CELLS, start=1):
        width, stride = round(16 + 84 * number / 54) // 2 * 2, 2 if number in (19, 37) else 1
        shrunk = Layer("avg", channels, channels, 2, 2) if stride == 2 else Layer("identity", channels, channels)
        blocks.append(
            ResidualTree(
                shrunk,
                _cell(words, width, stride),
                Layer("conv", channels, width, normalised=True),
                Layer("conv", width, 4 * width, normalised=True, activation="relu"),
            )
        )
        channels = 4 * width
    blocks.append((Layer("avg", channels, channels, 8, 8, normalised=True, activation="relu"),))
    return TreeNet(tuple(blocks))


TREE_NETS = {"cifar": _cifar()}
