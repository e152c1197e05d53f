"""How good an encoder is: probes on frozen features, beside baselines, with paired differences."""

from __future__ import annotations

from evaluation.evaluate import Evaluation, evaluate
from evaluation.frozen import Features
from evaluation.protocols.few_label import FewLabelProbe
from evaluation.protocols.finetune import FineTuner
from evaluation.protocols.knn import KNNProbe
from evaluation.protocols.logistic import LogisticProbe

__all__ = ["Evaluation", "Features", "FewLabelProbe", "FineTuner", "KNNProbe", "LogisticProbe", "evaluate"]
