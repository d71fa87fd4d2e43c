"""What comes behind an encoder: from its output to one float32 vector for each sample."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper

from aecf_ros.training.wrap.graph import Chain, Encoder, spell
from aecf_ros.training.wrap.infer_spec import batch, patch_count
from aecf_ros.training.wrap.spec import AudioEncoder, ImageEncoder, WrapError


def behind(encoder: Encoder, spec: ImageEncoder | AudioEncoder, shape: tuple[int, ...]) -> ModelProto:
    """The postprocessing as a model of its own, from the encoder's output to ``embedding`` float32 (B, D).

    Args:
        shape: that the output had for one sample.

    Raises:
        WrapError: the output is no vector, and the YAML does not say how to make it one; it is not of one sample; its
            type is no float.
    """
    chain = Chain("behind")
    name = "output"
    patches = patch_count(spec)
    if encoder.output_dtype not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
        raise WrapError(
            f"{encoder.path}: output '{encoder.output}' holds no floating-point numbers; name another as 'output:' in the YAML"
        )
    x = chain("Cast", name, to=TensorProto.FLOAT)
    # Without a batch axis the whole output is of one sample.
    if len(encoder.dims) == 1:
        x, each = chain.reshape(x, 1, *shape), shape
    else:
        each = shape[1:]
        if shape[:1] != (patches,):
            raise WrapError(
                f"{encoder.path}: output '{encoder.output}' is {spell(shape)} for a batch of {patches}; name the embedding as 'output:' in the YAML"
            )
    channels = each[0] if len(each) == 3 and _channels_first(spec) else each[-1] if each else 0
    if spec.pool == "none" and len(each) != 1:
        raise WrapError(
            f"{encoder.path}: output '{encoder.output}' is {spell(shape)}, which is no vector for each sample{_way_out(each)}"
        )
    if spec.pool == "flatten" and (len(each) != 3 or sum(n > 1 for n in each) > 1):
        raise WrapError(
            f"{encoder.path}: output '{encoder.output}' is {spell(shape)}, which pool: flatten does not make a vector{_way_out(each)}"
        )
    if spec.pool == "first" and len(each) != 2 or spec.pool == "mean" and len(each) not in (2, 3):
        raise WrapError(
            f"{encoder.path}: output '{encoder.output}' is {spell(shape)}, of which pool: {spec.pool} makes no vector{_way_out(each)}"
        )
    if spec.pool == "flatten":
        channels = each[0] * each[1] * each[2]
    elif spec.pool == "first":
        x = chain("Gather", x, np.array(0, np.int64), axis=1)
    elif spec.pool == "mean":
        if len(each) == 2 or not _channels_first(spec):
            x = chain("Transpose", x, perm=[0, len(each), *range(1, len(each))])
        x = chain("GlobalAveragePool", x)
    if patches > 1:
        x = chain("GlobalAveragePool", chain("Transpose", chain.reshape(x, -1, patches, channels), perm=[0, 2, 1]))
    chain.reshape(x, -1, channels)
    chain.nodes[-1].output[0] = "embedding"
    given = helper.make_tensor_value_info(name, encoder.output_dtype, [None] * len(shape))
    made = helper.make_tensor_value_info(
        "embedding", TensorProto.FLOAT, ["batch" if batch(encoder, spec) is None else 1, channels]
    )
    return chain.model(given, made, encoder.model)


def _channels_first(spec: ImageEncoder | AudioEncoder) -> bool:
    return not isinstance(spec, ImageEncoder) or spec.layout == "nchw"


def _way_out(each: tuple[int, ...]) -> str:
    if len(each) == 3:
        return (
            "; set pool: flatten"
            if sum(n > 1 for n in each) <= 1
            else "; set pool: mean, or export the pooled features"
        )
    if len(each) == 2:
        return "; set pool: mean or pool: first, or export the pooled features"
    return "; set pool: none" if len(each) == 1 else "; export the encoder with its embedding as output"
