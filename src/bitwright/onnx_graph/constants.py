"""Constants of an ONNX file: reading them safely, and operators on constants alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import InvalidGraph
from .values import INTEGER_TYPES, MOST_ELEMENTS, Array, Constant, Function, Refused


def folded(node: Any, group: str, attributes: dict[str, Any], inputs: list[Constant]) -> Constant:
    """A node of constants."""
    name = node.op_type
    arrays = [i.values for i in inputs]
    if group == "general":
        if name == "BipolarQuant":
            scale = arrays[1]
            codes = np.where(arrays[0] >= 0, 1, -1)
            return Constant(codes.astype(np.float32) * scale, codes.astype(np.int64), scale)
        if name in ("Quant", "IntQuant"):
            scale, zero, bits = arrays[1:4]
            whole = quantize(arrays[0], scale, zero, attributes, float(bits.reshape(-1)[0])) - zero
            return Constant((whole * scale).astype(np.float32), np.rint(whole).astype(np.int64), scale)
        raise Refused("of constants is not read")
    if group:
        raise Refused("of constants is not read")
    moved = ("Identity", "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Flatten")
    if name in moved and inputs:
        sizes = list(arrays[0].shape)
        if name == "Transpose":
            perm = attributes.get("perm", list(range(len(sizes)))[::-1])
            return inputs[0].map(lambda v: np.transpose(v, perm))
        if name == "Identity":
            return inputs[0]
        new = new_shape(name, sizes, attributes, arrays[1] if len(arrays) > 1 else None)
        return inputs[0].map(lambda v: v.reshape(new))
    if name == "DequantizeLinear":
        zero = arrays[2] if len(arrays) > 2 else np.zeros((), dtype=np.int64)
        shape = axis_shape(arrays[0].ndim, arrays[1], attributes.get("axis", 1))
        scale = arrays[1].reshape(shape)
        codes = arrays[0].astype(np.int64) - zero.astype(np.int64).reshape(shape if zero.size > 1 else ())
        return Constant(codes.astype(np.float32) * scale, codes, scale)
    if name == "QuantizeLinear":
        zero = arrays[2] if len(arrays) > 2 else np.zeros((), dtype=np.uint8)
        shape = axis_shape(arrays[0].ndim, arrays[1], attributes.get("axis", 1))
        limits = np.iinfo(zero.dtype)
        zeros = zero.astype(np.float32).reshape(shape if zero.size > 1 else ())
        codes = np.rint(arrays[0] / arrays[1].reshape(shape)) + zeros
        return Constant(np.clip(codes, limits.min, limits.max).astype(zero.dtype))
    return Constant(_fold(name, attributes, arrays))


def new_shape(name: str, sizes: list[int], attributes: dict[str, Any], argument: Array | None) -> list[int]:
    """Of Reshape, Flatten, Squeeze and Unsqueeze."""
    axes = [int(v) for v in argument.reshape(-1)] if argument is not None else attributes.get("axes")
    match name:
        case "Flatten":
            axis = attributes.get("axis", 1) % (len(sizes) + 1)
            return [math.prod(sizes[:axis]), math.prod(sizes[axis:])]
        case "Squeeze":
            gone = {a % len(sizes) for a in axes} if axes is not None else {i for i, s in enumerate(sizes) if s == 1}
            if any(sizes[a] != 1 for a in gone):
                raise Refused(f"of axes {sorted(gone)} of shape {sizes}")
            return [s for i, s in enumerate(sizes) if i not in gone]
        case "Unsqueeze":
            if axes is None:
                raise Refused("without axes")
            rank = len(sizes) + len(axes)
            added = {a % rank for a in axes}
            rest = iter(sizes)
            return [1 if i in added else next(rest) for i in range(rank)]
        case _:
            shape = axes if argument is not None else attributes.get("shape")
            if shape is None or len(shape) > 8:
                raise Refused("to a shape that is not known")
            shape = [sizes[i] if s == 0 and i < len(sizes) else s for i, s in enumerate(shape)]
            known = math.prod(s for s in shape if s != -1)
            if shape.count(-1) > 1 or any(s < -1 for s in shape) or known == 0 or math.prod(sizes) % known:
                raise Refused(f"of {sizes} to {shape}")
            shape = [math.prod(sizes) // known if s == -1 else s for s in shape]
            if math.prod(shape) != math.prod(sizes):
                raise Refused(f"of {sizes} to {shape}")
            return shape


def array_of(tensor: Any) -> Array:
    import onnx

    name = tensor.name or "of a node"
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise InvalidGraph(f"constant {name} lies in another file, which is not opened")
    if any(d < 0 for d in tensor.dims) or math.prod(tensor.dims) > MOST_ELEMENTS:
        raise InvalidGraph(f"constant {name} has shape {list(tensor.dims)[:8]}")
    try:
        array = np.asarray(onnx.numpy_helper.to_array(tensor))
    except Exception as why:  # onnx raises whatever numpy and its own checks raise
        raise InvalidGraph(f"constant {name}: {str(why).splitlines()[0][:150]}") from None
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise InvalidGraph(f"constant {name} is of type {array.dtype}")
    return array


def attributes_of(node: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for attribute in node.attribute:
        match attribute.type:
            case 1:
                found[attribute.name] = float(attribute.f)
            case 2:
                found[attribute.name] = int(attribute.i)
            case 3:
                found[attribute.name] = attribute.s.decode(errors="replace")
            case 4:
                found[attribute.name] = array_of(attribute.t)
            case 6:
                found[attribute.name] = [float(v) for v in attribute.floats]
            case 7:
                found[attribute.name] = [int(v) for v in attribute.ints]
            case 5 | 10:
                raise InvalidGraph(f"{node.op_type} {node.name}: operators with graphs inside are not read")
            case _:
                found[attribute.name] = None
    return found


def quant_range(attributes: dict[str, Any], bits: float) -> tuple[int, int]:
    signed, narrow = attributes.get("signed", 1), attributes.get("narrow", 0)
    if not 1 <= bits <= 32:
        raise Refused(f"{bits} bits")
    if signed:
        top = math.floor(2.0 ** (bits - 1)) - 1
        return (-top if narrow else -top - 1), top
    return 0, math.floor(2.0**bits) - 1 - (1 if narrow else 0)


def rounding_of(mode: str) -> Function:
    match mode.upper():
        case "ROUND" | "HALF_EVEN":
            return np.rint
        case "CEIL":
            return np.ceil
        case "FLOOR":
            return np.floor
        case "UP":
            return lambda v: np.sign(v) * np.ceil(np.abs(v))
        case "DOWN" | "ROUND_TO_ZERO":
            return np.trunc
        case "HALF_UP":
            return lambda v: np.sign(v) * np.floor(np.abs(v) + np.float32(0.5))
        case "HALF_DOWN":
            return lambda v: np.sign(v) * np.ceil(np.abs(v) - np.float32(0.5))
        case _:
            raise Refused(f"rounding mode {mode}")


def quantize(values: Array, scale: Array, zero: Array, attributes: dict[str, Any], bits: float) -> Array:
    """The integers of a Quant node, zero point included, in float32 and in the order of qonnx's int_quant."""
    codes = values / scale + zero
    if bits == 1 and attributes.get("signed", 1):
        return np.where(codes >= 0, np.float32(1), np.float32(-1))
    low, high = quant_range(attributes, bits)
    return rounding_of(attributes.get("rounding_mode", "ROUND"))(np.clip(codes, np.float32(low), np.float32(high)))


def axis_shape(rank: int, values: Array, axis: int) -> tuple[int, ...]:
    """The shape with which values along `axis` broadcast; a scalar stays one."""
    if values.size == 1:
        return (1,) * rank
    if not -rank <= axis < rank:
        raise Refused(f"axis {axis}")
    return tuple(-1 if i == axis % rank else 1 for i in range(rank))


def _divide(a: Array, b: Array) -> Array:
    if np.asarray(a).dtype.kind in "iu" and np.asarray(b).dtype.kind in "iu":
        if (np.asarray(b) == 0).any():
            raise Refused("division by zero")
        quotient = np.abs(a) // np.abs(b)
        return np.asarray(np.where((a < 0) != (b < 0), -quotient, quotient))
    return np.asarray(a / b)


BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divide,
    "Max": np.maximum,
    "Min": np.minimum,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Pow": np.power,
}
UNARY: dict[str, Function] = {
    "Neg": np.negative,
    "Sqrt": np.sqrt,
    "Abs": np.abs,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.rint,
    "Exp": np.exp,
    "Log": np.log,
    "Reciprocal": np.reciprocal,
    "Sign": np.sign,
    "Relu": lambda v: np.maximum(v, v.dtype.type(0)),
}


def _fold(name: str, attributes: dict[str, Any], arrays: list[Array]) -> Array:
    """A standard operator on constants."""
    if name == "Constant":
        for key, kind in (("value_float", np.float32), ("value_int", np.int64)):
            if key in attributes:
                return np.array(attributes[key], dtype=kind)
        for key, kind in (("value_floats", np.float32), ("value_ints", np.int64)):
            if key in attributes:
                return np.array(attributes[key], dtype=kind)
        if isinstance(attributes.get("value"), np.ndarray):
            return np.asarray(attributes["value"])
        raise Refused("without a value")
    if name in BINARY and len(arrays) == 2:
        if math.prod(np.broadcast_shapes(arrays[0].shape, arrays[1].shape)) > MOST_ELEMENTS:
            raise Refused("a constant that is too large")
        return np.asarray(BINARY[name](*arrays))
    if name in UNARY and len(arrays) == 1:
        return np.asarray(UNARY[name](arrays[0]))
    match name:
        case "Shape":
            return np.array(arrays[0].shape, dtype=np.int64)
        case "Gather":
            axis = attributes.get("axis", 0)
            if arrays[0].size // max(arrays[0].shape[axis], 1) * arrays[1].size > MOST_ELEMENTS:
                raise Refused("a constant that is too large")
            return np.asarray(np.take(arrays[0], arrays[1].astype(np.int64), axis=axis))
        case "Concat" if sum(a.size for a in arrays) <= MOST_ELEMENTS:
            return np.concatenate(arrays, axis=attributes.get("axis", 0))
        case "Cast":
            kinds = {1: np.float32, 9: np.bool_, 10: np.float32, 11: np.float32, **INTEGER_TYPES}
            return arrays[0].astype(kinds[attributes["to"]])
        case "ConstantOfShape" | "Expand":
            shape = [int(v) for v in arrays[-1].reshape(-1)]
            if any(s < 0 for s in shape) or math.prod(shape) > MOST_ELEMENTS:
                raise Refused(f"a constant of shape {shape[:8]}")
            if name == "Expand":
                if math.prod(np.broadcast_shapes(arrays[0].shape, tuple(shape))) > MOST_ELEMENTS:
                    raise Refused(f"a constant of shape {shape[:8]}")
                return np.asarray(arrays[0] * np.ones(shape, dtype=arrays[0].dtype))
            value = attributes.get("value", np.zeros(1, dtype=np.float32))
            return np.full(shape, value.reshape(-1)[0], dtype=value.dtype)
        case "Clip":
            low = arrays[1] if len(arrays) > 1 else attributes.get("min", -np.inf)
            high = arrays[2] if len(arrays) > 2 else attributes.get("max", np.inf)
            return np.asarray(np.clip(arrays[0], low, high)).astype(arrays[0].dtype)
        case "Slice" if len(arrays) >= 3:
            starts, ends, *rest = ([int(v) for v in a.reshape(-1)] for a in arrays[1:])
            axes = rest[0] if rest else list(range(len(starts)))
            steps = rest[1] if len(rest) > 1 else [1] * len(starts)
            places: list[slice] = [slice(None)] * arrays[0].ndim
            for a, s, e, d in zip(axes, starts, ends, steps, strict=True):
                places[a] = slice(s, e, d)
            return arrays[0][tuple(places)]
        case "Where" if len(arrays) == 3:
            return np.where(*arrays)
        case _:
            raise Refused("of constants is not read")
