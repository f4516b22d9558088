"""Model and image -> lesion mask.

A model folder is checked (model_folder, trust, pickles, archive, checkpoint, compatibility) before
it is used. Then, for each image:

- preparation, orientation, memory: read, turn and preprocess it, if there is room for it
- network, sliding: the logits, slab by slab, as nnU-Net computes them
- export: the mask, and what else is `wanted`; candidates and settling find where the target is in
  the blocks of slab_export by the arithmetic of resampling; planes has all classes; full_export is
  nnU-Net's own way
- outputs, written: the files on the image's own grid; dicom_seg, dicom_source: as DICOM SEG

predictor does it for one image; tasks for the cases of a project, through a pipeline with reports;
outside asks the process alone for an image of no project. targets and roles say which label is
meant and what the model has seen; foreign_masks takes masks that others predicted.
"""
