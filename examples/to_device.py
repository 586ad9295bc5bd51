"""From a teacher to an int8 file for a device, with a report that tells whether it was worth it.

For each seed a small convolutional student is trained on labels only and by the teacher, from the
same weights and for the same number of epochs; the distilled one is written as `.tflite` files.
`kd.report` measures all of them on the test set: accuracy, size, latency, what the files keep of
the gain. Prints a table and a verdict; `--output` gets the page, the students and the files.

    python examples/to_device.py
    python examples/to_device.py --exports int8 int4 --seeds 5
    python examples/to_device.py --student mobilenet --learning-rate 0.003   # a quarter of an hour
    python examples/to_device.py --student minimalistic --learning-rate 0.01

Needs `pip install 'keras-kd[examples,export,measure]'`.
"""

import functools
import importlib.util
import os

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from keras import layers
from quickstart import CHOICES, checked, load_data, make_teacher, train

import keras_kd as kd


def to_device(
    dataset="mnist5k",
    train_samples=None,
    student="cnn",
    width=24,
    seeds=3,
    epochs=None,
    learning_rate=0.01,
    temperature=4.0,
    exports=("float32", "int8"),
    evaluate_on="test",
    output="to_device_output",
):
    """Distills a student for each seed, writes it as files, and reports what they keep.

    Args:
        dataset: One of `quickstart.DATASETS`.
        train_samples: Labeled samples; default: by data set.
        student: One of `STUDENTS`.
        width: Filters of the student's first layer, where it has a width.
        seeds: How many students are trained in each way.
        epochs: Of each model; default: by data set.
        learning_rate: Of the students, at first.
        temperature: Of the soft targets.
        exports: Quantizations of the files, of `EXPORTS`.
        evaluate_on: `"test"` or `"validation"`.
        output: A folder for the page, the students and the files.

    Returns:
        The `keras_kd.Report`.
    """
    args = checked_for_files(**locals())
    samples, judged_by = load_data(args)
    shape = samples[0].shape[1:]
    keras.utils.set_random_seed(1000)
    teacher = make_teacher(shape)
    train(teacher, samples, 1000, args.epochs, learning_rate=0.001)
    report = kd.report(
        teacher,
        make_student=functools.partial(STUDENTS[args.student], shape, args.width),
        train=lambda model: train_student(model, samples, args.epochs, args.learning_rate),
        distiller=functools.partial(distiller, temperature=args.temperature),
        seeds=args.seeds,
        exports={name: writer(EXPORTS[name], samples) for name in args.exports},
        data=judged_by,
        directory=args.output,
        title=f"To the device: {args.dataset}",
        verbose=False,
    )
    print(report)
    report.save_json(args.output / "report.json")
    report.save_html(args.output / "report.html")
    print(f"Wrote report.html, the students and the files to {args.output}")
    return report


EXPORTS = {"float32": None, "float16": "float16", "dynamic": "dynamic", "int8": "int8"}
EXPORTS |= {"int4": "int4"}


def checked_for_files(choices=None, /, **given):
    """`quickstart.checked` of an example that writes files; what that needs is installed."""
    needed = ("ai_edge_litert", "ai_edge_quantizer", "scipy", "sklearn")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"{', '.join(missing)} missing: pip install 'keras-kd[export,measure]'")
    return checked(choices or OPTIONS, **given)


def make_cnn(shape, width):
    """Strided convolutions with BatchNormalization, which a file folds into them."""
    stack = [layers.Input(shape)]
    for filters in (width, 2 * width):
        stack += [layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)]
        stack += [layers.BatchNormalization(momentum=0.9), layers.ReLU()]
    return keras.Sequential([*stack, layers.Flatten(), layers.Dense(10)])


def make_mobilenet(shape, width, minimalistic=False):
    """MobileNetV3Small of Keras, which takes images of 32 pixels and more; `width` is its own.

    `minimalistic`: without squeeze-and-excite and hard-swish, as its authors made it for integers.
    """
    del width
    images = layers.Input(shape)
    scaled = layers.UpSampling2D(max(1, _SIDE // shape[0]))(images)
    missing = max(0, _SIDE - scaled.shape[1])
    padded = layers.ZeroPadding2D([(missing // 2, missing - missing // 2)] * 2)(scaled)
    mobilenet = keras.applications.MobileNetV3Small(
        input_shape=padded.shape[1:],
        input_tensor=padded,
        minimalistic=minimalistic,
        weights=None,
        classes=10,
        classifier_activation=None,
        include_preprocessing=False,  # which maps 0 to 255 to what these images have
    )
    for layer in mobilenet.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.9  # 0.999 is of 100 times as many steps as there are here
    return keras.Model(images, mobilenet.output)


def make_separable(shape, width):
    """Depthwise and pointwise convolutions: few weights, and rounding changes each."""
    conv = functools.partial(layers.Conv2D, padding="same", use_bias=False)
    norm = functools.partial(layers.BatchNormalization, momentum=0.9)
    stack = [layers.Input(shape), conv(width, 3, strides=2), norm(), layers.ReLU()]
    for filters in (2 * width, 4 * width):
        depthwise = layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False)
        stack += [depthwise, norm(), layers.ReLU(), conv(filters, 1), norm(), layers.ReLU()]
    return keras.Sequential([*stack, layers.GlobalAveragePooling2D(), layers.Dense(10)])


_SIDE = 32
STUDENTS = {"cnn": make_cnn, "separable": make_separable, "mobilenet": make_mobilenet}
STUDENTS["minimalistic"] = functools.partial(make_mobilenet, minimalistic=True)
OPTIONS = {**CHOICES, "student": list(STUDENTS), "exports": list(EXPORTS)}


def train_student(model, samples, epochs, learning_rate):
    """Trains with a learning rate that decays to 0, which rounding asks for."""
    steps = epochs * -(-len(samples[0]) // 50)
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    train(model, samples, 0, epochs, rate)


def distiller(teacher, student, temperature):
    losses = kd.losses.SoftTargets(temperature)
    return kd.Distiller(teacher, student, losses, alpha=0.1, beta=0.9)


def writer(quantization, samples):
    """A function that writes a student as a file of that quantization."""

    def write(student, path):
        images = samples[0][:300]
        options = {"representative_data": images, "min_agreement": 0.0, "verbose": 0}
        kd.export.to_tflite(student, path, quantization, **options)  # the report tells the loss

    return write


def main():
    from command_line import run

    run(to_device, checked_for_files, OPTIONS)


if __name__ == "__main__":
    main()
