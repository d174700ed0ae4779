"""The constants of NAS-Bench-101, under the names that the original gives its flags."""

from __future__ import annotations

from typing import Any

INPUT, OUTPUT = "input", "output"
CONV3X3, CONV1X1, MAXPOOL3X3 = "conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3"
AVAILABLE_OPS = (CONV3X3, CONV1X1, MAXPOOL3X3)  # by label
MODULE_VERTICES, MAX_EDGES = 7, 9
VALID_EPOCHS = (4, 12, 36, 108)


def build_config() -> dict[str, Any]:
    """A new dict of all flags with the values of the published evaluation."""
    return {
        "train_data_files": [],
        "valid_data_file": "",
        "test_data_file": "",
        "sample_data_file": "",
        "data_format": "channels_last",
        "num_labels": 10,
        "module_vertices": MODULE_VERTICES,
        "max_edges": MAX_EDGES,
        "available_ops": list(AVAILABLE_OPS),
        "stem_filter_size": 128,
        "num_stacks": 3,
        "num_modules_per_stack": 3,
        "batch_size": 256,
        "train_epochs": 108,
        "train_seconds": 4.0 * 60 * 60,
        "learning_rate": 0.1,
        "lr_decay_method": "COSINE_BY_STEP",
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "max_attempts": 5,
        "intermediate_evaluations": ["0.5"],
        "num_repeats": 3,
        "use_tpu": True,
        "tpu_iterations_per_loop": 100,
        "tpu_num_shards": 2,
    }
