"""Training one network or a supernet: augmentation, losses, schedules, optimizers, checkpoints and the loop."""
