"""The latency table that ProxylessNAS published for the Pixel 1 (Cai et al. 2019, arXiv:1812.00332), means only."""

from __future__ import annotations

from bitwright.latency.table import Entry, LatencyTable

FIXED = {
    "Conv-input:224x224x3-output:112x112x32": 4.0838,
    "Conv_1-input:7x7x320-output:7x7x1280": 3.0886,
    "Logits-input:7x7x1280-output:1000": 0.3096,
}
FIRST = {3: 3.8821, 5: 6.8188, 7: 10.8784}  # by kernel
CELLS = """
112x112x16 56x56x24 2 0 6.2406 7.5191 9.1438 16.7662 18.9413 22.1047
56x56x24 56x56x24 1 1 6.2731 7.9019 10.2148 11.0949 14.1313 18.5406
56x56x24 28x28x40 2 0 3.9412 4.3828 5.0262 7.1387 7.8806 9.1910
28x28x40 28x28x40 1 1 2.8568 3.4837 4.3674 5.3627 6.6215 8.3770
28x28x40 14x14x80 2 0 1.8103 1.9846 2.2292 3.4540 3.7976 4.2522
14x14x80 14x14x80 1 1 1.8414 2.1265 2.5003 3.4695 4.0798 4.8805
14x14x80 14x14x96 1 0 1.9608 2.2529 2.6299 3.6715 4.2889 5.0895
14x14x96 14x14x96 1 1 2.4547 2.7916 3.2347 4.9233 5.6446 6.6467
14x14x96 7x7x192 2 0 1.6477 1.7546 1.9018 3.2435 3.4905 3.7877
7x7x192 7x7x192 1 1 2.0538 2.2407 2.4566 3.8000 4.1644 4.6927
7x7x192 7x7x320 1 0 2.6441 2.8289 3.0498 4.8769 5.2648 5.8281
"""  # input, output, stride, idskip; e3k3 e3k5 e3k7 e6k3 e6k5 e6k7


def published() -> LatencyTable:
    means = dict(FIXED)
    for kernel, mean in FIRST.items():
        key = f"expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:{kernel}-stride:1-idskip:0"
        means[key] = mean
    for line in CELLS.split("\n")[1:-1]:
        given, output, stride, skips, *cells = line.split()
        pairs = [(expansion, kernel) for expansion in (3, 6) for kernel in (3, 5, 7)]
        for (expansion, kernel), mean in zip(pairs, cells, strict=True):
            sizes = f"input:{given}-output:{output}"
            shape = f"expand:{expansion}-kernel:{kernel}-stride:{stride}-idskip:{skips}"
            means[f"expanded_conv-{sizes}-{shape}"] = float(mean)
    return LatencyTable({key: Entry(100, mean, 0.0) for key, mean in means.items()})
