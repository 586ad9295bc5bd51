"""Engines of a search, and what a search costs.

Each engine gets the same number of trials of the same length, over the same space (temperature,
alpha, learning rate), with the same students and the same outputs of the teacher, and no trial ends
early: Optuna's TPE, plain random search, KerasTuner's Bayesian optimization. What each finds is
trained again with three other seeds and judged on test data. Then `kd.tune` as it is, with poor
trials that end early, is compared with the same number of plain distillations, the teacher running
in each: epochs, processor time and rows that ran through the teacher.

    python benchmarks/tuning.py
    python benchmarks/tuning.py --task texts --searches 3 --trials 20

`digits` are scikit-learn's, `texts` the docstrings of examples/text_to_device.py. Needs `pip
install 'keras-kd[tune,examples,measure]' keras-tuner`.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the CPU is what is measured
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))

import keras
import keras_tuner
import numpy as np
import text_to_device
from sklearn.datasets import load_digits

import keras_kd as kd

SPACE = {
    "temperature": {"low": 1.0, "high": 10.0, "log": True},
    "alpha": {"low": 0.0, "high": 1.0},
    "learning_rate": {"low": 3e-4, "high": 3e-2, "log": True},
}
TEST_SEEDS = (1, 2, 3)


def digits():
    """`(teacher, make_student, train, validation, test)`."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 16).astype("float32").reshape(-1, 8, 8, 1), y[order].astype("int32")
    conv = {"kernel_size": 3, "padding": "same", "activation": "relu"}

    def network(width):
        stack = [keras.layers.Conv2D(width, **conv), keras.layers.MaxPooling2D()]
        stack += [keras.layers.Conv2D(2 * width, **conv), keras.layers.Flatten()]
        return keras.Sequential([keras.Input((8, 8, 1)), *stack, keras.layers.Dense(10)])

    parts = [(x[start:end], y[start:end]) for start, end in ((0, 300), (300, 800), (800, None))]
    keras.utils.set_random_seed(1000)
    return trained(network(32), parts[0], 60), lambda: network(2), *parts


def texts():
    """As `digits`."""
    train, (ids, labels) = text_to_device.load_data(1500)
    half = len(ids) // 2
    keras.utils.set_random_seed(1000)
    teacher = trained(text_to_device.make_transformer(64, blocks=2), train, 8)
    others = (ids[:half], labels[:half]), (ids[half:], labels[half:])
    return teacher, lambda: text_to_device.make_transformer(16, blocks=1), train, *others


def trained(model, samples, epochs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss=loss)
    model.fit(*samples, epochs=epochs, verbose=0)
    return model


class Trainer:
    """Distills with given settings, from the stored outputs of the teacher."""

    def __init__(self, task, epochs, path):
        self.teacher, self.make_student, self.train, self.validation, self.test = task
        self.epochs = epochs
        keras.utils.set_random_seed(0)
        dataset = kd.tuning.data.TuningData(self.train, self.validation, 0)
        self.stored = dataset.store(self.teacher, pathlib.Path(path), [], 0)

    def distilled(self, settings, seed=0):
        keras.utils.set_random_seed(seed)
        student = self.make_student()
        losses = kd.losses.SoftTargets(settings["temperature"])
        alpha = settings["alpha"]
        made = kd.Distiller(self.stored.teacher(), student, losses, alpha=alpha, beta=1 - alpha)
        optimizer = keras.optimizers.Adam(settings["learning_rate"])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        made.compile(optimizer, loss=loss, metrics=["accuracy"])
        made.fit(self.stored.batches(32, seed), epochs=self.epochs, shuffle=False, verbose=0)
        return student

    def validated(self, settings):
        return accuracy(self.distilled(settings), self.validation)

    def tested(self, settings):
        found = [accuracy(self.distilled(settings, seed), self.test) for seed in TEST_SEEDS]
        return float(np.mean(found))


def accuracy(model, samples):
    logits = model.predict(samples[0], batch_size=500, verbose=0)
    return 100 * float(np.mean(np.argmax(logits, axis=-1) == samples[1]))


def optuna_search(sampler):
    def search(trainer, trials, seed, path):
        found = kd.tune(
            trainer.teacher,
            trainer.make_student,
            trainer.train,
            trainer.validation,
            space=SPACE,
            trials=trials,
            epochs=trainer.epochs,
            labels_only=False,
            prune=False,
            sampler=sampler,
            seed=seed,
            directory=path / f"{sampler}-{seed}",
            verbose=0,
        )
        return found.settings, 100 * found.value

    return search


def keras_tuner_search(trainer, trials, seed, path):
    class Tuner(keras_tuner.BayesianOptimization):
        def run_trial(self, trial, *args, **kwargs):
            chosen = {}
            for name, given in SPACE.items():
                sampling = "log" if given.get("log") else "linear"
                chosen[name] = trial.hyperparameters.Float(
                    name, given["low"], given["high"], sampling=sampling
                )
            return {"accuracy": trainer.validated(chosen)}

    tuner = Tuner(
        objective=keras_tuner.Objective("accuracy", "max"),
        max_trials=trials,
        seed=seed,
        directory=str(path),
        project_name=f"keras-tuner-{seed}",
    )
    tuner.search(verbose=0)
    best = tuner.oracle.get_best_trials(1)[0]
    return dict(best.hyperparameters.values), best.score


ENGINES = {
    "Optuna, TPE": optuna_search("tpe"),
    "random": optuna_search("random"),
    "KerasTuner, Bayesian": keras_tuner_search,
}


def compare_engines(trainer, args, path):
    print(f"\n{'':24}{'validation, %':>16}{'test, %':>16}{'over random':>16}")
    tested = {}
    for name, search in ENGINES.items():
        best, tests = [], []
        for seed in range(args.searches):
            settings, value = search(trainer, args.trials, seed, path)
            best.append(value)
            tests.append(trainer.tested(settings))
        tested[name] = tests
        over = np.subtract(tests, tested["random"]) if "random" in tested else None
        print(f"{name:24}{spread(best):>16}{spread(tests):>16}", end="")
        print(f"{'' if over is None else spread(over):>16}", flush=True)
    over = np.subtract(tested["Optuna, TPE"], tested["random"])
    print(f"Optuna's TPE over random: {spread(over)} points")
    default = {"temperature": 4.0, "alpha": 0.5, "learning_rate": 1e-3}
    print(f"default settings: {trainer.tested(default):.2f} % on test data")


def compare_cost(trainer, args, path):
    plain = time.process_time()
    for number in range(args.plain):
        keras.utils.set_random_seed(number)
        student = trainer.make_student()
        made = kd.Distiller(trainer.teacher, student)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        made.compile("adam", loss=loss, metrics=["accuracy"])
        data = {"validation_data": trainer.validation, "epochs": trainer.epochs, "verbose": 0}
        made.fit(*trainer.train, **data)
    plain = (time.process_time() - plain) / args.plain * args.trials
    start = time.process_time()
    found = kd.tune(
        trainer.teacher,
        trainer.make_student,
        trainer.train,
        trainer.validation,
        trials=args.trials,
        epochs=trainer.epochs,
        labels_only=False,
        directory=path / "cost",
        verbose=0,
    )
    cost = found.cost
    rows = cost.teacher_rows, trainer.epochs * args.trials * len(trainer.train[0])
    print(f"\n{args.trials} trials against {args.trials} plain distillations:")
    print(f"  processor time {(time.process_time() - start) / plain:.2f}")
    print(f"  epochs         {cost.epochs / cost.whole_epochs:.2f}")
    print(f"  teacher's rows {rows[0]:,} against {rows[1]:,}")


def compare_whole(trainer, args, path):
    """What `kd.tune` reports, for each search seed."""
    for seed in range(args.searches):
        found = kd.tune(
            trainer.teacher,
            trainer.make_student,
            trainer.train,
            trainer.validation,
            test=trainer.test,
            trials=args.trials,
            epochs=trainer.epochs,
            seed=10 * seed,
            directory=path / f"whole-{seed}",
            verbose=0,
        )
        print(f"\nsearch {seed}:\n{found}", flush=True)


def spread(values):
    return (
        f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else str(values)
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=["digits", "texts"], default="digits")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--searches", type=int, default=3, help="searches of each engine")
    parser.add_argument("--plain", type=int, default=5, help="plain distillations that are timed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        trainer = Trainer({"digits": digits, "texts": texts}[args.task](), args.epochs, path / "t")
        print(f"{args.task}: teacher {accuracy(trainer.teacher, trainer.test):.2f} % on test data")
        compare_cost(trainer, args, path)
        compare_whole(trainer, args, path)
        compare_engines(trainer, args, path)


if __name__ == "__main__":
    main()
