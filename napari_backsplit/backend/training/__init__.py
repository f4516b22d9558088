"""Label maps -> model: run spec, nnU-Net dataset, trainer, losses, head split."""
