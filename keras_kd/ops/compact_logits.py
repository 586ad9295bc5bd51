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
a class without probability. Steps are finest at the largest logits, which have the probability: the
square root is wrong by half a step, and so a logit `v` below the largest by at most
`sqrt(v scale) / 254 + scale / 508^2`.

A level is a fraction of `log(V - k)`, in 8190 steps, of the log-sum-exp over the other classes,
whose largest logit is at 0, as `scale` is where other classes have a probability. 8191: they have
none. At its temperature `rest` is thus wrong by at most half a step, `log(V - k) / 16380`: 6.3e-4
for 32,000 classes.

`expand` makes the levels and slopes of `SparseLogits` of them. In between, the exact curve and that
of `rest` are both convex in 1 / T. They lie below the chord of the levels on either side, and above
the chords beside it, prolonged. The distance of these is the bound for any logits. It is largest
for a curve that falls in a line to 0 and stays there: `log(V - k)` times
`(sqrt(r) - 1) / (sqrt(r) + 1)`, where `r` is the ratio of the two temperatures. That is 0.086 of
`log(V - k)` from T = 0.5 to 8, 0.172 to T = 16, and all of it above. Measured errors from T = 0.5
to 16, of 300 to 65,537 classes and k = 50: 6e-3 for normal, Laplace, exponential, uniform and equal
logits, 0.01 for Zipf's, 0.02 for Student's t with 3 degrees of freedom, 0.05 for two heaps 10 or 20
apart, 0.18 for classes that all equal one of two logits. Above T = 16 smooth logits have 0.02.
"""

import functools

import numpy as np
import tensorflow as tf

from keras_kd.ops import sparse_logits
from keras_kd.ops.sparse_logits import FLOOR, SparseLogits

# At which 1 / T a level is kept, ascending. `SparseLogits` has 16 / sqrt(2) too.
_INVERSE = np.array([0.0, *(2.0 ** (n / 2) for n in (-8, -6, -5, -4, -3, -2, -1, 0, 1, 2))])
_ALL_INVERSE = np.array(sorted(1.0 / temperature for temperature in sparse_logits.TEMPERATURES))
(_INTERPOLATED,) = np.flatnonzero(~np.isin(_ALL_INVERSE.round(6), _INVERSE.round(6)))
_LEVEL_BITS = 13
_LEVEL_STEPS, _NO_LEVEL = 2**_LEVEL_BITS - 2, 2**_LEVEL_BITS - 1
_VALUE_STEPS, _NO_VALUE = 254, 255
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
    classes = logits.shape[-1]
    more = min(k + 1, classes)
    find = functools.partial(_largest_and_sums_of_rows, k=k)
    types, widths = (tf.float32, tf.int32, tf.float32), (more, more, len(_INVERSE))
    found = sparse_logits.by_blocks(find, logits, types, widths, from_logits)
    # Out of the loop over blocks: these are many operations on few numbers.
    values, indices, totals = (tf.reshape(value, [-1, value.shape[-1]]) for value in found)
    packed, is_sound = _packed(values, indices, totals, k, classes)
    return sparse_logits.at_positions(packed, packed.shape[-1], logits), is_sound


def expand(packed: tf.Tensor, k: int, classes: int) -> SparseLogits:
    """The inverse of `keep_compact`; the kept classes are sorted.

    Args:
        packed: The bytes, `[..., bytes_of(k, classes)]`.
        k: How many classes were kept.
        classes: The number of classes.
    """
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
            name: sparse_logits.at_positions(value, value.shape[-1], packed)
            for name, value in fields.items()
        }
    )


def _index_bits(k: int, classes: int) -> tuple[int, int]:
    """The bits of an index's lower part, and of all upper parts."""
    low = (classes // k).bit_length() - 1
    return low, k + (classes - 1) // 2**low


def _largest_and_sums_of_rows(logits: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """What is to be stored of logits `[rows, classes]`, before it is rounded.

    Returns:
        The `k + 1` largest logits minus the largest, their classes, and at each of `_INVERSE` the
        sum of `exp(z / T)` over the classes that are not kept, `z` minus the largest of those.
    """
    classes = logits.shape[-1]
    values, indices = sparse_logits.top_k(logits, min(k + 1, classes))
    largest = values[:, :1]
    values = values - largest  # NaN where the largest is infinite
    if classes <= k:
        return values, indices, tf.zeros([tf.shape(logits)[0], len(_INVERSE)])
    # The kept ones are 1 in each sum, and are subtracted: of a sum of at least 1 that loses little,
    # and spares a copy without them.
    scale = _scale(values)
    centered = tf.minimum(logits - (largest - scale), 0.0)
    totals = tf.stack([_count(centered), *_sums(centered)], axis=-1)
    return values, indices, totals - float(k)


def _scale(values: tf.Tensor) -> tf.Tensor:
    """The largest logit minus the smallest of `values` that has a probability, `[rows, 1]`."""
    return -tf.reduce_min(tf.where(values >= FLOOR, values, 0.0), axis=-1, keepdims=True)


def _packed(
    values: tf.Tensor, indices: tf.Tensor, totals: tf.Tensor, k: int, classes: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The bytes `[rows, bytes_of(k, classes)]`, and whether all numbers are numbers."""
    is_sound = ~tf.reduce_any(tf.math.is_nan(values)) & ~tf.reduce_any(tf.math.is_nan(totals))
    scale, kept, indices = _scale(values), values[:, :k], indices[:, :k]
    order = tf.argsort(indices, axis=-1)
    kept, indices = (tf.gather(each, order, batch_dims=1) for each in (kept, indices))
    steps = tf.round(_VALUE_STEPS * tf.sqrt(tf.math.divide_no_nan(-kept, scale)))
    steps = tf.where(kept < FLOOR, float(_NO_VALUE), steps)
    # One factor, so that no optimizer of graphs has two to reorder: a graph rounds as eager does.
    logarithms = tf.math.log(tf.maximum(totals, 1.0)) * (1.0 / _level_step(classes - k))
    codes = tf.cast(tf.round(tf.minimum(logarithms, float(_LEVEL_STEPS))), tf.int32)
    if classes > k:
        codes = tf.where(values[:, k:] >= FLOOR, codes, _NO_LEVEL)
    else:
        codes = tf.fill(tf.shape(codes), _NO_LEVEL)
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
    return tf.concat([scale, tf.cast(steps, tf.uint8), _pack(bits)], axis=-1), is_sound


def _level_step(others: int) -> float:
    """What one step of a level is, of `others` classes that are not kept."""
    return max(float(np.log(max(others, 1))), 1e-6) / _LEVEL_STEPS


def _count(centered: tf.Tensor) -> tf.Tensor:
    """How many classes have a probability: mostly all, which takes one look at the smallest."""
    every = tf.fill(tf.shape(centered)[:1], float(centered.shape[-1]))
    return tf.cond(
        tf.reduce_min(centered) >= FLOOR,
        lambda: every,
        lambda: tf.reduce_sum(tf.cast(centered >= FLOOR, tf.float32), axis=-1),
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
    known = tf.cast(codes, tf.float64) * _level_step(others)
    # In float64: large terms of the slopes cancel, and in float32 a graph would round otherwise
    # than eager execution. And no matrix products, which round by the number of rows, and on a GPU
    # to 10 bits (TensorFloat-32): what a sample's bytes mean depends on nothing else.
    first, of_levels, of_slopes = _interpolation()
    levels = slopes = tf.zeros((), tf.float64)
    for i in range(_POINTS):
        point = tf.gather(known, first + i, axis=-1)
        levels, slopes = levels + point * of_levels[i], slopes + point * of_slopes[i]
    levels, slopes = tf.cast(levels, tf.float32), tf.cast(slopes, tf.float32)
    levels = _between_its_bounds(levels)
    # The curve falls and is convex: its slope lies between those of the chords beside it.
    chords = (levels[:, 1:] - levels[:, :-1]) / np.diff(_ALL_INVERSE).astype("float32")
    chords = tf.minimum(chords, 0.0)
    slopes = tf.minimum(slopes, tf.pad(chords, [[0, 0], [0, 1]]))
    slopes = tf.maximum(slopes, tf.pad(chords, [[0, 0], [1, 0]], constant_values=-np.inf))
    exists = codes[:, :1] != _NO_LEVEL
    levels = tf.where(exists, levels - scale * _ALL_INVERSE.astype("float32"), -np.inf)
    return levels, tf.where(exists, slopes - scale, 0.0)


def _between_its_bounds(levels: tf.Tensor) -> tf.Tensor:
    """Levels `[rows, temperatures]`, the one that is interpolated within what convexity allows.

    It lies below the chord of its neighbors, and above those on either side of them, prolonged.
    """
    at, b = _INTERPOLATED, _ALL_INVERSE
    far_left, left, _, right, far_right = (
        levels[:, column : column + 1] for column in range(at - 2, at + 3)
    )
    from_left = left + (left - far_left) * _ratio(b[at] - b[at - 1], b[at - 1] - b[at - 2])
    from_right = right + (right - far_right) * _ratio(b[at + 1] - b[at], b[at + 2] - b[at + 1])
    chord = left + (right - left) * _ratio(b[at] - b[at - 1], b[at + 1] - b[at - 1])
    level = tf.maximum(levels[:, at : at + 1], tf.maximum(from_left, from_right))
    level = tf.minimum(level, chord)
    return tf.concat([levels[:, :at], level, levels[:, at + 1 :]], axis=-1)


def _ratio(one: float, other: float) -> np.float32:
    return np.float32(one / other)


@functools.cache
def _interpolation() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How known levels make the level and the slope at each temperature of `SparseLogits`.

    Returns:
        The first of `_POINTS` levels that a temperature takes, and the weights of them for the
        level and for the slope, `[_POINTS, temperatures]`.
    """
    at = np.log(_INVERSE + _NEAR)
    firsts = []
    levels, slopes = np.zeros([2, _POINTS, len(_ALL_INVERSE)])
    for column, inverse in enumerate(_ALL_INVERSE):
        x = np.log(inverse + _NEAR)
        nearest = int(np.argmin(np.abs(at - x)))
        firsts.append(min(max(nearest - _POINTS // 2, 0), len(at) - _POINTS))
        points = at[firsts[-1] : firsts[-1] + _POINTS]
        for i in range(_POINTS):
            factors = {j: 1.0 / (points[i] - points[j]) for j in range(_POINTS) if j != i}
            terms = {j: (x - points[j]) * factor for j, factor in factors.items()}
            levels[i, column] = np.prod(list(terms.values()))
            slopes[i, column] = sum(
                factor * np.prod([terms[m] for m in terms if m != j])
                for j, factor in factors.items()
            ) / (inverse + _NEAR)
    return np.array(firsts, "int32"), levels, slopes


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
