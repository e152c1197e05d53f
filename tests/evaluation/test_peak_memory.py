"""Extraction and probes of 200,000 samples with 512 features stay within a few copies of the features."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLES, WIDTH = 200_000, 512
#: Bytes of all features as float32: 410 MB.
FEATURES = 4 * SAMPLES * WIDTH

COMMON = """
import json, resource, sys
import numpy as np
import torch

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

def say(before):
    print(json.dumps(peak() - before))
"""

EXTRACTION = """
from zoo.data.base import Dataset
from zoo.encoder import Encoder
from zoo.features.extract import extract
from zoo.preprocessing.image import ImageInput

class Flat(Encoder):
    num_features = 512
    def __init__(self):
        super().__init__()
        self.input = ImageInput(size=(8, 8))
        self.weight = torch.nn.Parameter(torch.randn(512, 3))
    def check_input(self, x, lengths): pass
    def _features(self, x, lengths): return x
    def pool(self, features, lengths=None): return features.mean((2, 3)) @ self.weight.T

class Pixels(Dataset):
    name, split, class_names, labels = "random", "train", (), None
    def __init__(self, count):
        self.keys = [str(i) for i in range(count)]
        self.picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    def sample(self, index):
        return self.picture
    @property
    def fingerprint(self):
        return "ab" * 32

encoder = Flat().eval()
extract(encoder, Pixels(2000), batch_size=1000, precision="fp32", device="cpu", workers=0)
before = peak()
extract(encoder, Pixels(200_000), batch_size=1000, precision="fp32", device="cpu", workers=0, out=sys.argv[1])
say(before)
"""

PROBE = """
from evaluation.frozen import Features
from evaluation.protocols import protocol

def made(count, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    features = rng.standard_normal((count, 512), dtype=np.float32)
    features[:, :4] += 4 * np.eye(4, dtype=np.float32)[labels]
    return Features(features, labels)

probe = protocol(sys.argv[1], json.loads(sys.argv[2]))
probe.run(made(2000, 0), made(100, 1))
train, test = made(200_000, 0), made(1000, 1)
before = peak()
probe.run(train, test)
say(before)
"""


def grown(script: str, *arguments: str) -> int:
    """Bytes by which the peak memory of a fresh process grows in the part of `script` that counts."""
    done = subprocess.run(
        [sys.executable, "-c", COMMON + script, *arguments],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs getrusage")
def test_extraction_to_a_file_holds_only_batches(tmp_path):
    assert grown(EXTRACTION, str(tmp_path / "f.npy")) < FEATURES / 4
    assert (tmp_path / "f.npy").stat().st_size > FEATURES


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs getrusage")
@pytest.mark.parametrize(
    ("protocol", "settings", "copies"),
    [("logreg", {"c_grid": [0.01, 1.0], "max_iter": 20}, 2), ("knn", {"k_grid": [5, 20], "select_samples": 1000}, 3)],
)
def test_a_probe_holds_a_few_copies_of_the_features_beside_them(protocol, settings, copies):
    assert grown(PROBE, protocol, json.dumps(settings)) < copies * FEATURES
