"""`Cached`: teacher outputs from disk."""

import keras

from keras_kd.ops.sparse_logits import SparseLogits
from keras_kd.teachers import protocol
from keras_kd.teachers.cache import arguments, contents, fingerprints, schema
from keras_kd.teachers.cache import format as cache_format


@keras.saving.register_keras_serializable(package="keras_kd")
class Cached(protocol.Teacher):
    """What a teacher said, as `keras_kd.cache_teacher` wrote it; no teacher runs.

    The batches must carry it: pass `keras_kd.load_cache(path, dataset)` to `fit`. Layers that were
    kept (`taps`) are named in losses as they would be of the teacher. With `top_k` only
    `SoftTargets` applies, because other losses need all logits.

    Args:
        path: The folder that `cache_teacher` wrote.
        teacher: A teacher that must be the one that was cached, or its fingerprint. Default: any.
        name: As of `Teacher`.

    Raises:
        CacheError: The cache is unfinished, damaged, or of another teacher.
        ValueError: In `fit`: the batches do not carry this cache's outputs.

    Example:

    ```python
    def distiller(path, student):  # path: what keras_kd.cache_teacher returned
        import keras_kd as kd

        return kd.Distiller(kd.teachers.Cached(path), student, kd.losses.SoftTargets(4.0))
    ```
    """

    needs_carried = True

    def __init__(self, path, teacher=None, name="cached_teacher", **kwargs):
        super().__init__(None, name, **kwargs)
        self.folder = str(arguments.folder(path))
        self.manifest = _Held(cache_format.checked(path, thorough=False))
        fingerprints.check_teacher(self.manifest.value, teacher)
        # What was asked for is asked again when it is loaded: the folder may hold another by then.
        self.asked_for = None if teacher is None else self.manifest.value["teacher"]
        self.is_sparse = self.manifest.value["top_k"] is not None

    def input_specs(self):
        return {}  # the batches carry its outputs

    def resolve(self, layer):
        kept = self.manifest.value["taps"]
        name = str(layer)
        found = [tap for tap in kept if tap == name] or [t for t in kept if t.endswith("/" + name)]
        if len(found) != 1:
            raise ValueError(
                f"The cache holds no layer {name!r} of the teacher. It holds {kept}. Write it "
                f"again with cache_teacher(..., taps=[{name!r}])."
            )
        return found[0]

    def with_taps(self, layers):
        def answer(batch):
            said = batch.carried
            if said is None and batch.is_symbolic:
                said = self._placeholder(batch.inputs)
            if said is None:
                raise ValueError(
                    "The batch carries no teacher outputs, and a cached teacher has no others. "
                    f"Pass keras_kd.load_cache({self.folder!r}, dataset) in place of the dataset."
                )
            self._check_origin(said)
            outputs = SparseLogits(**said.outputs) if self.is_sparse else said.outputs
            return outputs, {layer: said.taps[layer] for layer in layers}

        return answer

    def _check_origin(self, said):
        own = cache_format.identity(self.manifest.value)
        if said.origin != own:
            raise ValueError(
                f"The batch carries the outputs of cache {said.origin}; the teacher is cache {own} "
                f"at {self.folder!r}. Load the dataset with the cache that teaches."
            )

    def _placeholder(self, inputs):
        manifest = self.manifest.value
        specs = schema.from_json(manifest["components"])
        zeros = protocol.placeholder(specs, inputs)
        outputs, taps = contents.restored(
            zeros, manifest["structure"], manifest["taps"], manifest["top_k"]
        )
        return protocol.Carried(outputs, taps, cache_format.identity(manifest))

    def last_activation(self, output=None):
        manifest = self.manifest.value
        if manifest["structure"] is None or output is None:
            return manifest["last_activation"]
        return manifest["last_activations"].get(str(output))

    @property
    def output_names(self):
        """Those of the teacher that was asked, if they were given."""
        return self.manifest.value["output_names"]

    def get_config(self):
        config = super().get_config()
        del config["preprocess"]
        return {**config, "path": self.folder, "teacher": self.asked_for}


class _Held:
    """Holds a dict where Keras does not wrap it."""

    def __init__(self, value):
        self.value = value
