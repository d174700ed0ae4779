"""Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): MNIST's format with clothes for digits."""

from pathlib import Path

from . import Dataset, RemoteFile
from ._idx import load_idx

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FILES = (
    RemoteFile(_URL + "train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    RemoteFile(_URL + "train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
    RemoteFile(_URL + "t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
    RemoteFile(_URL + "t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
)


def load(root: Path, validation: int = 5000) -> Dataset:
    """root: where the four IDX files are, or a folder fashion_mnist/ or FashionMNIST/raw/ with them.
    validation: how many of the last training images are held out to validate.
    """
    return load_idx("fashion_mnist", CLASSES, root, ("fashion_mnist", "FashionMNIST/raw"), FILES, validation)
