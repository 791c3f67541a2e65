"""Each loss from its definition, in plain PyTorch: what values and gradients are compared with, in float64.

A definition is called as f(z, v, T, y): student logits or features, teacher's, temperature, labels. It returns
one value a row, or a scalar where it relates the examples of a batch. It shares no code with the losses.
"""

import math

import torch
import torch.nn.functional as F


def kl(log_p, log_q):
    return torch.where(log_p > -math.inf, log_p.exp() * (log_p - log_q), 0).sum(-1)


def kd(z, v, T, y):
    return T * T * kl((v / T).log_softmax(-1), (z / T).log_softmax(-1))


def distillation(z, v, T, y):
    return 0.1 * F.cross_entropy(z, y, reduction="none") + 0.9 * kd(z, v, T, y)


def square(z, v, T, y):
    return (z - v).square().sum(-1)


def centred(z, v, T, y):
    return square(z - z.mean(-1, keepdim=True), v - v.mean(-1, keepdim=True), T, y)


def dkd(z, v, T, y):
    """eq. 7 of the paper, from probabilities: α = 1, β = 8."""
    log_p, log_q = (v / T).log_softmax(-1), (z / T).log_softmax(-1)
    target = F.one_hot(y, z.shape[-1]).bool()
    others = [x[~target].view(len(z), -1) for x in (log_p, log_q)]
    binary = [
        torch.stack([x[target], o.logsumexp(-1)], -1) for x, o in zip((log_p, log_q), others, strict=True)
    ]
    return T * T * (kl(*binary) + 8 * kl(*(o.log_softmax(-1) for o in others)))


def standardized(z, v, T, y):
    z, v = ((x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-7) for x in (z, v))
    return kd(z, v, T, y)


def wttm(z, v, T, y):
    """The teacher's probabilities to the power 1/T, and their sum as the weight."""
    powers = v.softmax(-1) ** (1 / T)
    weight = powers.sum(-1)
    return weight * kl((powers / weight[:, None]).log(), z.log_softmax(-1))


def normkd(z, v, T, y):
    """Each row has its own temperature on each side; a row of equal logits has none, and is left flat."""
    own = [(T * x.std(-1, keepdim=True)).clamp_min(1e-300) for x in (z, v)]
    log_q, log_p = ((x / t).log_softmax(-1) for x, t in zip((z, v), own, strict=True))
    return own[1].squeeze(-1) ** 2 * kl(log_p, log_q)


def one_and_rest(x, c, T):
    """(log p_c, log of what is left) of each row."""
    chosen = F.one_hot(c, x.shape[-1]).bool()
    log_p = (x / T).log_softmax(-1)
    return torch.stack([log_p[chosen], log_p.masked_fill(chosen, -math.inf).logsumexp(-1)], -1)


def sample_confidence(z, v, T, y):
    """SCD of RLD, without T²: the teacher's first class against its rest, beside the student's label against its rest."""
    return kl(one_and_rest(v, v.argmax(-1), T), one_and_rest(z, y, T))


def masked_correlation(z, v, T, y):
    """MCD of RLD, without T²: the classes that the teacher ranks below the label, row by row."""
    made = []
    for z_i, v_i, c in zip(z, v, y, strict=True):
        below = v_i < v_i[c]
        some = bool((v_i[below] > -math.inf).any())
        made.append(kl(*((x[below] / T).log_softmax(-1) for x in (v_i, z_i))) if some else 0 * z_i.sum())
    return torch.stack(made) if made else z.sum(-1)


def rld(z, v, T, y):
    """α = 1, β = 8. Classes are compared as the teacher's logits rank them."""
    return T * T * (sample_confidence(z, v, T, y) + 8 * masked_correlation(z, v, T, y))


def unit(x):
    x = x - x.mean(-1, keepdim=True)
    size = x.norm(dim=-1, keepdim=True)
    return torch.where(size > 1e-14, x / size.clamp_min(1e-14), 0)


def dist(z, v, T, y):
    """Pearson's correlation as a cosine; a vector of equal entries has none and is taken as 0."""
    q, p = (z / T).softmax(-1), (v / T).softmax(-1)
    far = [(unit(a) - unit(b)).square().sum(-1).div(2).mean() for a, b in ((q, p), (q.T, p.T))]
    return T * T * sum(far)


def reverse(z, v, T, y):
    return kd(v, z, T, y)


def log_mixture(log_p, log_q, beta):
    return torch.logaddexp(log_p + math.log(beta), log_q + math.log(1 - beta))


def jsd(beta):
    def rows(z, v, T, y):
        log_p, log_q = (v / T).log_softmax(-1), (z / T).log_softmax(-1)
        log_m = log_mixture(log_p, log_q, beta)
        return T * T * (beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m))

    return rows


def skew(z, v, T, y):
    log_p, log_q = (v / T).log_softmax(-1), (z / T).log_softmax(-1)
    return T * T * kl(log_p, log_mixture(log_p, log_q, 0.1))


def stored(v, T, k=6):
    """The k most probable tokens and their probabilities, as a teacher's outputs are stored."""
    p, index = (v.float() / T).nan_to_num(0).softmax(-1).topk(min(k, v.shape[-1]), -1)
    return index, p


def sparse(z, v, T, y):
    index, p = stored(v, T)
    p = p.double()
    return T * T * (torch.xlogy(p, p) - p * (z / T).log_softmax(-1).gather(-1, index)).sum(-1)


def uld(z, v, T, y):
    q, p = (x.softmax(-1).sort(dim=-1, descending=True, stable=True).values for x in (z, v))
    return (p - q).abs().sum(-1)


def attention(z, v, T, y):
    z, v = (x.square().sum(1).flatten(1) for x in (z, v))
    return (F.normalize(z) - F.normalize(v)).norm(dim=1)


def similarity(z, v, T, y):
    z, v = (F.normalize(x @ x.T) for x in (z, v))
    return (z - v).square().mean()


def huber(x):
    return torch.where(x.abs() < 1, x * x / 2, x.abs() - 0.5)


def distances(x):
    d = (x[:, None] - x).square().sum(-1)
    d = torch.where(d > 0, d.clamp_min(1e-300).sqrt(), 0)
    return d / d.sum().clamp_min(1e-300) * len(x) * (len(x) - 1)


def rkd_distance(z, v, T, y):
    return huber(distances(z) - distances(v)).mean()


def angles(x):
    e = F.normalize(x[:, None] - x, dim=-1, eps=1e-300)
    return torch.einsum("ijd,kjd->ijk", e, e)


def rkd_angle(z, v, T, y):
    return huber(angles(z) - angles(v)).mean()


def contrastive(z, v, T, y):
    cosine = F.normalize(z) @ F.normalize(v).T / T
    own = torch.arange(len(z))
    return (F.cross_entropy(cosine, own) + F.cross_entropy(cosine.T, own)) / 2
