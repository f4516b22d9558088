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


def definitions() -> tuple[Definition, ...]:
    """Return the definition of every metric, in the order of the tables."""
    return _DEFINITIONS


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
