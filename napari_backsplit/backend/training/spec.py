"""What a plan set and a run are: frozen, typed, and all that is needed to repeat them."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.training.combinations import require_fit
from napari_backsplit.backend.training.recipes import recipe_names, run_settings

Arm = Literal["binary", "backsplit", "virtual", "virtual-set", "permuted", "blobs"]
Configuration = Literal["2d", "3d_fullres", "3d_lowres"]
Missing = Literal["label-set", "background"]
Size = tuple[Annotated[int, Field(ge=8)], ...]

PLANS_NAME = "nnUNetPlans"
"""Name of the plans in every preprocessed dataset of a project."""

_IN_EPOCHS = ("warmup_epochs", "freeze_encoder_epochs", "curriculum_epochs")

WITH_SUPPORTS: tuple[Arm, ...] = ("backsplit", "permuted", "blobs")

Architecture = Literal["planned", "resenc-m", "resenc-l", "segresnet", "swinunetr"]
Loss = Literal[
    "dice-ce", "dice", "ce", "focal", "asymmetric",
    "weighted-ce", "generalised-dice", "adaptive-wing",
]  # fmt: skip


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class PlanSpec(_Frozen):
    """A plan set: spacing, normalisation, patch and network, made once and shared by all arms."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] = "own"
    """Name of the plan set in the project."""
    configuration: Configuration = "3d_fullres"
    """nnU-Net's configuration."""
    preset: Literal["default", "resenc-m", "resenc-l"] = "default"
    """nnU-Net's planner: the plain U-Net, or the residual-encoder presets."""
    gpu_memory_gb: Annotated[float, Field(gt=0)] | None = None
    """GPU memory that the planner may fill, GB; None: the preset's own target."""
    features: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    """Features per stage of a smaller plain U-Net, as 8,16,32; None: as planned."""
    patch_size: Size | None = None
    """Patch in voxels of the planned spacing, in nnU-Net's transposed axis order."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Patches in a batch; None: as planned. The BackSplit paper uses 2."""
    batch_dice: bool | None = None
    """Sum Dice over the batch before the ratio, not per patch; None: as planned."""
    spacing_mm: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """Spacing to train at, mm, in the file's (z, y, x) order; None: nnU-Net's choice."""
    intensities: Literal["targets", "structures"] = "targets"
    """Voxels whose intensities set the normalisation of CT: the targets', as nnU-Net plans a binary
    dataset, or the targets' and the supports'. All arms share it."""
    baseline: str | None = None
    """Model folder whose plans are adopted as they are, relative to the project."""
    accept_unfit: bool = False
    """Adopt the baseline although its channels, spacing or normalisation seem not to fit."""
    folds: Annotated[int, Field(ge=2, le=10)] = 5
    """Number of folds, split by patient."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Processes that preprocess side by side."""


class RunSpec(_Frozen):
    """One training: an arm within a plan set, its budget and its settings."""

    recipe: tuple[str, ...] = ()
    """Methods of the papers whose settings become the defaults of this run, several joined:
    segresnet,inverse-weighting (listed by `backsplit recipes`)."""

    either: ClassVar = ("epochs", "hours", "until", "same_epochs_as")
    """Budgets, of which a person gives one."""

    arm: Arm = "backsplit"
    """What the background is divided into: nothing (binary), the supports (backsplit), or for
    a control an empty class (virtual; virtual-set trains it as background or it), another case's
    supports (permuted) or random regions (blobs)."""
    supports: tuple[str, ...] = ()
    """Supports that the arm learns, in the project's order of priority; empty: all, but for copies
    of others (kidney-7-clicks beside kidney)."""
    support_count: Annotated[int, Field(ge=1)] | None = None
    """Learn only the first so many of these supports, in the order in which they are named; None:
    all."""
    support_cases: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the cases whose supports are used, to see what partial supervision costs: drawn from
    the seed by patient, a smaller share among a larger one; at least one patient to train on."""
    missing: Annotated[Missing, Field(title="Missing support means")] = "label-set"
    """What a case without a support teaches there: background or that support (label-set), or
    plainly background, as in the BackSplit paper, which is wrong wherever the support is."""
    masks: Literal["accepted", "unreviewed"] = "accepted"
    """Masks of supports that enter: those that a person accepted, or also those that nobody
    reviewed or that need work; a rejected one never does. Where a mask does not enter, background
    means background or that support."""
    plan_set: str = "own"
    """Plan set that the run belongs to."""
    fold: Annotated[int, Field(ge=0)] | Literal["all"] = 0
    """Fold that is held out for the best checkpoint (with 5 folds a fifth of the patients); "all"
    trains on every training case."""
    epochs: Annotated[int, Field(ge=1)] = 1000
    """Epochs of `iterations` batches."""
    hours: Annotated[float, Field(gt=0)] | None = None
    """Hours to train for, instead of a number of epochs: the learning rate falls to its end within
    them, whatever number of epochs fits. Hours in which the job waits do not count."""
    until: AwareDatetime | None = None
    """Time of day to be done by, instead of a number of epochs: 18:00, or a date with a time, as
    this machine's clock shows them. Whatever the job waits is lost."""
    same_epochs_as: str | None = None
    """Model folder, relative to the project, that was trained for as many epochs as this run shall
    be; so a control follows a run whose budget was hours."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Epochs without a better Dice of the targets (on patches, smoothed) after which the run ends
    early; None: it never does."""
    iterations: Annotated[int, Field(ge=1)] = 250
    """Batches in an epoch."""
    validation_iterations: Annotated[int, Field(ge=1)] = 50
    """Batches that judge an epoch; the same patches after every epoch."""
    architecture: Architecture = "planned"
    """Network: the one of the plan set; nnU-Net's residual encoder U-Net, preset M or L; or MONAI's
    SegResNet or SwinUNETR. The patch is adjusted where the network needs it, and that is said."""
    width: Annotated[int, Field(ge=1)] | None = None
    """Features of the first stage of another architecture than the planned one, for a smaller
    network; None: 32, and 48 for SwinUNETR."""
    deep_supervision: bool | None = None
    """Also train the coarser outputs of a U-Net; None: where the architecture has them."""
    loss: Loss = "dice-ce"
    """What is minimised: Dice + cross-entropy, as nnU-Net; Dice, cross-entropy (ce), focal or
    asymmetric similarity loss alone; weighted cross-entropy or generalised Dice, with which inverse
    weighting is compared; or adaptive wing, for soft labels."""
    inverse_weighting: bool = False
    """Weight each voxel inversely to the volume of its lesion in the patch, so that small lesions
    count: connected parts of all targets together, and all else, supports too, as one more."""
    labels: Literal["hard", "soft"] = "hard"
    """Learn one class per voxel, or how much of the voxel is the target (SoftSeg), by regression:
    nothing is rounded after resampling and augmentation."""
    activation: Literal["softmax", "sigmoid", "normalised-relu"] = "softmax"
    """What turns outputs into classes (softmax) or, with soft labels, into shares of a voxel."""
    round_labels: bool = False
    """Round soft labels after augmentation, for the ablation: what remains is the regression."""
    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    """SGD with Nesterov momentum 0.99, as nnU-Net; Adam; or AdamW, which needs fewer iterations."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the denominator by Adam and AdamW."""
    initial_lr: Annotated[float, Field(gt=0)] = 1e-2
    """Learning rate at the start of the schedule."""
    final_lr: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate at the end of the cosine schedule."""
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    """Decay of the learning rate over the t epochs after the warm-up: (1 - epoch / t) ** 0.9, as
    nnU-Net; (1 + cos(pi epoch / t)) / 2; or none."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """First epochs, in which the learning rate rises linearly."""
    head_lr_factor: Annotated[float, Field(gt=0)] = 1.0
    """Learning rate of the output layers, as a multiple of the others'."""
    freeze_encoder_epochs: Annotated[int, Field(ge=0)] = 0
    """First epochs, in which the encoder stays as it is."""
    weight_decay: Annotated[float, Field(ge=0)] = 3e-5
    """Weight decay of the optimiser."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Patches in a batch; None: as planned."""
    patch_size: Size | None = None
    """Patch in voxels; None: as planned."""
    target_oversampling: Annotated[float, Field(ge=0, le=1)] = 0.33
    """Share of each batch's patches, rounded up, that is centred on a target voxel."""
    target_dice_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the Dice term that belongs to the targets (1: supports enter by cross-entropy
    alone); None: a mean over all classes, as nnU-Net and the BackSplit paper."""
    curriculum_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs after which one support more joins, in their order of priority; until then it is part
    of the background. 0: all from the start."""
    final_support_weight: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Weight of the loss over supports in the last epoch; it falls linearly from 1, and the rest
    goes to the same loss with the supports as part of the background."""
    seed: int = 0
    """Seed of weights, patches and augmentation (exactly repeatable on a CPU with 0 workers)."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that augment in the background."""
    threads: Annotated[int, Field(ge=1)] = 1
    """CPU threads of torch."""
    device: Annotated[str, Field(pattern=r"^(cpu|mps|cuda(:\d+)?)$")] = "cpu"
    """Where to train: cpu, mps, cuda or cuda:N."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the convolutions on a CPU; bfloat16 is about twice as fast where the CPU has
    AMX. CUDA trains in mixed precision, as nnU-Net."""
    compile: bool = False
    """Compile the network (CUDA only): pays for long trainings."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between two checkpoints."""
    picture_every: Annotated[int, Field(ge=0)] = 10
    """Epochs between two pictures of a held-out slice with the current prediction; 0: none."""
    yield_to_clicks: bool = True
    """Wait between two batches while nnInteractive answers a click on the same device."""
    tracker: Literal["none", "mlflow", "wandb"] = "none"
    """Also send the curves, scalars only, to MLflow or Weights & Biases, where it is installed and
    set up; TensorBoard files are always written."""
    baseline: str | None = None
    """Model folder to start from, relative to the project; None: from scratch."""
    baseline_checkpoint: str = "checkpoint_final.pth"
    """Checkpoint of the baseline."""
    head: Literal["split", "random"] = "split"
    """Output layers of a fine-tune: the baseline's, split (its target is kept), or new ones at
    random, as nnU-Net starts from pretrained weights."""
    split_offset: float | None = None
    """Bias offset of new supports in the head split; None: -5 - ln n."""
    split_noise: Annotated[float, Field(ge=0)] = 0.0
    """Noise on the weights of new supports in the head split, as a multiple of the standard
    deviation of the background's. Without it all begin as the background's copies, and nothing
    tells the layers below which is which until they have drifted apart."""
    label_mapping: dict[str, str] = {}
    """Label names of the baseline -> target names of the project."""

    @model_validator(mode="before")
    @classmethod
    def _from_recipes(cls, values: Any) -> Any:
        """Take what the recipes set where nothing else is said."""
        given: Any = values.get("recipe") if isinstance(values, dict) else None
        several = isinstance(given, list | tuple) and all(isinstance(name, str) for name in given)
        if not several and not isinstance(given, str):
            return values
        names = recipe_names(given)
        return {**run_settings(names), **values, "recipe": names}

    @field_validator("until", mode="before")
    @classmethod
    def _next(cls, value: Any) -> Any:
        """Take 18:00 for the next time that a clock here shows it, a plain date for one here."""
        if isinstance(value, str) and re.fullmatch(r"\d{1,2}:\d\d", value.strip()):
            return next_time(value.strip())
        if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d[T ][\d:.]+", value.strip()):
            return datetime.fromisoformat(value.strip()).astimezone()
        if isinstance(value, str) and not re.match(r"\d{4}-\d\d-\d\d[T ]", value.strip()):
            raise ValueError("no time: write 18:00, or 2030-01-31 18:00")
        return value

    @model_validator(mode="after")
    def _check(self) -> RunSpec:
        if len(set(self.supports)) != len(self.supports):
            raise ValueError(f"supports {', '.join(self.supports)} name one structure twice")
        if len(self.budgets) > 1:
            raise ValueError(f"{' and '.join(self.budgets)} are two budgets; choose one")
        for name in _IN_EPOCHS:
            value, words = getattr(self, name), name.replace("_", " ")
            if value and self.by_the_clock:
                raise ValueError(
                    f"{value} {words} need a budget in epochs: how many fit into the time is not "
                    "known before"
                )
            if value >= self.epochs and value and not self.same_epochs_as:
                raise ValueError(f"{value} {words} leave nothing of {self.epochs} epochs")
        require_fit(self)
        return self

    @property
    def budgets(self) -> tuple[str, ...]:
        """What takes the place of the number of epochs; at most one."""
        return tuple(
            name for name in ("hours", "until", "same_epochs_as") if getattr(self, name) is not None
        )

    @property
    def by_the_clock(self) -> bool:
        """Whether time ends the run, not a number of epochs."""
        return self.hours is not None or self.until is not None


def next_time(text: str, now: datetime | None = None) -> datetime:
    """Return when a clock here next shows "18:00".

    Raises
    ------
    ValueError
        There is no such time.
    """
    now = (now or datetime.now()).astimezone()
    hour, minute = (int(part) for part in text.split(":"))
    today = now.replace(hour=hour, minute=minute, second=0, microsecond=0, tzinfo=None)
    moment = today.astimezone()
    return moment if moment > now else (today + timedelta(days=1)).astimezone()


FINETUNE: dict[str, float | int] = {"epochs": 250, "target_dice_share": 0.5}
"""How a fine-tune differs from a training: the paper's length (App. J), and half of the Dice term
for the targets, whose share would otherwise fall with every support. It learns at the rate that
its baseline did, not at a tenth of it: see docs/adr/0006-the-fine-tune.md."""

LEARNING = ("optimiser", "epsilon", "initial_lr", "weight_decay", "loss", "inverse_weighting",
            "labels", "activation", "round_labels")  # fmt: skip
"""What a fine-tune takes over from its baseline's training."""

NETWORK = ("architecture", "width", "deep_supervision")
"""What a run that starts from a model takes over of its network."""

PLANNED = ("architecture", "width")
"""What of it the plans of a model from elsewhere hold already."""

MANY_SUPPORTS = 3
"""A fine-tune with more supports is warned of: with nine the paper saw no gain (App. J)."""


def arm_name(
    arm: Arm,
    supports: tuple[str, ...],
    without: tuple[str, ...] = (),
    missing: Missing = "label-set",
) -> str:
    """Return the short name of an arm, unique for what it is told: "binary", "backsplit-1f3a".

    Parameters
    ----------
    arm : Arm
    supports : tuple of str
    without : tuple of str
        Cases whose supports are left out.
    missing : {"label-set", "background"}
        What the background of a case without a support is told to be.
    """
    if arm not in WITH_SUPPORTS:
        return arm
    if not supports:
        raise InputError(
            f"The arm {arm} needs at least one support.", "Import or click a support first."
        )
    told = [*supports, *(f"-{case}" for case in without)]
    told += ["background"] if missing == "background" else []
    return f"{arm}-{hashlib.sha256(' '.join(told).encode()).hexdigest()[:6]}"
