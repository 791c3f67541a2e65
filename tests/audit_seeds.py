"""Wrong losses as they are written, each beside the properties at fault; called as loss(s, t, y, T), or (…, mask)."""

import torch
import torch.nn.functional as F

SEEDS = {}
FREE = ("shapes", "faults", "teacher-gradient")  # what a plain F.kl_div has anyway, unless a seed is about it


def seed(*failed, **how):
    """Put the function into SEEDS: what is at fault, and how audit is told to call it."""

    def put(function):
        SEEDS[function.__name__] = (function, failed, how)
        return function

    return put


def fits(s, t):
    if s.shape != t.shape:
        raise ValueError(f"student {tuple(s.shape)} and teacher {tuple(t.shape)} differ.")
    return s, t.detach()


def log_pair(s, t, T=1.0):
    s, t = fits(s, t)
    return (t / T).log_softmax(-1), (s / T).log_softmax(-1)


def rows(log_p, log_q):
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def kl(s, t, T):
    return T * T * rows(*log_pair(s, t, T)).mean()


# -------------------------------------------------------------------------------------- the teacher


@seed("teacher-matters", "reduction")
def the_articles_loss(s, t, y, T):
    """Errata C1 to C3: both terms are of the labels, the second of probabilities divided by T."""
    q = s.softmax(-1)
    hard = -(q.log().gather(-1, y[:, None])).mean()
    soft = -((q / T).log().gather(-1, y[:, None])).mean()
    return hard + soft / T**2


@seed("teacher-matters")
def soft_term_detached(s, t, y, T):
    return 0.1 * F.cross_entropy(s, y) + 0.9 * kl(s, t, T).detach()


@seed("teacher-matters")
def soft_term_as_a_number(s, t, y, T):
    return 0.1 * F.cross_entropy(s, y) + 0.9 * kl(s, t, T).item()


@seed("teacher-matters")
def student_on_both_sides(s, t, y, T):
    return F.cross_entropy(s, y) + kl(s, s + 0 * t, T)


@seed("teacher-matters")
def teacher_beside_the_gradient(s, t, y, T):
    """A weight of 0 by integer division."""
    return F.cross_entropy(s, y) + (1 // 2) * kl(s, t, T)


@seed("student-gradient", "teacher-gradient")
def the_wrong_side_detached(s, t, y, T):
    return T * T * rows((t / T).log_softmax(-1), (s.detach() / T).log_softmax(-1)).mean()


@seed("student-gradient")
def by_item(s, t, y, T):
    return kl(s, t, T).item()


@seed("student-gradient")
def made_anew(s, t, y, T):
    return torch.tensor(float(kl(s, t, T)), requires_grad=True)


@seed("student-gradient")
def by_the_argmax(s, t, y, T):
    return (s.argmax(-1) != t.argmax(-1)).double().mean()


@seed("teacher-gradient")
def undetached(s, t, y, T):
    if s.shape != t.shape:
        raise ValueError("shapes")
    return T * T * rows((t / T).log_softmax(-1), (s / T).log_softmax(-1)).mean()


@seed("student-gradient", "teacher-gradient", call="loss(s, t, y, T)")
def student_and_teacher_swapped(teacher_logits, student_logits, y, T):
    """A well-made loss of (teacher, student), called by position with the two exchanged."""
    return kl(student_logits, teacher_logits, T)


# -------------------------------------------------------------------------------------- the temperature


@seed("temperature")
def only_the_student_softened(s, t, y, T):
    s, t = fits(s, t)
    return T * T * rows(t.log_softmax(-1), (s / T).log_softmax(-1)).mean()


@seed("temperature")
def only_the_teacher_softened(s, t, y, T):
    s, t = fits(s, t)
    return T * T * rows((t / T).log_softmax(-1), s.log_softmax(-1)).mean()


@seed("temperature")
def temperature_missing(s, t, y, T):
    return rows(*log_pair(s, t)).mean()


@seed("temperature")
def only_the_factor(s, t, y, T):
    return T * T * rows(*log_pair(s, t)).mean()


@seed("temperature")
def temperature_inverted(s, t, y, T):
    return rows(*log_pair(s, t, 1 / T)).mean()


@seed("temperature")
def divided_twice(s, t, y, T):
    return kl(s / T, t / T, T)


@seed("temperature")
def divides_by_T_squared(s, t, y, T):
    return kl(s, t, T) / T**4


@seed("temperature")
def factor_on_the_hard_term(s, t, y, T):
    return 0.1 * T**2 * F.cross_entropy(s, y) + 0.9 * kl(s, t, T) / T**2


@seed("temperature")
def factor_on_both(s, t, y, T):
    return T**2 * (0.1 * F.cross_entropy(s, y) + 0.9 * kl(s, t, T) / T**2)


@seed("temperature")
def hard_term_softened(s, t, y, T):
    return 0.1 * F.cross_entropy(s / T, y) + 0.9 * kl(s, t, T)


@seed("temperature")
def probabilities_divided(s, t, y, T):
    """The article's C2 with a teacher: dividing after the softmax adds log T, and softens nothing."""
    s, t = fits(s, t)
    p, q = t.softmax(-1), s.softmax(-1)
    return F.cross_entropy(s, y) + (p * (p.log() - (q / T).log())).sum(-1).mean()


# -------------------------------------------------------------------------------------- the divergence


@seed("divergence", divergence="forward KL")
def reversed_and_declared_forward(s, t, y, T):
    return T * T * rows(*reversed(log_pair(s, t, T))).mean()


@seed("divergence")
def reverse_kl_loss(s, t, y, T):
    """The name says reverse."""
    return kl(s, t, T)


@seed("divergence")
def jsd_loss(s, t, y, T):
    log_p, log_q = log_pair(s, t, T)
    return T * T * 0.5 * (rows(log_p, log_q) + rows(log_q, log_p)).mean()


@seed("divergence")
def softmax_twice(s, t, y, T):
    s, t = fits(s, t)
    return T * T * rows((t / T).softmax(-1).log_softmax(-1), (s / T).softmax(-1).log_softmax(-1)).mean()


@seed("divergence")
def softmax_then_log_softmax(s, t, y, T):
    s, t = fits(s, t)
    return T * T * rows((t / T).log_softmax(-1), (s / T).softmax(-1).log_softmax(-1)).mean()


@seed("divergence")
def softmax_before_cross_entropy(s, t, y, T):
    return 0.1 * F.cross_entropy(s.softmax(-1), y) + 0.9 * kl(s, t, T)


@seed("divergence")
def log_missing(s, t, y, T):
    s, t = fits(s, t)
    return T * T * F.kl_div((s / T).softmax(-1), (t / T).softmax(-1), reduction="none").sum(-1).mean()


@seed("divergence")
def log_of_both(s, t, y, T):
    """F.kl_div takes the teacher's probabilities: the logarithm of a logarithm is NaN."""
    log_p, log_q = log_pair(s, t, T)
    return T * T * F.kl_div(log_q, log_p, reduction="none").sum(-1).mean()


@seed("divergence")
def log_target_of_probabilities(s, t, y, T):
    log_p, log_q = log_pair(s, t, T)
    return T * T * F.kl_div(log_q, log_p.exp(), reduction="none", log_target=True).sum(-1).mean()


@seed("divergence")
def sign_turned(s, t, y, T):
    log_p, log_q = log_pair(s, t, T)
    return T * T * (log_q.exp() * (log_p - log_q)).sum(-1).mean()


@seed("divergence", "micro-batch")
def softmax_over_the_batch(s, t, y, T):
    s, t = fits(s, t)
    log_p, log_q = (t / T).log_softmax(0), (s / T).log_softmax(0)
    return T * T * (log_p.exp() * (log_p - log_q)).sum() / len(s)


@seed("divergence", "teacher-matters")
def k1_of_drawn_tokens(s, t, y, T):
    """y is drawn from the student: the value is the reverse KL on average, and the gradient 0."""
    log_p, log_q = (x.gather(-1, y[..., None]) for x in log_pair(s, t, T))
    return (log_q - log_p).mean()


@seed("divergence")
def k3_of_drawn_tokens(s, t, y, T):
    """The value is the reverse KL on average, the gradient the forward KL's."""
    log_p, log_q = (x.gather(-1, y[..., None]) for x in log_pair(s, t, T))
    return ((log_p - log_q).exp() - 1 - (log_p - log_q)).mean()


@seed("student-gradient")
def reverse_with_detached_weights(s, t, y, T):
    """Σ q (log q − log p) with q detached: the gradient of −H's other half, which is 0, is all that is left."""
    log_p, log_q = log_pair(s, t, T)
    return T * T * (log_q.exp().detach() * (log_q - log_p)).sum(-1).mean() + 0 * kl(s, t, T)


@seed("divergence")
def value_of_one_gradient_of_another(s, t, y, T):
    forward, reverse = kl(s, t, T), T * T * rows(*reversed(log_pair(s, t, T))).mean()
    return reverse.detach() + forward - forward.detach()


@seed("divergence")
def jsd_of_clamped_probabilities(s, t, y, T):
    p, q = (x.exp().clamp_min(1e-3) for x in log_pair(s, t, T))
    m = (p + q) / 2
    return T * T * 0.5 * (p * (p / m).log() + q * (q / m).log()).sum(-1).mean()


@seed("divergence")
def logits_as_probabilities(s, t, y, T):
    s, t = (x.clamp(1e-7, 1) for x in (x / T for x in fits(s, t)))
    return (t * (t / s).log()).sum(-1).mean()


# -------------------------------------------------------------------------------------- reduction


@seed("reduction")
def mean_over_classes(s, t, y, T):
    log_p, log_q = log_pair(s, t, T)
    return T * T * F.kl_div(log_q, log_p.exp(), reduction="mean")


@seed("reduction")
def summed(s, t, y, T):
    return T * T * rows(*log_pair(s, t, T)).sum()


@seed("reduction")
def batchmean_of_tokens(s, t, y, T):
    log_p, log_q = log_pair(s, t, T)
    return T * T * F.kl_div(log_q, log_p.exp(), reduction="batchmean")


@seed("reduction")
def softmax_over_positions(s, t, y, T):
    """dim=1 is the class of (N, C), and the position of (B, L, V)."""
    s, t = fits(s, t)
    log_p, log_q = (t / T).log_softmax(1), (s / T).log_softmax(1)
    return T * T * (log_p.exp() * (log_p - log_q)).sum(1).mean()


@seed("micro-batch")
def standardised_over_the_batch(s, t, y, T):
    s, t = ((x - x.mean(0)) / x.std(0) for x in fits(s, t))
    return kl(s, t, T)


@seed("micro-batch", "divergence")
def divided_by_its_own_value(s, t, y, T):
    loss = kl(s, t, T)
    return loss / loss.detach().clamp_min(1e-6)


# -------------------------------------------------------------------------------------- masks and shapes


@seed("mask")
def mask_by_a_product(s, t, y, T, mask):
    return (T * T * rows(*log_pair(s, t, T)) * mask).sum() / mask.sum().clamp_min(1)


@seed("mask")
def mean_over_padding(s, t, y, T, mask):
    return torch.where(mask, T * T * rows(*log_pair(s, t, T)), 0).mean()


@seed("mask", "reduction")
def mean_of_the_texts_means(s, t, y, T, mask):
    if s.dim() == 2:
        s, t, mask = s[:, None], t[:, None], mask[:, None]
    each = torch.where(mask, T * T * rows(*log_pair(s, t, T)), 0).sum(-1) / mask.sum(-1).clamp_min(1)
    return each.mean()


@seed("mask")
def mask_ignored(s, t, y, T, mask):
    return kl(s, t, T)


@seed("mask", "student-gradient")
def mask_turned_round(s, t, y, T, mask):
    return torch.where(mask, 0, T * T * rows(*log_pair(s, t, T))).sum() / (~mask).sum().clamp_min(1)


@seed("shapes")
def broadcast(s, t, y, T):
    """Everything right, and no look at the shapes."""
    return T * T * rows((t.detach() / T).log_softmax(-1), (s / T).log_softmax(-1)).mean()


@seed("shapes")
def squared_error_broadcast(s, t, y, T):
    return (s - t.detach()).square().sum(-1).mean()


@seed("faults")
def half_precision_overflows(s, t, y, T):
    """Exponentials in the input's own precision, without the maximum taken off."""
    s, t = fits(s, t)
    p, q = ((x / T).exp() / (x / T).exp().sum(-1, keepdim=True) for x in (t, s))
    return T * T * (p * (p.log() - q.log())).sum(-1).mean()
