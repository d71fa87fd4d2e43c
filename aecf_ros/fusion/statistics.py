"""What one modality's own output says about how far to trust it: entropy, energy, norm, distance to training.

Only a modality's own statistics enter its reliability. The other modality's, and the agreement of the two, were tried
and add nothing where corruption is independent given the label (docs/benchmarks.md).
"""

import torch
from torch import Tensor, nn

STATISTICS = ("entropy", "energy", "norm", "class_distance", "distance", "neighbor_distance")
LANDMARKS, NEIGHBORS, RANK = 512, 5, 128


def predictive_entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits), in nats: [...] from [..., C]."""
    log_p = torch.log_softmax(logits, dim=-1)
    return -(log_p.exp() * log_p).sum(-1)


def energy(logits: Tensor) -> Tensor:
    """Free energy -logsumexp(logits): [...] from [..., C]. Low where the expert has seen such inputs (Liu et al. 2020).
    """
    return -torch.logsumexp(logits, dim=-1)


class EmbeddingDistance(nn.Module):
    """How far an embedding lies from those of training, in three ways.

    Mahalanobis distances with one shared covariance (Lee et al. 2018) to the nearest class center and to the center of
    all, and the mean distance to the nearest few of some hundred training embeddings (Sun et al. 2022), which sees what
    no ellipsoid does. All three lie in the RANK directions in which training varied most, which keeps them cheap where
    embeddings are wide. Unfitted, every distance is that to the origin. `fit` is called once, on training embeddings;
    the result is buffers, so it travels in the state dict and in the exported graph.
    """

    def __init__(self, width: int, classes: int):
        super().__init__()
        rank = min(width, RANK)
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("whitening", torch.eye(width, rank))
        self.register_buffer("class_whitening", torch.eye(rank))  # applied to what `whitening` gives
        self.register_buffer("class_centers", torch.zeros(classes, rank))
        self.register_buffer("landmarks", torch.zeros(LANDMARKS, rank))

    @torch.no_grad()
    def fit(self, embeddings: Tensor, labels: Tensor, shrinkage: float = 0.05) -> None:
        """Estimate centers and covariances. embeddings: [N, D]; labels: int64 [N], rows below 0 are left out.

        shrinkage: weight of the mean variance on the diagonal; keeps directions that training never moved in finite.
        """
        embeddings, labels = embeddings[labels >= 0].double(), labels[labels >= 0]
        center = embeddings.mean(0)
        values, vectors = _principal(embeddings - center, shrinkage)
        vectors, spread = vectors[:, : self.whitening.shape[1]], values[: self.whitening.shape[1]].rsqrt()
        points = (embeddings - center) @ vectors
        classes = [points[labels == c] for c in range(self.class_centers.shape[0])]
        centers = torch.stack([mine.mean(0) if len(mine) else torch.zeros_like(points[0]) for mine in classes])
        within_values, within_vectors = _principal(points - centers[labels], shrinkage)
        class_whitening = within_vectors * within_values.rsqrt()
        self.center.copy_(center)
        self.whitening.copy_(vectors * spread)
        self.class_whitening.copy_(class_whitening / spread.unsqueeze(-1))
        self.class_centers.copy_(centers @ class_whitening)
        rows = torch.arange(LANDMARKS) * len(embeddings) // LANDMARKS  # spread evenly, no draw
        self.landmarks.copy_(points[rows] * spread)

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean squared whitened distance to the nearest class center, to the center of all, and to the nearest
        landmarks.

        embedding: [B, D]. Each is [B], as log(1 + d).
        """
        spread = (embedding.to(self.center.dtype) - self.center) @ self.whitening  # [B, R]
        nearest = _squared_distances(spread @ self.class_whitening, self.class_centers).amin(-1)
        overall = spread.square().mean(-1)
        to_landmarks = _squared_distances(spread, self.landmarks)  # [B, LANDMARKS]
        neighbors = to_landmarks.topk(NEIGHBORS, dim=-1, largest=False).values.mean(-1)
        return torch.log1p(nearest), torch.log1p(overall), torch.log1p(neighbors)


def _squared_distances(points: Tensor, centers: Tensor) -> Tensor:
    """Mean squared difference over features: [B, C] from [B, D] and [C, D]."""
    cross = points @ centers.T
    total = points.square().sum(-1, keepdim=True) - 2.0 * cross + centers.square().sum(-1)
    return total.clamp(min=0.0) / points.shape[-1]


def _principal(residual: Tensor, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Eigenvalues [D], largest first, and eigenvectors [D, D] of the shrunk covariance of `residual` [N, D]."""
    covariance = residual.T @ residual / len(residual)
    covariance = (1.0 - shrinkage) * covariance
    covariance += shrinkage * covariance.diagonal().mean().clamp(min=1e-6) * torch.eye(len(covariance)).to(covariance)
    values, vectors = torch.linalg.eigh(covariance)
    return values.flip(0).clamp(min=1e-12), vectors.flip(1)


def modality_statistics(embedding: Tensor, logits: Tensor, distance: EmbeddingDistance) -> Tensor:
    """The columns named in STATISTICS, unstandardized: [B, K] from an embedding [B, D] and its expert's logits [B, C].
    """
    norm = torch.log1p(embedding.float().square().mean(-1))
    return torch.stack([predictive_entropy(logits), energy(logits), norm, *distance(embedding)], dim=-1)
