"""Writes the data of the configurations beside it, out of packages: no network is needed.

    python examples/configs/make_data.py
    keras-kd distill examples/configs/image.yaml

`run_data/digits` holds 1,797 digits as pictures, `run_data/tumors.csv` a table of 569 rows,
`run_data/docstrings.csv` the first sentences of the docstrings of four packages.

Needs `pip install 'keras-kd[examples,run]'`.
"""

import argparse
import csv
import pathlib
import sys

import keras
from sklearn.datasets import load_breast_cancer, load_digits

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))


def write_digits(folder):
    digits = load_digits()
    for name in map(str, digits.target_names):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        picture = (pixels[..., None] * 15.9).astype("float32")
        keras.utils.save_img(folder / str(digit) / f"{i:04}.png", picture, scale=False)


def write_tumors(path):
    found = load_breast_cancer()
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*found.feature_names, "kind"])
        for row, kind in zip(found.data, found.target, strict=True):
            writer.writerow([*row, found.target_names[kind]])


def write_docstrings(path, most=600):
    from text_to_device import PACKAGES, docstrings

    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "package"])
        for package in PACKAGES:
            writer.writerows([words, package] for words in docstrings(package)[:most])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("run_data"))
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    write_digits(folder / "digits")
    write_tumors(folder / "tumors.csv")
    write_docstrings(folder / "docstrings.csv")
    print(f"Wrote digits, tumors.csv and docstrings.csv to {folder}")


if __name__ == "__main__":
    main()
