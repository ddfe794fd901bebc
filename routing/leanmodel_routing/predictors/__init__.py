"""Predictors: from signals to a calibrated confidence. Fitting needs scikit-learn; predicting needs
nothing.
"""

from __future__ import annotations

from leanmodel_routing.predictors.predict import confidence, observed_confidence, predict, sigmoid

__all__ = ["confidence", "observed_confidence", "predict", "sigmoid"]
