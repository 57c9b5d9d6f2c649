"""Silero VAD 6 (ONNX: a Fourier transform as convolution, convolutions, LSTM; 0.31 M weights) hears where
somebody speaks, MIT.

Evaluation: sentences of the background news, spoken by eSpeak NG (in the package espeakng-loader) in
four voices, with pauses, under noise of 0 to 20 dB; a frame is speech where the clean voice is loud.
Calibration: the other news, other voices, another seed.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import news
import numpy as np

from compress.source import locate

RATE = 16000
FRAME, CONTEXT = 512, 64
HIDDEN = 128
FRAMES = 256
"""Frames of one run; the state is carried on within it."""
EVALUATED, CALIBRATED = 24, 12
LOUD = 0.02
EVALUATION_VOICES = ("en-us", "en-gb", "en-gb-scotland", "en-us+f3")
CALIBRATION_VOICES = ("en-029", "en-us+f1", "en-gb+m5")
SYNCHRONOUS, UTF8 = 2, 1
Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def _speak(sentences: list[tuple[str, str]]) -> list[np.ndarray]:
    """Return what eSpeak NG makes of (voice, text): float32 at 16 kHz, loudest at 1."""
    folder = locate("package:espeakng_loader", Path())
    library = ctypes.CDLL(str(folder / "libespeak-ng.so"))
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, str(folder / "espeak-ng-data").encode(), 0)
    heard: list[np.ndarray] = []

    def collect(samples: ctypes._Pointer[ctypes.c_short], count: int, _: int | None) -> int:
        if count:
            heard.append(np.ctypeslib.as_array(samples, (count,)).astype(np.float32))
        return 0

    callback = Callback(collect)
    library.espeak_SetSynthCallback(callback)
    spoken = []
    for voice, text in sentences:
        heard.clear()
        library.espeak_SetVoiceByName(voice.encode())
        content = text.encode()
        library.espeak_Synth(content, len(content) + 1, 0, 0, 0, UTF8, None, None)
        library.espeak_Synchronize()
        sound = np.concatenate(heard)
        places = np.arange(0, len(sound) - 1, rate / RATE)
        sound = np.interp(places, np.arange(len(sound)), sound).astype(np.float32)
        spoken.append(sound / np.abs(sound).max())
    return spoken


def _sentences(text: str, count: int, voices: tuple[str, ...]) -> list[tuple[str, str]]:
    found = [each for each in re.split(r"(?<=[.!?])\s+", text) if 40 <= len(each) <= 120]
    chosen = found[:: max(1, len(found) // count)][:count]
    return [(voices[number % len(voices)], each) for number, each in enumerate(chosen)]


@cache
def _clips(calibrating: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return sounds [FRAMES x 512] with noise, and which of their frames are speech."""
    text = news.calibration_text() if calibrating else news.evaluation_text()
    voices = CALIBRATION_VOICES if calibrating else EVALUATION_VOICES
    rng = np.random.default_rng(1 if calibrating else 0)
    clips = []
    for voice in _speak(_sentences(text, CALIBRATED if calibrating else EVALUATED, voices)):
        clean = np.zeros(FRAMES * FRAME, np.float32)
        start = int(rng.integers(RATE // 2, 2 * RATE))
        kept = voice[: len(clean) - start]
        clean[start : start + len(kept)] = 0.3 * kept
        loudness = np.sqrt(np.square(clean.reshape(FRAMES, FRAME)).mean(1))
        power = np.square(kept).mean() * 0.09
        noise = np.cumsum(rng.normal(size=len(clean))) if rng.random() < 0.5 else rng.normal(size=len(clean))
        noise = np.diff(noise, prepend=noise[0]) * 0.5 + noise - np.convolve(noise, np.ones(64) / 64, "same")
        noise *= np.sqrt(power / np.square(noise).mean() / 10 ** (rng.uniform(0, 20) / 10))
        clips.append(((clean + noise).astype(np.float32), loudness > LOUD * loudness.max()))
    return clips


def _feeds(sound: np.ndarray) -> dict[str, np.ndarray]:
    """Return the frames with 64 samples of the one before, float32 [frames, 576], and an empty state."""
    frames = sound.reshape(-1, FRAME)
    before = np.concatenate([np.zeros((1, CONTEXT), np.float32), frames[:-1, -CONTEXT:]])
    state = np.zeros((1, 1, HIDDEN), np.float32)
    return {"input": np.concatenate([before, frames], axis=1), "h": state, "c": state}


def calibration() -> Iterator[dict[str, np.ndarray]]:
    """Yield clips of the other news."""
    return (_feeds(sound) for sound, _ in _clips(True))


def evaluation() -> Iterator[dict[str, np.ndarray]]:
    """Yield clips of the background news."""
    return (_feeds(sound) for sound, _ in _clips(False))


def metric(run: Callable[[dict[str, np.ndarray]], list[np.ndarray]]) -> dict[str, float]:
    """Return the share of frames told apart rightly at probability one half."""
    right = [(run(_feeds(sound))[0] > 0.5) == speech for sound, speech in _clips(False)]
    return {"frame accuracy": float(np.concatenate(right).mean())}
