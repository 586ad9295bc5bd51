"""`model_card.md`: what the student is, what the report says of it, and what is not known."""

import json
from typing import Any

import yaml

from keras_kd import version
from keras_kd.runs.context import Run

_TASKS = {"images": "image-classification", "texts": "text-classification"}
_TASKS |= {"table": "tabular-classification"}
_INPUTS = {
    "images": "images",
    "table": "rows of a table",
    "texts": "texts",
    "function": "what the function of the data gives",
}


def write(run: Run) -> list[str]:
    """Writes the card, and the preprocessing that it names; returns the names of the files."""
    found = json.loads(run.folder.file("report.json").read_text(encoding="utf-8"))
    run.folder.write_json("preprocessing.json", run.data.preprocessing)
    parts = [_front(run), f"# {run.config.values.report.title or run.name}", _about(run)]
    parts += ["## Measured", found["verdict"], _table(run, found["rows"]), _advice(found)]
    parts += ["## Files", _files(run), "## Training", _training(run), "## Limits", _limits(run)]
    run.folder.write_text("model_card.md", "\n\n".join(filter(None, parts)) + "\n")
    return ["model_card.md", "preprocessing.json"]


def _front(run):
    front: dict[str, Any] = {"library_name": "keras"}
    if run.data.kind in _TASKS:
        front["pipeline_tag"] = _TASKS[run.data.kind]
    front["tags"] = ["keras_kd", "knowledge-distillation"]
    origin = run.plan.origin
    if origin is not None:
        front["base_model"] = origin
    front["metrics"] = [run.config.values.report.metric]
    text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    return f"---\n{text}# license: not stated; whoever publishes the model adds it\n---"


def _about(run):
    count, names = len(run.data.classes), ", ".join(run.data.classes[:20])
    more = ", ..." if count > 20 else ""
    origin = run.plan.origin
    teacher = f"`{origin}`" if origin is not None else "a teacher that was made for this data"
    return (
        f"A classifier of {_INPUTS[run.data.kind]} with {count} classes ({names}{more}), distilled "
        f"from {teacher} with keras_kd {version.__version__}."
    )


def _table(run, rows):
    lines = [f"| model | {run.config.values.report.metric} | parameters | bytes |"]
    lines.append("|---|---|---|---|")
    for row in rows:
        counts = [_count(row[key]) for key in ("parameters", "bytes")]
        lines.append(f"| {row['name']} | {row['mean']:.4f} | {' | '.join(counts)} |")
    counts = run.data.counts
    lines.append("")
    lines.append(f"On {counts['test']} test samples that no model was trained on, one seed.")
    return "\n".join(lines)


def _count(value):
    return "not measured" if value is None else f"{value:,.0f}"


def _advice(found):
    return "\n".join(f"- {each}" for each in found["advice"])


def _files(run):
    lines = ["- `student.keras`: the student, for Keras"]
    for each in run.config.values.exports:
        kind = each.quantization or "float32"
        lines.append(f"- `{each.file}`: the student, {each.format}, {kind}")
    lines.append("- `preprocessing.json`: what happens to an input before the model")
    return "\n".join(lines)


def _training(run):
    values, counts = run.config.values, run.data.counts
    losses = ", ".join(each.name for each in values.losses or []) or "SoftTargets"
    epochs = len(run.results.rows("student"))
    return (
        f"{counts['train']} samples, {counts['validation']} for validation; {epochs} epochs, "
        f"{values.training.optimizer}, learning rate {values.training.learning_rate:g}; losses: "
        f"{losses}, alpha {values.alpha:g}, beta {values.beta:g}; seed {values.seed}. "
        "`config.yaml` has all settings."
    )


def _limits(run):
    lines = [
        "- The figures hold for data like the test data. Other sources were not measured.",
        "- One seed was trained: how much is luck of the training is not known.",
        "- An input of none of the classes gets one of them all the same.",
    ]
    if run.plan.origin is not None:
        lines.append(
            "- What the teacher was trained on, and its license, hold for the student too."
        )
    lines += [f"- {each[:1].upper()}{each[1:]}." for each in run.data.notes]
    return "\n".join(lines)
