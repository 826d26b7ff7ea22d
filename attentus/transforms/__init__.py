"""What is done to voxels: `prepare` and its way back, `resample`, and random `augment`ation for training."""
