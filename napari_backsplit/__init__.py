"""napari-backsplit: better lesion segmentation by sub-dividing the background."""

__version__ = "0.1.0"
