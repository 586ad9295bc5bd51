"""`SparseLogits` in few bytes: 143 for 50 of 32,000 classes, where float16 takes 296.

The bytes of a row, of `k` of `V` classes:

```
scale    4             float32: the largest logit minus the smallest that is stated apart
values   k             the kept logits, by class
indices  k l + k + V / 2^l bits, l = floor(log2(V / k)): Elias-Fano code of the sorted classes
levels   11 x 13 bits  the log-sum-exp of the other classes at 11 temperatures
```

The last two are bits, most significant first, filled up with zeros.

A value is a step `q` from 0 to 254: its logit is `scale (q / 254)^2` below the largest, and 255 is
a class without probability. Steps are finest at the largest logits, which have the probability: a
logit `v` below the largest is wrong by at most `sqrt(v scale) / 254 + scale / 254^2`.

A level is a fraction of `log(V - k)`, in 8190 steps, of the log-sum-exp over the other classes,
whose largest logit is at 0, as `scale` is where other classes have a probability. 8191: they have
none. `expand` makes the levels and slopes of `SparseLogits` of them. The error of `rest` that
remains is below 6e-3 from T = 0.5 to 16 (measured on normal, Laplace, exponential and uniform
logits of 300, 32,000 and 65,537 classes, k = 50), 0.02 for Zipf's logits, 0.05 for logits of
Student's t with 3 degrees of freedom, where single classes stand far above all others, and 0.04
above T = 16.
"""

import functools

import numpy as np
import tensorflow as tf

from keras_kd.ops import sparse_logits
from keras_kd.ops.sparse_logits import SparseLogits

# At which 1 / T a level is kept, ascending. `SparseLogits` has 16 / sqrt(2) too.
_INVERSE = np.array([0.0, *(2.0 ** (n / 2) for n in (-8, -6, -5, -4, -3, -2, -1, 0, 1, 2))])
_ALL_INVERSE = np.array(sorted(1.0 / temperature for temperature in sparse_logits.TEMPERATURES))
_LEVEL_BITS = 13
_LEVEL_STEPS, _NO_LEVEL = 2**_LEVEL_BITS - 2, 2**_LEVEL_BITS - 1
_VALUE_STEPS, _NO_VALUE = 254, 255
# As far below the largest a class counts as having no probability.
_FLOOR = -40.0 * 16.0
# Between the levels the log-sum-exp is a polynomial in log(1 / T + _NEAR) through this many.
_NEAR, _POINTS = 1.0 / 14.0, 6


def bytes_of(k: int, classes: int) -> int:
    """The bytes of a row.

    Args:
        k: How many classes are kept.
        classes: The number of classes.
    """
    low, high = _index_bits(k, classes)
    return 4 + k + -(-(k * low + high + _LEVEL_BITS * len(_INVERSE)) // 8)


def keep_compact(
    logits: tf.Tensor, k: int, from_logits: bool = True
) -> tuple[tf.Tensor, tf.Tensor]:
    """The `k` largest logits and the log-sum-exp of the remaining classes, in few bytes.

    Args:
        logits: `[..., classes]`.
        k: How many are kept, at most the number of classes.
        from_logits: `False`: they are probabilities; their logarithms are kept.

    Returns:
        The bytes, `[..., bytes_of(k, classes)]`, uint8, and whether no logit is NaN or +inf, a
        scalar: bytes cannot say so.
    """
    size = bytes_of(k, logits.shape[-1])
    keep = functools.partial(_keep_compact_of_rows, k=k)
    packed, sound = sparse_logits.by_blocks(
        keep, logits, (tf.uint8, tf.bool), (size, 1), from_logits
    )
    return packed, tf.reduce_all(sound)


def expand(packed: tf.Tensor, k: int, classes: int) -> SparseLogits:
    """The inverse of `keep_compact`; the kept classes are sorted.

    Args:
        packed: The bytes, `[..., bytes_of(k, classes)]`.
        k: How many classes were kept.
        classes: The number of classes.
    """
    rows = tf.shape(packed)[:-1]
    flat = tf.reshape(packed, [-1, bytes_of(k, classes)])
    low, high = _index_bits(k, classes)
    scale = tf.bitcast(flat[:, :4], tf.float32)[:, None]
    steps = tf.cast(flat[:, 4 : 4 + k], tf.float32)
    values = -scale * tf.square(steps / _VALUE_STEPS)
    values = tf.where(steps == _NO_VALUE, -np.inf, values)
    bits = _unpack(flat[:, 4 + k :])
    lows = _numbers(bits[:, : k * low], k, low)
    indices = lows + _positions_of_ones(bits[:, k * low : k * low + high], k) * 2**low
    ends = k * low + high
    codes = _numbers(bits[:, ends : ends + _LEVEL_BITS * len(_INVERSE)], len(_INVERSE), _LEVEL_BITS)
    levels, slopes = _levels_and_slopes(codes, scale, classes - k)
    fields = {"logits": values, "indices": indices, "levels": levels, "slopes": slopes}
    return SparseLogits(
        **{
            name: tf.ensure_shape(
                tf.reshape(value, tf.concat([rows, [value.shape[-1]]], axis=0)),
                [*packed.shape[:-1], value.shape[-1]],
            )
            for name, value in fields.items()
        }
    )


def _index_bits(k: int, classes: int) -> tuple[int, int]:
    """The bits of an index's lower part, and of all upper parts."""
    low = (classes // k).bit_length() - 1
    return low, k + (classes - 1) // 2**low


def _keep_compact_of_rows(logits: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor]:
    classes = logits.shape[-1]
    more = min(k + 1, classes)
    values, indices = sparse_logits.top_k(logits, more)
    largest = values[:, :1]
    values = values - largest  # NaN where the largest is infinite
    sound = tf.reduce_all(~tf.math.is_nan(values), axis=-1, keepdims=True)
    exists = values >= _FLOOR
    scale = -tf.reduce_min(tf.where(exists, values, 0.0), axis=-1, keepdims=True)
    kept, indices = values[:, :k], indices[:, :k]
    order = tf.argsort(indices, axis=-1)
    kept, indices = (tf.gather(each, order, batch_dims=1) for each in (kept, indices))
    steps = tf.round(_VALUE_STEPS * tf.sqrt(tf.math.divide_no_nan(-kept, scale)))
    steps = tf.where(kept < _FLOOR, float(_NO_VALUE), steps)
    if more > k:
        codes, has_no_nan = _codes(logits - (largest - scale), k, exists[:, k:])
        sound &= has_no_nan
    else:
        codes = tf.fill([tf.shape(logits)[0], len(_INVERSE)], _NO_LEVEL)
    low, high = _index_bits(k, classes)
    bits = tf.concat(
        [
            _bits(indices % 2**low, low),
            _ones_at(indices // 2**low + tf.range(k), high),
            _bits(codes, _LEVEL_BITS),
        ],
        axis=-1,
    )
    scale = tf.bitcast(scale[:, 0], tf.uint8)
    return tf.concat([scale, tf.cast(steps, tf.uint8), _pack(bits)], axis=-1), sound


def _codes(centered: tf.Tensor, k: int, exists: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The codes of the levels, int32.

    Args:
        centered: Logits `[rows, classes]`, the largest of those that are not kept at 0.
        k: How many are kept.
        exists: Whether classes that are not kept have a probability, `[rows, 1]`.

    Returns:
        `[rows, 11]`, and whether there is no NaN, `[rows, 1]`.
    """
    # The kept ones are 1 in each sum, and are subtracted: of a sum of at least 1 that loses little,
    # and spares a copy without them.
    centered = tf.minimum(centered, 0.0)
    classes = centered.shape[-1]
    totals = [_count(centered), *_sums(centered)]
    totals = tf.stack(totals, axis=-1) - float(k)
    fractions = tf.math.log(tf.maximum(totals, 1.0)) / max(np.log(classes - k), 1e-6)
    has_no_nan = tf.reduce_all(~tf.math.is_nan(totals), axis=-1, keepdims=True)
    fractions = tf.where(tf.math.is_nan(fractions), 0.0, tf.minimum(fractions, 1.0))
    codes = tf.cast(tf.round(_LEVEL_STEPS * fractions), tf.int32)
    return tf.where(exists, codes, _NO_LEVEL), has_no_nan


def _count(centered: tf.Tensor) -> tf.Tensor:
    """How many classes have a probability: mostly all, which takes one look at the smallest."""
    every = tf.fill(tf.shape(centered)[:1], float(centered.shape[-1]))
    return tf.cond(
        tf.reduce_min(centered) >= _FLOOR,
        lambda: every,
        lambda: tf.reduce_sum(tf.cast(centered >= _FLOOR, tf.float32), axis=-1),
    )


def _sums(centered: tf.Tensor) -> list[tf.Tensor]:
    """The sums of `exp(z / T)`, `[rows]` each, from T = 16 on.

    Half the temperature is the square of the exponential: of ten two are computed as such.
    """
    found = {}
    for first, count in ((1, 6), (3, 4)):  # 16, 8, ..., 1/2 and 8 / sqrt(2), ..., 1 / sqrt(2)
        mass = tf.exp(centered * float(_INVERSE[first]))
        inverse = _INVERSE[first]
        for step in range(count):
            found[inverse] = tf.reduce_sum(mass, axis=-1)
            if step < count - 1:
                mass, inverse = tf.square(mass), 2 * inverse
    return [found[inverse] for inverse in sorted(found)]


def _levels_and_slopes(
    codes: tf.Tensor, scale: tf.Tensor, others: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Those of `SparseLogits`, from the levels of 11 temperatures."""
    known = tf.cast(codes, tf.float32) * (max(np.log(max(others, 1)), 1e-6) / _LEVEL_STEPS)
    levels, slopes = (tf.matmul(known, each) for each in _interpolation())
    # The curve falls and is convex: its slope lies between those of the chords beside it.
    chords = (levels[:, 1:] - levels[:, :-1]) / np.diff(_ALL_INVERSE).astype("float32")
    chords = tf.minimum(chords, 0.0)
    slopes = tf.minimum(slopes, tf.pad(chords, [[0, 0], [0, 1]]))
    slopes = tf.maximum(slopes, tf.pad(chords, [[0, 0], [1, 0]], constant_values=-np.inf))
    exists = codes[:, :1] != _NO_LEVEL
    levels = tf.where(exists, levels - scale * _ALL_INVERSE.astype("float32"), -np.inf)
    return levels, tf.where(exists, slopes - scale, 0.0)


@functools.cache
def _interpolation() -> tuple[np.ndarray, np.ndarray]:
    """Matrices from the known levels to the levels and the slopes at all temperatures."""
    at = np.log(_INVERSE + _NEAR)
    levels, slopes = np.zeros([2, len(_INVERSE), len(_ALL_INVERSE)])
    for column, inverse in enumerate(_ALL_INVERSE):
        x = np.log(inverse + _NEAR)
        nearest = int(np.argmin(np.abs(at - x)))
        first = min(max(nearest - _POINTS // 2, 0), len(at) - _POINTS)
        points = range(first, first + _POINTS)
        for i in points:
            factors = {j: 1.0 / (at[i] - at[j]) for j in points if j != i}
            terms = {j: (x - at[j]) * factor for j, factor in factors.items()}
            levels[i, column] = np.prod(list(terms.values()))
            slopes[i, column] = sum(
                factor * np.prod([terms[m] for m in terms if m != j])
                for j, factor in factors.items()
            ) / (inverse + _NEAR)
    return levels.astype("float32"), slopes.astype("float32")


# Bits, most significant first.


def _bits(numbers: tf.Tensor, width: int) -> tf.Tensor:
    """Those of integers `[rows, n]`: `[rows, n width]`, int32."""
    shifts = tf.range(width - 1, -1, -1)
    found = tf.bitwise.bitwise_and(tf.bitwise.right_shift(numbers[..., None], shifts), 1)
    return tf.reshape(found, [tf.shape(numbers)[0], numbers.shape[-1] * width])


def _numbers(bits: tf.Tensor, count: int, width: int) -> tf.Tensor:
    """The inverse of `_bits`."""
    weights = 2 ** tf.range(width - 1, -1, -1)
    grouped = tf.reshape(bits, [tf.shape(bits)[0], count, width])
    return tf.reduce_sum(grouped * weights, axis=-1)


def _pack(bits: tf.Tensor) -> tf.Tensor:
    """Bytes of bits."""
    bits = tf.pad(bits, [[0, 0], [0, -bits.shape[-1] % 8]])
    return tf.cast(_numbers(bits, bits.shape[-1] // 8, 8), tf.uint8)


def _unpack(packed: tf.Tensor) -> tf.Tensor:
    return _bits(tf.cast(packed, tf.int32), 8)


def _ones_at(positions: tf.Tensor, width: int) -> tf.Tensor:
    """Bits `[rows, width]` that are 1 at `positions`, distinct in each row."""
    rows, k = tf.shape(positions)[0], positions.shape[-1]
    at = tf.stack([tf.repeat(tf.range(rows), k), tf.reshape(positions, [-1])], axis=-1)
    return tf.scatter_nd(at, tf.ones(tf.shape(at)[:1], tf.int32), [rows, width])


def _positions_of_ones(bits: tf.Tensor, k: int) -> tf.Tensor:
    """The upper parts of `k` sorted indices: how many zeros stand before each 1."""
    found = tf.reshape(tf.where(bits > 0)[:, 1], [-1, k])
    return tf.cast(found, tf.int32) - tf.range(k)
