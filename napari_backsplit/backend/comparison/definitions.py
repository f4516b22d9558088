"""The definitions of all metrics with their sources, as the report and the documents state them."""

from __future__ import annotations

from dataclasses import dataclass

_NIKOLOV = "S. Nikolov et al., J Med Internet Res 23(7):e26151 (2021), as in surface-distance 0.1"
_RELOADED = "L. Maier-Hein, A. Reinke et al., Metrics reloaded, Nat Methods 21:195-212 (2024)"
_TAHA = "A. A. Taha, A. Hanbury, BMC Med Imaging 15:29 (2015)"
_AUTOPET = "S. Gatidis et al., autoPET, Nat Mach Intell 6:1396-1405 (2024)"
_HERE = "Defined here"
_ISLES = "M. R. Hernandez Petzsche et al., ISLES 2022, Sci Data 9:762 (2022)"


@dataclass(frozen=True)
class Definition:
    """What a metric is.

    Parameters
    ----------
    name : str
        As tables show it.
    text : str
        Definition in a sentence, with its unit, and what holds for empty masks.
    source : str
        Paper.
    """

    name: str
    text: str
    source: str


def definitions(soft: bool = False) -> tuple[Definition, ...]:
    """Return the definition of every metric, in the order of the tables.

    Parameters
    ----------
    soft : bool
        Also those of shares.
    """
    return (*_DEFINITIONS, *_SOFT) if soft else _DEFINITIONS


_FREE = "Not defined where the reference is empty"
_MISSED = f"{_FREE}; 0 where only the prediction is."
_DISTANCE = (
    f"{_FREE}; where only the prediction is, left out and counted as missed, or the diagonal of "
    "the image, as the policy says."
)

_DEFINITIONS = (
    Definition(
        "Dice",
        "Twice the voxels in common over the voxels of reference and prediction added up. "
        + _MISSED,
        "L. R. Dice, Ecology 26:297-302 (1945)",
    ),
    Definition(
        "IoU",
        "Voxels in common over the voxels of reference and prediction together (Jaccard index). "
        + _MISSED,
        "P. Jaccard, New Phytol 11:37-50 (1912)",
    ),
    Definition(
        "NSD",
        "Normalised surface Dice: the share of the area of both surfaces that lies within the "
        "tolerance of the other surface, surfaces running between voxels. " + _MISSED,
        _NIKOLOV,
    ),
    Definition(
        "HD-95",
        "The larger of the two directed 95th percentiles, weighted by surface area, of the "
        "distance in mm from one surface to the other. " + _DISTANCE,
        _NIKOLOV,
    ),
    Definition(
        "ASSD",
        "Average symmetric surface distance in mm: the mean distance to the other surface over "
        "the area of both surfaces together, so that the larger surface weighs more; it is the "
        "mean of the two directed averages weighted by their areas. " + _DISTANCE,
        f"{_NIKOLOV}; symmetric as in {_RELOADED}",
    ),
    Definition(
        "Voxel sensitivity",
        "Voxels in common over the voxels of the reference. " + _MISSED,
        _TAHA,
    ),
    Definition(
        "Voxel precision",
        "Voxels in common over the voxels of the prediction. Not defined where either mask is "
        "empty.",
        _TAHA,
    ),
    Definition(
        "Volume difference",
        "Volume of the prediction less that of the reference, in ml, and in percent of the "
        "reference. In percent not defined where the reference is empty; -100 % where only the "
        "prediction is.",
        _TAHA,
    ),
    Definition(
        "Lesions found",
        "Reference lesions that a predicted lesion matches (TP), over all reference lesions; a "
        "lesion is a connected component, and the settings say which neighbours connect and "
        "what matches. " + _MISSED,
        _RELOADED,
    ),
    Definition(
        "False positives",
        "Predicted lesions that match no reference lesion (FP), in number; reference lesions "
        "that none matches are the false negatives (FN). Defined in every case, and 0 where "
        "nothing was predicted.",
        _RELOADED,
    ),
    Definition(
        "Lesion F1",
        "2 TP / (2 TP + FN + FP) of the lesions of a case, TP counted in the reference. " + _MISSED,
        _ISLES,
    ),
    Definition(
        "False positive volume",
        "Volume in ml of the predicted lesions no voxel of which is in the reference, whatever "
        "the matching. Defined in every case, and 0 where nothing was predicted.",
        _AUTOPET,
    ),
    Definition(
        "False negative volume",
        "Volume in ml of the reference lesions no voxel of which is predicted, whatever the "
        "matching. Defined in every case, and 0 where the reference is empty.",
        _AUTOPET,
    ),
    Definition(
        "By lesion size",
        "The same counts and volumes for each class of lesion volume; a false positive counts in "
        "the class of its own volume. A class without a reference lesion has no sensitivity.",
        _HERE,
    ),
    Definition(
        "Lesion-wise Dice",
        "Dice of one reference lesion with all predicted lesions that touch it; 0 where none does.",
        _HERE,
    ),
    Definition(
        "Average precision",
        "Area under the precision-recall curve of the voxels of a case, from probabilities "
        "rounded to thousandths: the sum of each gain in recall times the precision there. Not "
        "defined where the reference is empty.",
        "M. Everingham et al., Int J Comput Vis 88:303-338 (2010), without interpolation",
    ),
    Definition(
        "FROC",
        "Lesions found over all reference lesions against false positives per case, pooled over "
        "the cases at each probability threshold; lesion-free cases count in the false "
        "positives per case.",
        "D. P. Chakraborty, Acad Radiol 20:915-919 (2013)",
    ),
)

_SHARE = (
    "p is the share of a voxel that is predicted (of a model that predicts classes its "
    "probability), g that of the reference (of a mask 0 or 1)"
)

_SOFT = (
    Definition(
        "Soft Dice",
        f"2 sum p g / (sum p + sum g) over the voxels of the image, where {_SHARE}. It "
        "rewards whole shares: where g is a fraction, a p that is rounded up scores higher than "
        "p = g, which stays below 1; read it beside the errors. " + _MISSED,
        "C. Gros et al., SoftSeg, Med Image Anal 71:102038 (2021), and F. Milletari et al., "
        "V-Net (2016), here with plain sums",
    ),
    Definition(
        "Soft Dice of squares",
        "2 sum p g / (sum p^2 + sum g^2) over the voxels of the image, of the same p and g: 1 "
        "where p = g in every voxel, and only there. " + _MISSED,
        "F. Milletari et al., V-Net (2016)",
    ),
    Definition(
        "Mean absolute error",
        "Mean of |p - g| over the smallest box with every voxel where the reference is above 0 or "
        "the map of any compared arm is at least 0.01: the same box for all arms of a case. Not "
        "defined where there is no such voxel.",
        _HERE,
    ),
    Definition(
        "Mean squared error (Brier)",
        "Mean of (p - g)^2 over the same box; the Brier score of the voxels where the reference "
        "is a mask. Not defined where there is no such voxel.",
        "G. W. Brier, Mon Weather Rev 78:1-3 (1950)",
    ),
    Definition(
        "Soft volume difference",
        "Sum of p less sum of g over the image, times the volume of a voxel, in ml, and in percent "
        "of the reference. In percent not defined where the reference is empty; -100 % where only "
        "the prediction is.",
        "C. Gros et al., SoftSeg, Med Image Anal 71:102038 (2021)",
    ),
)
