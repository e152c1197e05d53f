"""Online kNN on held-out training samples: a number to watch, never one to publish."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from training.batches import Batches, TrainingData
from training.data_settings import Monitor
from zoo.encoder import Encoder


class OnlineKNN:
    """Weighted kNN of held-out training samples against part of the training samples."""

    def __init__(self, settings: Monitor, data: TrainingData, batches: Batches, autocast, seed: int = 0) -> None:
        labels = data.dataset.labels
        assert labels is not None
        generator = np.random.default_rng(0)
        train, held = data.watched(seed)
        train = generator.permutation(train)[: settings.train_samples]
        held = generator.permutation(held)[: settings.held_out_samples]
        self.rows = data.rows(np.concatenate([train, held]))
        self.train_labels = torch.from_numpy(labels[train])
        self.held_labels = torch.from_numpy(labels[held])
        self.k = min(settings.k, len(train))
        self.batches, self.autocast = batches, autocast
        self.classes = int(labels.max()) + 1

    @torch.inference_mode()
    def run(self, encoder: Encoder, size: int) -> float:
        """Top-1 accuracy in 0..1 of `encoder` as it stands, on images of `size` px (skeletons as they are)."""
        was_training, strict = encoder.training, encoder.strict_input
        encoder.eval()
        encoder.strict_input = False
        try:
            features = torch.cat([self._features(encoder, rows, size) for rows in self._chunks()])
        finally:
            encoder.train(was_training)
            encoder.strict_input = strict
        split = len(self.train_labels)
        similarity = features[split:] @ features[:split].T
        values, index = similarity.topk(self.k, dim=1)
        votes = torch.zeros(len(values), self.classes, device=values.device)
        neighbours = self.train_labels.to(values.device)[index]
        votes.scatter_add_(1, neighbours, (values / 0.1).exp())
        return float((votes.argmax(1).cpu() == self.held_labels).float().mean())

    def _chunks(self) -> list[np.ndarray]:
        return np.array_split(self.rows, max(1, len(self.rows) // 500))

    def _features(self, encoder: Encoder, rows: np.ndarray, size: int) -> Tensor:
        batch = self.batches.get(rows)
        if "skeletons" in batch:
            with self.autocast():
                features = encoder(batch["skeletons"], batch["lengths"])
            return torch.nn.functional.normalize(features.float(), dim=1)
        images = batch["images"].float().div_(255)
        if images.shape[-1] != size:
            images = torch.nn.functional.interpolate(images, (size, size), mode="bicubic", antialias=True).clamp_(0, 1)
        mean, std = (
            torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (encoder.input.mean, encoder.input.std)
        )
        with self.autocast():
            features = encoder((images - mean) / std)
        return torch.nn.functional.normalize(features.float(), dim=1)
