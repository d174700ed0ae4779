"""Records of NAS-Bench-101's files written and read by json, base64, struct, protobuf and TensorBoard."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

NAMES = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
Run = dict[str, Any]  # hash, epochs, adjacency, operations, parameters, evaluations (3 x 5), total_time


def _messages() -> Any:
    """ModelMetrics of the published model_metrics.proto."""
    file = descriptor_pb2.FileDescriptorProto(name="model_metrics.proto", package="nasbench", syntax="proto2")
    field = descriptor_pb2.FieldDescriptorProto
    evaluation = file.message_type.add(name="EvaluationData")
    names = ("current_epoch", "training_time", "train_accuracy", "validation_accuracy", "test_accuracy")
    for number, name in enumerate(names, start=1):
        evaluation.field.add(name=name, number=number, type=field.TYPE_DOUBLE, label=field.LABEL_OPTIONAL)
    evaluation.field.add(name="checkpoint_path", number=6, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    metrics = file.message_type.add(name="ModelMetrics")
    metrics.field.add(
        name="evaluation_data",
        number=1,
        type=field.TYPE_MESSAGE,
        type_name=".nasbench.EvaluationData",
        label=field.LABEL_REPEATED,
    )
    metrics.field.add(name="trainable_parameters", number=2, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    metrics.field.add(name="total_time", number=3, type=field.TYPE_DOUBLE, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("nasbench.ModelMetrics"))


ModelMetrics = _messages()
EVALUATION = [field.name for field in ModelMetrics.DESCRIPTOR.fields_by_name["evaluation_data"].message_type.fields][:5]


def message(run: Run) -> bytes:
    metrics = ModelMetrics(trainable_parameters=run["parameters"], total_time=run["total_time"])
    for evaluation in run["evaluations"]:
        metrics.evaluation_data.add(**dict(zip(EVALUATION, evaluation, strict=True)))
    return bytes(metrics.SerializeToString())


def data(run: Run) -> bytes:
    fields = [
        run["hash"],
        run["epochs"],
        "".join(str(edge) for row in run["adjacency"] for edge in row),
        ",".join(run["operations"]),
        base64.encodebytes(message(run)).decode(),
    ]
    return json.dumps(fields).encode()


def framed(contents: list[bytes]) -> bytes:
    """A TFRecord file."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    parts = []
    for content in contents:
        length = struct.pack("<Q", len(content))
        checks = [struct.pack("<I", masked_crc32c(part)) for part in (length, content)]
        parts += [length, checks[0], content, checks[1]]
    return b"".join(parts)


def contents(file: bytes) -> list[bytes]:
    """The data of the records of a whole TFRecord file."""
    found, at = [], 0
    while at < len(file):
        (length,) = struct.unpack_from("<Q", file, at)
        found.append(file[at + 12 : at + 12 + length])
        at += 16 + length
    return found


def read(content: bytes) -> Run:
    """What the original reads in a record's data."""
    module_hash, epochs, adjacency, operations, metrics = json.loads(content)
    side = int(len(adjacency) ** 0.5)
    parsed = ModelMetrics.FromString(base64.b64decode(metrics))
    return {
        "hash": module_hash,
        "epochs": epochs,
        "adjacency": np.array([int(c) for c in adjacency]).reshape(side, side).tolist(),
        "operations": operations.split(","),
        "parameters": parsed.trainable_parameters,
        "evaluations": [[getattr(e, name) for name in EVALUATION] for e in parsed.evaluation_data],
        "total_time": parsed.total_time,
    }


def real_runs(shared: Path) -> list[Run]:
    """The 109 public runs, in the order of their modules; what is not known of them is 0."""
    described = json.loads((shared / "data/nas-benchmarks/nb101_real_rows.json").read_text())
    return [
        {
            "hash": module_hash,
            "epochs": int(epochs),
            "adjacency": module["module_adjacency"],
            "operations": module["module_operations"],
            "parameters": module["trainable_parameters"],
            "evaluations": [[0.0] * 5, [int(epochs) / 2, *run[:4]], [float(epochs), *run[4:]]],
            "total_time": 0.0,
        }
        for module_hash, module in described["modules"].items()
        for epochs, runs in module["computed"].items()
        for run in runs
    ]
