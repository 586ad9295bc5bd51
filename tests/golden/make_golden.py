"""Writes `soft_targets.json`: losses and gradients that PyTorch computes in float64.

Run it where PyTorch is installed (`pip install torch==2.13.0`); the tests read the file only:

    python tests/golden/make_golden.py
"""

import json
import pathlib

import torch
from torch.nn import functional

FILE = pathlib.Path(__file__).with_name("soft_targets.json")
MIXING_WEIGHT = 0.25
# (classes, temperature, size of the student's distance from the teacher)
CASES = [(2, 1.0, 2.0), (7, 4.0, 2.0), (10, 0.5, 1.0), (10, 2.0, 0.002), (33, 4.0, 0.05)]
ROWS = 3


def soft_target_loss(student, teacher, temperature, divergence):
    log_p = functional.log_softmax(teacher / temperature, dim=-1)
    log_q = functional.log_softmax(student / temperature, dim=-1)
    log_m = torch.log(MIXING_WEIGHT * log_p.exp() + (1 - MIXING_WEIGHT) * log_q.exp())
    value = {
        "forward_kl": lambda: kl(log_p, log_q),
        "reverse_kl": lambda: kl(log_q, log_p),
        "jsd": lambda: MIXING_WEIGHT * kl(log_p, log_m) + (1 - MIXING_WEIGHT) * kl(log_q, log_m),
    }[divergence]()
    return temperature**2 * value


def kl(log_a, log_b):
    """`KL(a || b)`: PyTorch takes the second argument's distribution first."""
    return functional.kl_div(log_b, log_a, reduction="none", log_target=True).sum(-1)


def make_case(classes, temperature, distance):
    generator = torch.Generator().manual_seed(classes)
    teacher = 3 * torch.randn(ROWS, classes, generator=generator)
    student = teacher + distance * torch.randn(ROWS, classes, generator=generator)
    labels = torch.arange(ROWS) % classes
    case = {"temperature": temperature, "labels": labels.tolist()}
    case["student"], case["teacher"] = rounded(student, ".3f"), rounded(teacher, ".3f")
    # The tests give the ops float32: the truth is that of the float32 nearest to the file's text.
    student = torch.tensor(case["student"]).double().requires_grad_()
    teacher = torch.tensor(case["teacher"]).double()
    losses = {"hard": functional.cross_entropy(student, labels, reduction="none")}
    for divergence in ("forward_kl", "reverse_kl", "jsd"):
        losses[divergence] = soft_target_loss(student, teacher, temperature, divergence)
    for name, loss in losses.items():
        (gradient,) = torch.autograd.grad(loss.sum(), student, retain_graph=True)
        case[name] = {"loss": loss.tolist(), "gradient": rounded(gradient, ".12g")}
    return case


def rounded(values, digits):
    return [[float(format(x, digits)) for x in row] for row in values.tolist()]


def main():
    content = {
        "made_with": f"PyTorch {torch.__version__}",
        "mixing_weight": MIXING_WEIGHT,
        "cases": [make_case(*case) for case in CASES],
    }
    FILE.write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
