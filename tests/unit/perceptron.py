"""An honest network that costs next to nothing, for tests of attacks and of what is noticed about them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ltrobust_bench.attacks.pgd import pgd


def perceptron(task, epochs):
    """A perceptron of one hidden layer after adversarial training (Madry et al. 2018) on all of a task's 8x8 images."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
    x, y = torch.from_numpy(task.source.train_images) / 255, torch.from_numpy(task.source.train_labels)
    optimizer, epsilon = torch.optim.Adam(net.parameters(), lr=0.005), task.epsilon
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(128):
            attacked = pgd(net.eval(), x[batch], y[batch], epsilon=epsilon, step_size=epsilon / 3, steps=5)
            optimizer.zero_grad()
            F.cross_entropy(net.train()(attacked), y[batch]).backward()
            optimizer.step()
    return net.eval()
