"""What pulls on a network that is fine-tuned: the gradient of each class, on training patches.

    python scripts/gradients.py PROJECT JOB [--checkpoint checkpoint_final.pth] [--batches 60]

JOB is a finished fine-tune, as 0004-train. Without a checkpoint the state is its start, the split
baseline. A row of the table is one class's part of the loss: the norm of its mean gradient in the
weights that all classes share (all but the output layers), the cosine of that with the target's,
and its gradient in the bias of the class's own output row.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.prediction.checkpoint import load_checkpoint
from napari_backsplit.backend.training import nnunet
from napari_backsplit.backend.training.head_split import HEAD, split_head
from napari_backsplit.backend.training.spec import RunSpec
from napari_backsplit.backend.training.trainer import (
    BackSplitTrainer,
    Run,
    seed_everything,
    trainer_for,
)

Term = tuple[str, str]  # part of the loss, class


def open_run(project: Path, job: str, checkpoint: str | None) -> BackSplitTrainer:
    """Return the trainer of a run with the weights of its start, or of a checkpoint."""
    model = project / "jobs" / job / "model"
    dataset_json, plans = read_json(model / "dataset.json"), read_json(model / "plans.json")
    spec = RunSpec.model_validate(dataset_json["backsplit"]["run"])
    nnunet.set_folders(project / "nnunet")
    ((configuration, _),) = plans["configurations"].items()
    trainer = trainer_for(Run(spec, model), plans, configuration, dataset_json)
    fold = f"fold_{spec.fold}"
    if checkpoint:
        trainer.start_from(load_checkpoint(model / fold / checkpoint)["network_weights"])
    else:
        baseline = project / str(spec.baseline)
        old = read_json(baseline / "dataset.json")["labels"]
        weights = load_checkpoint(baseline / fold / spec.baseline_checkpoint)["network_weights"]
        trainer.start_from(
            split_head(weights, old, dataset_json["labels"], spec.split_offset, spec.split_noise)
        )
    return trainer


def terms(
    logits: Tensor, codes: Tensor, labels: Mapping[str, int]
) -> Iterator[tuple[Term, Tensor]]:
    """Yield each class's part of the cross-entropy, and of the Dice term (a mean over classes)."""
    log_p = logits.log_softmax(1)
    for name, label in labels.items():
        inside, p = codes == label, log_p[:, label].exp()
        yield ("cross-entropy", name), -(log_p[:, label] * inside).sum() / codes.numel()
        if label:
            dice = 2 * (p * inside).sum() / (p.sum() + inside.sum() + 1e-5)
            yield ("Dice", name), -dice / (len(labels) - 1)


def mean_gradients(
    trainer: BackSplitTrainer, batches: int
) -> tuple[dict[Term, Tensor], dict[Term, float]]:
    """Return each term's mean gradient in the shared weights, and in its own output bias."""
    named = list(trainer.network.named_parameters())
    shared = [value for name, value in named if HEAD not in name]
    *_, bias = (value for name, value in named if HEAD in name and name.endswith("bias"))
    labels: dict[str, int] = trainer.dataset_json["labels"]
    weights: dict[Term, Tensor] = {}
    biases: dict[Term, float] = defaultdict(float)
    for batch in islice(trainer.dataloader_train, batches):
        logits, codes = trainer.network(batch["data"])[0], batch["target"][0][:, 0].long()
        for term, loss in terms(logits, codes, labels):
            *parts, own = torch.autograd.grad(loss, [*shared, bias], retain_graph=True)
            flat = torch.cat([part.flatten() for part in parts]) / batches
            weights[term] = weights.get(term, torch.zeros_like(flat)) + flat
            biases[term] += float(own[labels[term[1]]]) / batches
    return weights, dict(biases)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("job")
    parser.add_argument("--checkpoint")
    parser.add_argument("--batches", type=int, default=60)
    given = parser.parse_args()
    trainer = open_run(given.project.resolve(), given.job, given.checkpoint)
    trainer.on_train_start()
    seed_everything(0, 0)
    weights, biases = mean_gradients(trainer, given.batches)
    targets = trainer.dataset_json["backsplit"]["targets"]
    target = sum((flat for (_, name), flat in weights.items() if name in targets), torch.zeros(()))
    print("| part of the loss | class | norm | cosine with the target | own bias |")
    print("|---|---|---|---|---|")
    for (part, name), flat in weights.items():
        cosine = functional.cosine_similarity(flat, target, dim=0)
        own = biases[part, name]
        print(f"| {part} | {name} | {flat.norm():.4f} | {cosine:+.2f} | {own:+.4f} |")


if __name__ == "__main__":
    main()
