"""`Cached`: the teacher whose outputs come from a cache."""

from typing import Any

import keras

from keras_kd import models
from keras_kd.ops.sparse_logits import SparseLogits
from keras_kd.teachers import protocol
from keras_kd.teachers.cache import arguments, contents, fingerprints, schema
from keras_kd.teachers.cache import format as cache_format


@keras.saving.register_keras_serializable(package="keras_kd")
class Cached(protocol.Teacher):
    """A teacher's outputs, as `keras_kd.cache_teacher` wrote them; no teacher runs.

    They must be attached to the batches: pass `keras_kd.load_cache(path, dataset)` to `fit`. Layers
    that were stored (`taps`) are named in losses as they would be for the teacher. With `top_k`
    only `SoftTargets` applies, because other losses need all logits.

    Args:
        path: The folder that `cache_teacher` (or a job) wrote, also an address of a store.
        teacher: A teacher that must be the one that was cached, or its fingerprint. Default: any.
        name: See `Teacher`.

    Raises:
        CacheError: The cache is unfinished, damaged, or of another teacher.
        ValueError: In `fit`: the batches do not have this cache's outputs attached.

    Example:

    ```python
    def distiller(path, student):  # path: what keras_kd.cache_teacher returned
        import keras_kd as kd

        return kd.Distiller(kd.teachers.Cached(path), student, kd.losses.SoftTargets(4.0))
    ```
    """

    needs_attached = True

    def __init__(
        self,
        path: Any,
        teacher: Any = None,
        name: str = "cached_teacher",
        **kwargs: Any,
    ) -> None:
        super().__init__(None, name, **kwargs)
        place = arguments.folder(path)
        self.folder = str(place)
        self.manifest = models.Untracked(cache_format.checked(place, thorough=False))
        fingerprints.check_teacher(self.manifest.value, teacher)
        # Checked again when the distiller is loaded: the folder may hold another cache by then.
        self.expected_teacher = None if teacher is None else self.manifest.value["teacher"]
        self.is_sparse = self.manifest.value["top_k"] is not None

    def input_specs(self) -> dict[str, Any]:
        return {}  # its outputs are attached

    def resolve(self, layer: Any) -> str:
        kept = self.manifest.value["taps"]
        name = str(layer)
        found = [tap for tap in kept if tap == name] or [t for t in kept if t.endswith("/" + name)]
        if len(found) != 1:
            raise ValueError(
                f"The cache holds no layer {name!r} of the teacher. It holds {kept}. Write it "
                f"again with cache_teacher(..., taps=[{name!r}])."
            )
        return found[0]

    def with_taps(self, layers: list) -> protocol.Forward:
        def forward(batch: protocol.TeacherInputs) -> tuple[Any, dict]:
            attached = batch.attached
            if attached is None and batch.is_symbolic:
                attached = self._zeros(batch.inputs)
            if attached is None:
                raise ValueError(
                    "The batch carries no teacher outputs, and a cached teacher has no others. "
                    f"Pass keras_kd.load_cache({self.folder!r}, dataset) in place of the dataset."
                )
            self._check_origin(attached)
            outputs = SparseLogits(**attached.outputs) if self.is_sparse else attached.outputs
            return outputs, {layer: attached.taps[layer] for layer in layers}

        return forward

    def _check_origin(self, attached: protocol.AttachedOutputs) -> None:
        own = cache_format.identity(self.manifest.value)
        if attached.origin != own:
            raise ValueError(
                f"The batch carries the outputs of cache {attached.origin}; the teacher is cache "
                f"{own} at {self.folder!r}. Load the dataset with the cache that teaches."
            )

    def _zeros(self, inputs: Any) -> protocol.AttachedOutputs:
        """Stands for attached outputs where only shapes are traced."""
        manifest = self.manifest.value
        specs = schema.from_json(manifest["components"])
        plain, specs = contents.without_bytes(manifest, specs)
        outputs, taps = contents.restored(protocol.zeros_like_spec(specs, inputs), plain)
        return protocol.AttachedOutputs(outputs, taps, cache_format.identity(manifest))

    def last_activation(self, output: str | int | None = None) -> str | None:
        manifest = self.manifest.value
        if manifest["structure"] is None or output is None:
            return manifest["last_activation"]
        return manifest["last_activations"].get(str(output))

    @property
    def output_names(self) -> list[str] | None:
        """Those of the teacher that was cached, if its author gave them."""
        return self.manifest.value["output_names"]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["preprocess"]
        return {**config, "path": self.folder, "teacher": self.expected_teacher}
