"""Training: ends with a Model."""

from attentus.train.fitting import fit

__all__ = ["fit"]
