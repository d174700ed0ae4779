"""MNIST (LeCun et al. 1998): 28x28 grey digits, 55,000 to train, the last 5,000 of the training files to validate."""

from pathlib import Path

from . import Dataset, RemoteFile
from ._idx import load_idx

_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FILES = (
    RemoteFile(_URL + "train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    RemoteFile(_URL + "train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
    RemoteFile(_URL + "t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
    RemoteFile(_URL + "t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
)


def load(root: Path, validation: int = 5000) -> Dataset:
    """root: where the four IDX files are, gzipped or not, or a folder mnist/ or MNIST/raw/ with them.
    validation: how many of the last training images are held out to validate.
    """
    return load_idx("mnist", tuple("0123456789"), root, ("mnist", "MNIST/raw"), FILES, validation)
