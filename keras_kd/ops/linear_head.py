"""`LinearHead`: what turns hidden states into logits, as a value that the loss in chunks takes."""

import dataclasses
from typing import Any

import tensorflow as tf

from keras_kd._utils import validation
from keras_kd.ops.arguments import as_tensor

# In which a product may be computed, by the names that Keras uses.
DTYPES = ("float32", "bfloat16", "float16")
# Of a head's gradient that are made before they are added.
_BLOCK_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class LinearHead:
    """The last layer of a language model: hidden states to logits over the vocabulary.

    `logits = cap(scale * (hidden @ kernel + bias))`, `cap(z) = c tanh(z / c)` with a soft cap `c`.

    Args:
        kernel: `[width, vocabulary]`, as the kernel of a `Dense` layer; a tensor or a variable.
        bias: `[vocabulary]`, or `None`.
        is_tied: The kernel is that of an embedding, `[vocabulary, width]`.
        soft_cap: Where logits are capped, a positive number (Gemma's 30); `None`: nowhere.
        scale: What logits are multiplied by before the cap (Cohere's `logit_scale`).
        dtype: In which the product is computed: `"float32"`, `"bfloat16"` or `"float16"`. `None`:
            that of the hidden states.

    Raises:
        ValueError: An argument is wrong.

    Example:

    ```python
    import keras
    import keras_kd as kd

    embedding = keras.layers.Embedding(1000, 16)
    embedding.build()
    head = kd.ops.LinearHead(embedding.embeddings, is_tied=True, soft_cap=30.0)
    assert (head.vocabulary, head.width) == (1000, 16)
    ```
    """

    kernel: Any
    bias: Any = None
    is_tied: bool = False
    soft_cap: float | None = None
    scale: float = 1.0
    dtype: str | None = None

    def __post_init__(self) -> None:
        shape = tuple(getattr(self.kernel, "shape", ()))
        if len(shape) != 2 or None in shape:
            expected = "[vocabulary, width]" if self.is_tied else "[width, vocabulary]"
            raise validation.invalid("kernel", f"a matrix {expected} of known size", shape)
        if self.bias is not None and tuple(self.bias.shape) != (self.vocabulary,):
            raise validation.invalid(
                "bias", f"shape {(self.vocabulary,)}, one for each word", tuple(self.bias.shape)
            )
        if self.soft_cap is not None:
            validation.positive("soft_cap", self.soft_cap)
        validation.positive("scale", self.scale)
        if self.dtype is not None:
            validation.one_of("dtype", self.dtype, DTYPES)

    @property
    def vocabulary(self) -> int:
        """How many words there are: the number of logits."""
        return self.kernel.shape[0 if self.is_tied else 1]

    @property
    def width(self) -> int:
        """The width of the hidden states."""
        return self.kernel.shape[1 if self.is_tied else 0]

    def logits(self, hidden: Any) -> tf.Tensor:
        """All logits of hidden states `[..., width]`: `[..., vocabulary]`, differentiable."""
        hidden = tf.convert_to_tensor(hidden)
        rows = tf.reshape(hidden, [-1, self.width])
        bias = None if self.bias is None else as_tensor(self.bias)
        logits = self.shape_of(hidden.dtype).logits(rows, as_tensor(self.kernel), bias)
        return tf.reshape(logits, tf.concat([tf.shape(hidden)[:-1], [self.vocabulary]], 0))

    def shape_of(self, hidden_dtype: tf.DType) -> "HeadShape":
        """What it is beside its weights, for hidden states of a dtype."""
        dtype = hidden_dtype.name if self.dtype is None else self.dtype
        cap = None if self.soft_cap is None else float(self.soft_cap)
        return HeadShape(self.vocabulary, self.width, self.is_tied, cap, float(self.scale), dtype)


def _rows_times(rows: tf.Tensor, kernel: tf.Tensor, is_transposed: bool) -> tf.Tensor:
    """`rows @ kernel`, or `rows @ kernel^T`.

    The latter as `(kernel @ rows^T)^T`: oneDNN repacks a kernel that is to be transposed, for each
    product again. Measured for 128 rows and a kernel of 32,000 x 1,024: a quarter of the time.
    """
    if is_transposed:
        return tf.transpose(tf.matmul(kernel, rows, transpose_b=True))
    return tf.matmul(rows, kernel)


@dataclasses.dataclass(frozen=True)
class HeadShape:
    """A head without its weights: hashable, so that what is traced for it is traced once.

    Attributes:
        vocabulary: Number of words.
        width: Width of the hidden states.
        is_tied: Whether the kernel is `[vocabulary, width]`.
        soft_cap: See `LinearHead`.
        scale: See `LinearHead`.
        dtype: In which the product is computed.
    """

    vocabulary: int
    width: int
    is_tied: bool
    soft_cap: float | None
    scale: float
    dtype: str

    def logits(self, hidden: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None) -> tf.Tensor:
        """`[rows, vocabulary]` of hidden states `[rows, width]`, in `dtype`."""
        logits = _rows_times(tf.cast(hidden, self.dtype), tf.cast(kernel, self.dtype), self.is_tied)
        if bias is not None:
            logits += tf.cast(bias, logits.dtype)
        if self.scale != 1.0:
            logits *= self.scale
        if self.soft_cap is not None:
            logits = self.soft_cap * tf.tanh(logits / self.soft_cap)
        return logits

    def before_cap(self, logits: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        """The gradient with respect to `hidden @ kernel + bias`, from that of the logits."""
        if self.soft_cap is not None:
            share = tf.cast(logits, gradient.dtype) / self.soft_cap
            gradient *= 1.0 - share * share
        return gradient if self.scale == 1.0 else gradient * self.scale

    @property
    def backward_dtype(self) -> str:
        """In which the products of the gradient are computed.

        Not float16: `T (q - p)` of 32,000 words lies below its normal range, and the factor of
        loss scaling comes only after these products.
        """
        return "float32" if self.dtype == "float16" else self.dtype

    def gradient_of_hidden(self, gradient: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """`[rows, width]`, from the gradient `[rows, vocabulary]` before the cap."""
        return _rows_times(gradient, tf.cast(kernel, self.backward_dtype), not self.is_tied)

    def zero_gradient(self, adds_in_place: bool) -> tf.Tensor:
        """What `add_gradient_of_kernel` begins with."""
        if not adds_in_place:
            return tf.zeros(self.kernel_shape)
        # Memory of its own: zeros are a constant, which the next call would find changed.
        return tf.raw_ops.Empty(shape=self.kernel_shape, dtype=tf.float32, init=True)

    def add_gradient_of_kernel(
        self, total: tf.Tensor, gradient: tf.Tensor, hidden: tf.Tensor, adds_in_place: bool
    ) -> tf.Tensor:
        """`total`, float32 of the kernel's shape, and the gradient of some positions.

        Args:
            total: Of `zero_gradient`, or of this.
            gradient: `[rows, vocabulary]`, before the cap.
            hidden: `[rows, width]`.
            adds_in_place: Whether `total` itself becomes the sum. The product is then made and
                added in blocks: of 1,024 x 128,000 words it is 524 MB, as large as the sum. (With
                `tensor_scatter_nd_add`, which copies, that takes three times as long.)
        """
        hidden = tf.cast(hidden, self.backward_dtype)
        first, second = (gradient, hidden) if self.is_tied else (hidden, gradient)
        if not adds_in_place:
            return total + tf.cast(tf.matmul(first, second, transpose_a=True), tf.float32)
        whole, row = self.kernel_shape
        size = max(1, _BLOCK_BYTES // (4 * row))
        for start in range(0, whole, size):
            end = min(start + size, whole)
            with tf.control_dependencies([total]):  # else all blocks are made before one is added
                block = tf.matmul(first[:, start:end], second, transpose_a=True)
            block = tf.cast(block, tf.float32)
            total = tf.raw_ops.InplaceAdd(x=total, i=tf.range(start, end), v=block)
        return total

    @property
    def kernel_shape(self) -> tuple[int, int]:
        """The shape of the kernel."""
        shape = self.vocabulary, self.width
        return shape if self.is_tied else shape[::-1]
