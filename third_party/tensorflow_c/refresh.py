"""Copies the C headers that keras_kd needs, and all they include, from an installed TensorFlow.

Usage: python third_party/tensorflow_c/refresh.py   (in an environment that has TensorFlow)
"""

import importlib.metadata
import importlib.util
import re
import shutil
from pathlib import Path

HERE = Path(__file__).parent
ROOTS = (
    "tensorflow/c/kernels.h",
    "tensorflow/c/ops.h",
    "tensorflow/c/tf_datatype.h",
    "tensorflow/c/tf_status.h",
    "tensorflow/c/tf_tensor.h",
    "xla/ffi/api/api.h",
    "xla/ffi/api/c_api.h",
    "xla/ffi/api/ffi.h",
)
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def closure(include_dir, roots):
    """Returns the headers that `roots` reach. Apple's are named by tstring but not in the wheel."""
    pending, found = list(roots), set()
    while pending:
        header = pending.pop()
        if header not in found and (include_dir / header).exists():
            found.add(header)
            pending += INCLUDE.findall((include_dir / header).read_text())
    return sorted(found)


def tensorflow_version():
    """Returns the installed version, whichever of its distributions is installed."""
    distributions = importlib.metadata.packages_distributions()["tensorflow"]
    return importlib.metadata.version(distributions[0])


def main():
    """Replaces the headers, the licence and `VERSION` beside this script."""
    # find_spec of a top-level package does not import it: TensorFlow takes seconds to import.
    package = Path(importlib.util.find_spec("tensorflow").origin).parent
    include_dir = package / "include"
    for old in ("tensorflow", "tsl", "xla"):
        shutil.rmtree(HERE / old, ignore_errors=True)
    headers = closure(include_dir, ROOTS)
    for header in headers:
        target = HERE / header
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(include_dir / header, target)
    shutil.copyfile(include_dir / "LICENSE", HERE / "LICENSE")
    (HERE / "VERSION").write_text(tensorflow_version() + "\n")
    print(f"Copied {len(headers)} headers of TensorFlow {tensorflow_version()}")


if __name__ == "__main__":
    main()
