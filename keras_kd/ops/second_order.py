"""A clear error where a second derivative is asked for."""

import tensorflow as tf


def first_order_only(function, of):
    """Wraps a gradient so that differentiating it again raises instead of giving nothing.

    Args:
        function: Computes the gradient.
        of: The tensor it is the gradient of. A tape asks only for derivatives of what depends on
            the tensors it watches, so the result is tied to this one, except in the gradient of a
            tf.cond: its graph may not take tensors from the graph of the branch's own branches.

    Returns:
        `function`, with the same arguments.
    """
    tied = [of] if tf.executing_eagerly() or _is_of_this_graph(of) else []

    @tf.custom_gradient
    def once(*args):
        def twice(*upstream):
            del upstream
            raise NotImplementedError(
                "Second-order gradients of the distillation loss are not implemented. Take them "
                "of a loss written in plain TensorFlow, or stop the gradient before it."
            )

        return function(*args[: len(args) - len(tied)]), twice

    return lambda *args: once(*args, *tied)


def _is_of_this_graph(tensor):
    return tensor.graph is tf.compat.v1.get_default_graph()
