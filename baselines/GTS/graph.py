"""The graph that GTS learns: a probability for every pair of sensors, and links drawn from it (section 3.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = (8, 16)
KERNEL = 10
SHORTEST_SERIES = 2 * (KERNEL - 1) + 1  # readings that the two convolutions take


class GraphLearner(nn.Module):
    """Log odds of a link between any two sensors, from their training series `[N, T]`.

    Two convolutions and a linear layer embed a series, two linear layers take the embeddings of a pair.

    Raises:
        ValueError: the series are too short for the convolutions.
    """

    series: Tensor

    def __init__(self, series: Tensor, embedding_size: int) -> None:
        super().__init__()
        steps = series.shape[1]
        if steps < SHORTEST_SERIES:
            raise ValueError(f"GTS takes a training part of {SHORTEST_SERIES} readings or more, got {steps}")
        self.register_buffer("series", series.unsqueeze(1), persistent=False)  # [N, 1, T]
        first, second = CHANNELS
        self.conv1 = nn.Conv1d(1, first, KERNEL)
        self.norm1 = nn.BatchNorm1d(first)
        self.conv2 = nn.Conv1d(first, second, KERNEL)
        self.norm2 = nn.BatchNorm1d(second)
        self.embedding = nn.Linear(second * (steps - SHORTEST_SERIES + 1), embedding_size)
        self.norm3 = nn.BatchNorm1d(embedding_size)
        self.pair = nn.Linear(2 * embedding_size, embedding_size)
        self.link = nn.Linear(embedding_size, 2)  # logits of a link, and of none

    def forward(self) -> Tensor:
        """`[N, N]`: (i, j) is of the link i -> j; the diagonal means nothing."""
        x = _normed(self.norm1, F.relu(self.conv1(self.series)))
        x = _normed(self.norm2, F.relu(self.conv2(x)))
        x = _normed(self.norm3, F.relu(self.embedding(x.flatten(1))))  # [N, E]
        # The layer takes sender and receiver side by side, so that it is the sum of a layer of each: N products and not
        # N * N. Of the two logits the difference alone counts.
        sender_weight, receiver_weight = self.pair.weight.chunk(2, dim=1)
        senders, receivers = F.linear(x, sender_weight, self.pair.bias), F.linear(x, receiver_weight)
        pairs = F.relu(senders.unsqueeze(1) + receivers)  # [N, N, E]
        return pairs @ (self.link.weight[0] - self.link.weight[1]) + (self.link.bias[0] - self.link.bias[1])


def sample_links(log_odds: Tensor, temperature: float) -> Tensor:
    """Links `[N, N]` of 0 and 1, each drawn with its probability; gradients are those of the soft sample.

    A Gumbel softmax of two logits is a sigmoid of their difference with logistic noise, the difference of two Gumbels.
    """
    uniform = torch.rand_like(log_odds)
    soft = torch.sigmoid((log_odds + uniform.log() - (-uniform).log1p()) / temperature)
    hard = (soft > 0.5).to(soft.dtype)
    return hard + (soft - soft.detach())


def looped_walk(links: Tensor) -> Tensor:
    """Links `[N, N]` -> the random walk D^-1 (A + I), where A has no loops of its own."""
    loops = torch.eye(len(links), dtype=torch.bool, device=links.device)
    looped = links.masked_fill(loops, 1.0)
    return looped / looped.sum(dim=1, keepdim=True)


def _normed(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """The norm of `x` `[N, C, ...]`; one value a channel has no deviation, and takes the running statistics."""
    if x.numel() > x.shape[1]:
        return norm(x)
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
