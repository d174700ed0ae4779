"""Block lists as they were published.

mobile, mobile14, cpu, gpu: ProxylessNAS for those targets (Cai et al. 2019, arXiv:1812.00332).
mobilenetv2-1.0, mobilenetv2-1.4: MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381, table 2); the wide one is the
    reference of the MicroNet challenge.
"""

from __future__ import annotations

from .inverted_residual import Block, BlockList


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
