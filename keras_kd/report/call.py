"""`report`: the one call that compares teacher, students and exported files."""


def report(
    teacher=None,
    student=None,
    baseline=None,
    exports=None,
    data=None,
    *,
    make_student=None,
    train=None,
    distiller=None,
    seeds=(0, 1, 2),
    slices=None,
    metric=None,
    latency=True,
    directory=None,
    title="Distillation report",
    verbose=1,
    **options,
):
    """Did distillation help, and does the file on the device keep the gain?

    Needs `pip install 'keras-kd[measure]'`.

    Sets side by side the teacher, the student trained with labels only (`baseline`), the distilled
    student, and each exported file, over several seeds. There are two ways to call it:

    - with trained models: `student=` and `baseline=`, a model or a list of them by seed; the two of
      a seed should come from the same initial weights and the same number of epochs;
    - with functions: `make_student=` and `train=`. A student is made to see that it fits the data;
      then for each seed it is made twice, with the same initial weights, and trained with labels
      only and by the distiller. Where the two were not trained equally long the verdict says so.

    The gain of a seed is `metric(distilled) - metric(labels only)`, the other way round for errors.
    Its mean over seeds is tested with the paired t-test, `t = mean / (deviation / sqrt(seeds))`;
    that of a single seed over the rows of `data`, which say nothing about the luck of the initial
    weights: the accuracy with McNemar's exact test (of rows with weights, and of errors, with the
    t-test); other figures of a single seed are not tested. A gain is called one where p < 0.05 and
    where the rows of `data` tell it apart from 0 too: `|mean| > 1.96 * deviation of the rows /
    sqrt(rows)`. An exported file keeps `(file - labels only) / (distilled - labels only)` of a
    gain.

    Args:
        teacher: A `keras.Model`, or another teacher of `keras_kd.teachers`; `None`: leave it out.
        student: The distilled `keras.Model`, or a list with one for each seed.
        baseline: The same student trained with labels only, or a list in the same order.
        exports: `{name: file}`, `.tflite` or `.onnx`; with several seeds a list of files, one for
            each student. Or `{name: function}` of a student and a path, which writes the file there
            (or elsewhere, and returns the path): `{"int8": lambda student, path:
            kd.export.to_tflite(student, path, quantization="int8", representative_data=x)}`. The
            path ends in `.onnx` where the name contains "onnx", else in `.tflite`.
        data: The test data: a batched `tf.data.Dataset` of `(x, y)` that gives the same rows in the
            same order each time, or a tuple of arrays `(x, y)`.
        make_student: A function without arguments: a new, untrained student.
        train: A function of a model, which it compiles and fits: the student, and then its
            distiller.
        distiller: A function of teacher and student, which returns what trains the student.
            Default: `keras_kd.Distiller`.
        seeds: The random seeds of the trainings, or their number.
        slices: Parts of the test data to be looked at one by one: a function from a batch's inputs
            and labels (NumPy arrays) to one value for each row, or an array `[rows]`; or a dict of
            such, by name.
        metric: What is compared, a key of `Measurement.quality`, such as `"f1_macro"`. Default: by
            task, accuracy for classes, the root mean square error for numbers.
        latency: Whether latencies are measured, of the first seed's models.
        directory: A folder in which the students that were trained here (`distilled-0.keras`,
            `labels-only-0.keras`) and exported files stay, in place of those of an earlier run.
            Default: files are removed after they were measured.
        title: Heading of the page.
        verbose: 0: silent; 1 or `"auto"`: a line for each training, file and measurement, with
            its number and the time so far, and progress bars of the passes over `data`; 2: the
            lines alone. What `train` and the functions of `exports` print is their own.
        **options: Further arguments of `keras_kd.measure`, for every model: `task`, `from_logits`,
            `class_names`, `batch_size`, `threads`, `runs`, `output`, ...

    Returns:
        A `keras_kd.Report`: `verdict` and `advice` in words, `finding` (`"gain"`,
        `"loss"`, `"no gain"`, `"unclear"`, `"nothing to compare"`), `rows`, `difference`,
        `students`, `baselines`; `str` makes a table, `to_markdown()`, `to_dict()`,
        `save_json(path)`, `save_markdown(path)`, `save_html(path)`.

    Raises:
        ImportError: A package is missing; it names the extra.
        TypeError: `keras_kd.measure` has no argument of a name in `options`.
        ValueError: An argument is wrong; a function of the user's did not do what it should; the
            data give other rows when they are read again.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    x = np.random.normal(size=(64, 8)).astype("float32")
    y = (x[:, 0] > 0).astype("int32")
    network = lambda width: keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(width, "relu"), keras.layers.Dense(2)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def train(model):
        model.compile("adam", loss=loss)
        model.fit(x, y, epochs=1, verbose=0)

    teacher = network(32)
    train(teacher)
    report = kd.report(
        teacher,
        make_student=lambda: network(4),
        train=train,
        distiller=lambda teacher, student: kd.Distiller(teacher, student, alpha=0.1, beta=0.9),
        seeds=2,
        data=(x, y),
        latency=False,
        verbose=0,
    )
    print(report)
    ```

    Reference: Dietterich, "Approximate Statistical Tests for Comparing Supervised Classification
    Learning Algorithms", Neural Computation 10(7), 1998 (McNemar's test and the paired t-test)
    """
    # Imported here: it takes time, and those who only train need it not.
    from keras_kd.report import running

    request = running.Request(
        teacher=teacher,
        student=student,
        baseline=baseline,
        exports=exports,
        data=data,
        make_student=make_student,
        train=train,
        distiller=distiller,
        seeds=seeds,
        slices=slices,
        metric=metric,
        latency=latency,
        directory=directory,
        title=title,
        verbose=verbose,
        options=options,
    )
    return running.run(request)
