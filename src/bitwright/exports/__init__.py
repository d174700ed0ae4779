"""The export contract: an integer graph in a format that others run.

Each file of this folder is one format and holds

    export(graph: IntegerGraph, path: Path) -> list[str]
        writes the graph at `path` and returns lines for people about what was written; raises ExportError, naming the
        node, for what the format cannot hold
    execute(path: Path, x: NDArray[np.int64]) -> NDArray[np.int64]
        runs what was written on x: (N, *input shape), and returns (N, *output shape); raises ExportError if the tool
        that it needs is missing

An exporter sees integers only. What it writes must compute what integer/run.py computes. `_onnx_weights` is no such
format: it writes a network that computes with real numbers and so has no integer graph.
"""
