"""PET activity in Bq/ml to standardised uptake values by body weight (SUVbw).

After the vendor-neutral pseudo-code of the QIBA FDG-PET/CT profile ("happy path"): PS3.3 C.8.9.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from napari_backsplit.backend.errors import InputError

#: Header elements needed; they are read along with those of the grid.
TAGS = (
    "Units", "SUVType", "CorrectedImage", "DecayCorrection", "PatientWeight", "SeriesDate",
    "SeriesTime", "AcquisitionDate", "AcquisitionTime", "RadiopharmaceuticalInformationSequence",
)  # fmt: skip
_LOWEST_DOSE_BQ = 1e5


def factor(headers: Sequence[Any]) -> tuple[float, str]:
    """Return what to multiply Bq/ml with for SUVbw in g/ml, and a note that says so.

    Parameters
    ----------
    headers : sequence of pydicom.Dataset
        Headers of all slices of one PET series.

    Raises
    ------
    InputError
        A tag is missing or has a value the conversion is not defined for; it is named.
    """
    header = headers[0]
    if header.get("Modality") != "PT":
        raise _refusal(f"Modality is {header.get('Modality')!r} instead of PT")
    if len({str(_need(each, "Units")) for each in headers}) > 1:
        raise _refusal("Units differ between slices")
    if header.Units == "GML" and header.get("SUVType", "BW") == "BW":
        return 1.0, "The PET series states SUVbw in g/ml already."
    if header.Units != "BQML":
        raise _refusal(f"Units is {header.Units!r} instead of BQML")
    _check_corrections(header)
    source = _need(header, "RadiopharmaceuticalInformationSequence")[0]
    dose_bq = _positive(source, "RadionuclideTotalDose")
    if dose_bq < _LOWEST_DOSE_BQ:
        raise _refusal(f"RadionuclideTotalDose is {dose_bq:g}, too low for becquerels")
    decayed, how = _decayed_share(headers, source)
    value = 1000 * _positive(header, "PatientWeight") / (dose_bq * decayed)
    return value, f"Bq/ml turned into SUVbw with the factor {value:.6g} ({how})."


def _check_corrections(header: Any) -> None:
    corrected = _need(header, "CorrectedImage")
    done = {corrected} if isinstance(corrected, str) else set(corrected)
    missing = {"ATTN", "DECY"} - done
    if missing:
        raise _refusal(f"CorrectedImage lacks {' and '.join(sorted(missing))}")


def _decayed_share(headers: Sequence[Any], source: Any) -> tuple[float, str]:
    """Return the share of the dose left at the time the image is corrected to."""
    correction = str(_need(headers[0], "DecayCorrection"))
    if correction == "ADMIN":
        return 1.0, "decay corrected to the administration"
    if correction != "START":
        raise _refusal(f"DecayCorrection is {correction!r} instead of START or ADMIN")
    half_life_s = _positive(source, "RadionuclideHalfLife")
    elapsed_s = _elapsed_s(headers, source)
    how = f"decay from the administration to the start of the scan, {elapsed_s:.0f} s"
    return float(2 ** (-elapsed_s / half_life_s)), f"{how}, half-life {half_life_s:g} s"


def _elapsed_s(headers: Sequence[Any], source: Any) -> float:
    start = _scan_start(headers)
    stated = source.get("RadiopharmaceuticalStartDateTime")
    if stated:
        elapsed = start - _moment(str(stated), "RadiopharmaceuticalStartDateTime")
    else:
        name = "RadiopharmaceuticalStartTime"
        elapsed = start - _moment(f"{start:%Y%m%d}{_need(source, name)}", name)
        elapsed += timedelta(days=elapsed < timedelta(0))  # given before midnight
    if not timedelta(0) <= elapsed < timedelta(days=1):
        raise _refusal("the administration does not lie in the 24 hours before the scan")
    return elapsed.total_seconds()


def _scan_start(headers: Sequence[Any]) -> datetime:
    """Return the series' time, or the first acquisition where the series was made later."""
    series, first = _stamp(headers[0], "Series"), min(_stamp(h, "Acquisition") for h in headers)
    return min(series, first)


def _stamp(header: Any, prefix: str) -> datetime:
    text = f"{_need(header, prefix + 'Date')}{_need(header, prefix + 'Time')}"
    return _moment(text, f"{prefix}Date or {prefix}Time")


def _moment(text: str, name: str) -> datetime:
    whole, _, fraction = text.split("+")[0].split("-")[0].partition(".")
    try:
        return datetime.strptime(f"{whole[:14]:0<14}.{fraction[:6] or '0'}", "%Y%m%d%H%M%S.%f")
    except ValueError:
        raise _refusal(f"{name} is no valid time") from None


def _positive(dataset: Any, name: str) -> float:
    value = float(_need(dataset, name))
    if not 0 < value < float("inf"):
        raise _refusal(f"{name} is {value:g}")
    return value


def _need(dataset: Any, name: str) -> Any:
    value = dataset.get(name)
    if value is None or (hasattr(value, "__len__") and len(value) == 0):
        raise _refusal(f"the tag {name} is missing")
    return value


def _refusal(why: str) -> InputError:
    return InputError(
        f"The PET series cannot be turned into SUV: {why}.",
        "Take its values as they are, or export the series again with that tag.",
    )
