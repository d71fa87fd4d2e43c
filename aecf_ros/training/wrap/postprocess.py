"""The postprocessing of an encoder: from its output to one float32 vector for each sample."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper

from aecf_ros.training.wrap.graph import Chain, Encoder, spell
from aecf_ros.training.wrap.infer_spec import batch, patch_count
from aecf_ros.training.wrap.spec import AudioEncoder, ImageEncoder, Pool, WrapError


def postprocessing(encoder: Encoder, spec: ImageEncoder | AudioEncoder, shape: tuple[int, ...]) -> ModelProto:
    """The postprocessing as a model, from the encoder's output to ``embedding`` float32 (B, D).

    Args:
        shape: of the output for one sample.

    Raises:
        WrapError: the output is not a vector, and the YAML does not say how to make it one; it does not belong to one
            sample; its type is not a float.
    """
    chain = Chain("behind")
    name = "output"
    patches = patch_count(spec)
    if encoder.output_dtype not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
        raise WrapError(
            f"{encoder.path}: output '{encoder.output}' holds no floating-point numbers; "
            "name another as 'output:' in the YAML"
        )
    x = chain("Cast", name, to=TensorProto.FLOAT)
    if len(encoder.dims) == 1:  # without a batch axis the whole output belongs to one sample
        x, each = chain.reshape(x, 1, *shape), shape
    else:
        each = shape[1:]
        if shape[:1] != (patches,):
            raise WrapError(
                f"{encoder.path}: output '{encoder.output}' is {spell(shape)} for a batch of {patches}; "
                "name the embedding as 'output:' in the YAML"
            )
    if not _pools(spec.pool, each):
        raise WrapError(
            f"{encoder.path}: output '{encoder.output}' is {spell(shape)}, from which pool: {spec.pool} makes no vector"
            f"{_remedy(each)}"
        )
    channels_first = not isinstance(spec, ImageEncoder) or spec.layout == "nchw"
    channels = each[0] if len(each) == 3 and channels_first else each[-1]
    if spec.pool == "flatten":
        channels = each[0] * each[1] * each[2]
    elif spec.pool == "first":
        x = chain("Gather", x, np.array(0, np.int64), axis=1)
    elif spec.pool == "mean":
        if len(each) == 2 or not channels_first:
            x = chain("Transpose", x, perm=[0, len(each), *range(1, len(each))])
        x = chain("GlobalAveragePool", x)
    if patches > 1:
        x = chain("GlobalAveragePool", chain("Transpose", chain.reshape(x, -1, patches, channels), perm=[0, 2, 1]))
    chain.reshape(x, -1, channels)
    chain.nodes[-1].output[0] = "embedding"
    source = helper.make_tensor_value_info(name, encoder.output_dtype, [None] * len(shape))
    size = "batch" if batch(encoder, spec) is None else 1
    result = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [size, channels])
    return chain.model(source, result, encoder.model)


def _pools(pool: Pool, each: tuple[int, ...]) -> bool:
    """Whether a pooling makes a vector of an output ``each`` a sample."""
    if pool == "flatten":
        return len(each) == 3 and sum(n > 1 for n in each) <= 1
    return len(each) in {"none": (1,), "first": (2,), "mean": (2, 3)}[pool]


def _remedy(each: tuple[int, ...]) -> str:
    if len(each) == 3:
        return (
            "; set pool: flatten"
            if sum(n > 1 for n in each) <= 1
            else "; set pool: mean, or export the pooled features"
        )
    if len(each) == 2:
        return "; set pool: mean or pool: first, or export the pooled features"
    return "; set pool: none" if len(each) == 1 else "; export the encoder with its embedding as output"
