"""Tokens a second that NVIDIA published for the Jetson Orin Nano, before and after its clocks were raised.

One request, weights in 4 bits with a scale for 32 (MLC): NVIDIA's technical blog, "Jetson Orin Nano Developer
Kit Gets a Super Boost", December 2024.
"""

from __future__ import annotations

import decoder

from compress.estimator import estimate, estimate_generation, load

PROMPT, TOKENS = 128, 128
"""Not published; the cache is a small part of what is read."""
PUBLISHED = {
    ("Llama-3.1-8B", "15 W"): 14.0,
    ("Llama-3.1-8B", "25 W"): 19.14,
    ("Llama-3.2-3B", "15 W"): 27.7,
    ("Llama-3.2-3B", "25 W"): 43.07,
    ("Qwen2.5-7B", "15 W"): 14.2,
    ("Qwen2.5-7B", "25 W"): 21.75,
}


def tokens_a_second(model: str, mode: str) -> float:
    """Return the modelled rate of one request."""
    profile = load("jetson-orin-nano").at(mode)
    block = estimate_generation(decoder.block(model), profile, prompt=PROMPT, tokens=TOKENS).token
    head = estimate(decoder.head(model), profile, shapes={"batch": 1, "sequence": 1}).total
    return 1 / (decoder.IN_FOUR_BITS[model].layers * block.seconds + head.seconds)
