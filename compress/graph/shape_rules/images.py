"""Shapes of convolutions and pools in ONNX Runtime's own layouts."""

from __future__ import annotations

import numpy as np

from compress.graph.shape_rules.alike import WINDOW, channels_last, channels_second
from compress.graph.shape_rules.call import Call, Outputs
from compress.graph.tensor_info import standard

BLOCK = 8
"""Channels that the runtime stores side by side, where no convolution reads them (16 with AVX-512)."""


def nhwc_convolution(call: Call) -> Outputs:
    """NhwcConv: channels last, in the weight as well."""
    weight = channels_second(call[1])
    found = standard("Conv", [channels_second(call[0]), weight], call.attributes(WINDOW))
    return [channels_last(found)]


def blocked_convolution(call: Call) -> Outputs:
    """Conv over blocks of channels; the weight says how many there are."""
    data, weight = call[0], call[1]
    channels = weight.shape[1] * call.int("group", 1)
    data = data._replace(shape=(data.shape[0], channels, *data.shape[2:]))
    return [standard("Conv", [data, weight], call.attributes(WINDOW))]


def into_blocks(call: Call) -> Outputs:
    """ReorderInput: channels second, filled up to whole blocks, as the convolution that reads them says."""
    data = channels_second(call[0]) if call.int("channels_last") else call[0]
    channels = -(-data.shape[1] // BLOCK) * BLOCK
    for reader in call.node.outputs[0].consumers():
        weight = reader.inputs[1] if reader.op_type == "Conv" else None
        if weight is not None and weight.const_value is not None:
            channels = weight.const_value.shape.numpy()[1] * reader.attributes.get_int("group", 1)
    return [data._replace(shape=(data.shape[0], channels, *data.shape[2:]))]


def out_of_blocks(call: Call) -> Outputs:
    """ReorderOutput: the channels that there really are."""
    plain = call[0]._replace(shape=(call[0].shape[0], call.int("channels"), *call[0].shape[2:]))
    return [channels_last(plain) if call.int("channels_last") else plain]


def blocked_upsample(call: Call) -> Outputs:
    """Upsample over blocks of channels."""
    scales = call.node.attributes["scales"].as_ints()
    return [call[0]._replace(shape=tuple(np.multiply(call[0].shape, scales).tolist()))]
