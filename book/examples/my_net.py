import cappaper
import torch
from torch import nn


def make():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 128),
        nn.Hardtanh(0, 0.05),  # a capped ReLU under another name
        nn.Linear(128, 64),
        nn.Hardtanh(0, 0.05),
        nn.Linear(64, 10),
    )
    return cappaper.fit(net, *cappaper.load("digits", "train"), epochs=20, lr=3e-3)


def images():
    return cappaper.load("digits", "test", limit=200)
