"""The import contract: an integer graph from a format that others write.

Each file of this folder is one format and holds

    read(path: Path, ...) -> Imported
        the graph in the file, and lines for people about what was assumed and what was left out; raises InvalidGraph,
        naming the operator, for what is not a network of integers
    load(path: Path, ...) -> IntegerGraph
        the graph alone

A file comes from anyone: whatever is in it, reading it ends in a graph or in InvalidGraph, and opens no other file.
"""
