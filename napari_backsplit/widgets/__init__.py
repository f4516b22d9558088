"""napari and Qt: what the plugin shows. The work is done by the backend."""
