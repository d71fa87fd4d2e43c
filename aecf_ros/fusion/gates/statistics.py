"""Statistics of one modality that show its reliability: entropy, energy, norm, distance to training.

Only its own statistics enter a modality's reliability. Those of the others, and their agreement, were tried and add
nothing if corruption is independent given the label (docs/research/benchmarks.md).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

STATISTICS = ("entropy", "energy", "norm", "class_distance", "distance", "neighbor_distance")
LANDMARKS, NEIGHBORS, RANK = 512, 5, 128
BLOCK = 8192  # rows that are in double precision at a time


def predictive_entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits), in nats: [...] from [..., C]."""
    log_p = torch.log_softmax(logits, dim=-1)
    return -(log_p.exp() * log_p).sum(-1)


def energy(logits: Tensor) -> Tensor:
    """Free energy -logsumexp(logits): [...] from [..., C]. Low for inputs like those of training (Liu et al. 2020)."""
    return -torch.logsumexp(logits, dim=-1)


class EmbeddingDistance(nn.Module):
    """Distance of an embedding to those of training, in three ways.

    Mahalanobis distances with one shared covariance (Lee et al. 2018) to the nearest class center and to the center of
    all, and the mean distance to the nearest few of some hundred training embeddings (Sun et al. 2022), which needs no
    ellipsoid. All three use the RANK directions in which training varied most, which keeps them cheap for wide
    embeddings. Unfitted, every distance is that to the origin. `fit` is called once, on training embeddings; the result
    is in buffers, so that it is part of the state dict and of the exported graph.
    """

    center: Tensor
    whitening: Tensor
    class_whitening: Tensor
    class_centers: Tensor
    landmarks: Tensor

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        rank = min(width, RANK)
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("whitening", torch.eye(width, rank))
        self.register_buffer("class_whitening", torch.eye(rank))  # applied after `whitening`
        self.register_buffer("class_centers", torch.zeros(classes, rank))
        self.register_buffer("landmarks", torch.zeros(LANDMARKS, rank))

    @torch.no_grad()
    def fit(self, embeddings: Tensor, labels: Tensor, shrinkage: float = 0.05) -> None:
        """Estimate centers and covariances. embeddings: [N, D]; labels: int64 [N], rows below 0 are left out.

        shrinkage: weight of the mean variance on the diagonal; keeps directions without variance finite.
        """
        embeddings, labels = embeddings[labels >= 0], labels[labels >= 0]
        moments = ClassMoments.of(embeddings, labels, len(self.class_centers), embeddings.double().mean(0))
        self.fit_moments(moments, landmarks(embeddings), shrinkage)

    @torch.no_grad()
    def fit_moments(self, moments: "ClassMoments", points: Tensor, shrinkage: float = 0.05) -> None:
        """As `fit`, from sums over the training embeddings and some of them as landmarks, [LANDMARKS, D]."""
        mean, scatter = moments.mean_and_scatter()
        values, vectors = _principal(scatter, shrinkage)
        vectors, scale = vectors[:, : self.whitening.shape[1]], values[: self.whitening.shape[1]].rsqrt()
        centers, between = moments.class_centers(mean)
        within_values, within_vectors = _principal(vectors.T @ (scatter - between) @ vectors, shrinkage)
        class_whitening = within_vectors * within_values.rsqrt()
        center = moments.origin + mean
        self.center.copy_(center)
        self.whitening.copy_(vectors * scale)
        self.class_whitening.copy_(class_whitening / scale.unsqueeze(-1))
        self.class_centers.copy_(centers @ vectors @ class_whitening)
        self.landmarks.copy_((points.double() - center) @ vectors * scale)

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean squared whitened distance to the nearest class center, to the common center, and to the
        nearest landmarks, each as log(1 + d), [B].

        embedding: [B, D].
        """
        whitened = (embedding.to(self.center.dtype) - self.center) @ self.whitening  # [B, R]
        nearest = _squared_distances(whitened @ self.class_whitening, self.class_centers).amin(-1)
        overall = whitened.square().mean(-1)
        to_landmarks = _squared_distances(whitened, self.landmarks)  # [B, LANDMARKS]
        neighbors = to_landmarks.topk(NEIGHBORS, dim=-1, largest=False).values.mean(-1)
        return torch.log1p(nearest), torch.log1p(overall), torch.log1p(neighbors)


def _squared_distances(points: Tensor, centers: Tensor) -> Tensor:
    """Mean squared difference over features: [B, C] from [B, D] and [C, D]."""
    cross = points @ centers.T
    total = points.square().sum(-1, keepdim=True) - 2.0 * cross + centers.square().sum(-1)
    return total.clamp(min=0.0) / points.shape[-1]


def _principal(covariance: Tensor, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Eigenvalues [D], largest first, and eigenvectors [D, D] of a covariance [D, D], shrunk."""
    covariance = (1.0 - shrinkage) * covariance
    covariance += shrinkage * covariance.diagonal().mean().clamp(min=1e-6) * torch.eye(len(covariance)).to(covariance)
    values, vectors = torch.linalg.eigh(covariance)
    return values.flip(0).clamp(min=1e-12), vectors.flip(1)


def landmarks(embeddings: Tensor) -> Tensor:
    """Evenly spaced rows of the training embeddings: [LANDMARKS, D] from [N, D]."""
    return embeddings[torch.arange(LANDMARKS) * len(embeddings) // LANDMARKS]


@dataclass(frozen=True)
class ClassMoments:
    """Sums over labeled embeddings in double precision. Those of a part can be subtracted, faster than a new sum.

    counts: [C]; sums: [C, D] and products: [D, D] of the embeddings less `origin` [D], which lies near their mean.
    """

    counts: Tensor
    sums: Tensor
    products: Tensor
    origin: Tensor

    @classmethod
    def of(cls, embeddings: Tensor, labels: Tensor, classes: int, origin: Tensor) -> "ClassMoments":
        """embeddings: [N, D]; labels: int64 [N], 0 <= label < classes."""
        width = embeddings.shape[1]
        sums, products = origin.new_zeros(classes, width), origin.new_zeros(width, width)
        for rows, row_labels in zip(torch.split(embeddings, BLOCK), torch.split(labels, BLOCK), strict=True):
            centered = rows.double() - origin
            products.addmm_(centered.T, centered)
            sums.index_add_(0, row_labels, centered)
        return cls(torch.bincount(labels, minlength=classes).double(), sums, products, origin)

    def without(self, part: "ClassMoments") -> "ClassMoments":
        """The moments without those of a part with the same origin."""
        return ClassMoments(
            self.counts - part.counts, self.sums - part.sums, self.products - part.products, self.origin
        )

    def mean_and_scatter(self) -> tuple[Tensor, Tensor]:
        """Mean less the origin [D], and covariance [D, D]."""
        mean = self.sums.sum(0) / self.counts.sum()
        return mean, self.products / self.counts.sum() - torch.outer(mean, mean)

    def class_centers(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Class means minus `mean` [C, D], 0 for an empty class, and their covariance [D, D], weighted by counts."""
        centers = torch.where(self.counts[:, None] > 0, self.sums / self.counts[:, None].clamp(min=1) - mean, 0.0)
        return centers, centers.T @ (centers * self.counts[:, None]) / self.counts.sum()


def modality_statistics(embedding: Tensor, logits: Tensor, distance: EmbeddingDistance) -> Tensor:
    """The columns named in STATISTICS, unstandardized: [B, K] from an embedding [B, D] and logits [B, C]."""
    norm = torch.log1p(embedding.float().square().mean(-1))
    return torch.stack([predictive_entropy(logits), energy(logits), norm, *distance(embedding)], dim=-1)
