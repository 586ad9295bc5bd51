"""Data and configurations of a few seconds, made on the spot."""

import json

import numpy as np
import yaml

CLASSES = ("ant", "bee", "cat")


def write(folder, values):
    """A configuration as a file."""
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def base(data, **sections):
    """A configuration that trains for two epochs."""
    values = {
        "version": 1,
        "seed": 7,
        "data": data,
        "teacher": {"train": {"width": 8, "depth": 2, "epochs": 2}},
        "student": {"shrink": {"width": 0.5, "depth": 0.5}},
        "training": {"epochs": 2, "learning_rate": 0.01},
        "report": {"latency": False},
    }
    return {**values, **sections}


def table(folder, rows=120, **sections):
    """A table with numbers, a category and missing values, and its configuration."""
    write_table(folder / "table.csv", rows)
    data = {"table": {"file": str(folder / "table.csv"), "label": "kind", "batch_size": 16}}
    return write(folder, base(data, **sections))


def write_table(path, rows):
    generator = np.random.default_rng(0)
    labels = np.arange(rows) % len(CLASSES)
    numbers = labels[:, None] + generator.normal(size=(rows, 2))
    lines = ["size,weight,color,kind"]
    for i, (label, (size, weight)) in enumerate(zip(labels, numbers, strict=True)):
        missing = "" if i % 40 == 5 else f"{weight:.4f}"
        color = ("red", "blue")[int(generator.integers(2))]
        lines.append(f"{size:.4f},{missing},{color},{CLASSES[label]}")
    path.write_text("\n".join(lines) + "\n")


def images(folder, each=10, side=12):
    """A folder of pictures by class: bright at another place for each class."""
    import keras

    generator = np.random.default_rng(1)
    for number, name in enumerate(CLASSES):
        (folder / "images" / name).mkdir(parents=True)
        for i in range(each):
            pixels = generator.integers(0, 60, (side, side, 3)).astype("float32")
            pixels[4 * number : 4 * number + 4] += 180
            path = folder / "images" / name / f"{i}.png"
            keras.utils.save_img(path, pixels, scale=False)
    return folder / "images"


def texts(folder, rows=90):
    """A file of texts; the class is a word among others."""
    generator = np.random.default_rng(2)
    words = [f"word{i}" for i in range(20)]
    path = folder / "texts.csv"
    lines = ["said,who"]
    for i in range(rows):
        found = [words[int(j)] for j in generator.integers(0, 20, 5)]
        found[int(generator.integers(5))] = f"sound{i % 3}"
        lines.append(f"{' '.join(found)},{CLASSES[i % 3]}")
    path.write_text("\n".join(lines) + "\n")
    return path


def read_json(path):
    return json.loads(path.read_text())
