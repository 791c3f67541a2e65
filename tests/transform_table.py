"""The losses under PyTorch's transforms: what works gives the plain call's numbers, what does not says so.

python -m tests.transform_table     # prints the table, transforms × losses
"""

import warnings

import torch
from torch.autograd import forward_ad

from companion import losses, tokens

GENERATOR = torch.Generator().manual_seed(0)
Z, V = 3 * torch.randn(2, 6, 5, generator=GENERATOR, dtype=torch.double)
V[:3] = Z[:3] + 1e-3 * V[:3]  # some rows nearly agree
Z[4, 1] = 300.0  # and in one, e^u overflows
ALONG = torch.randn(6, 5, generator=GENERATOR, dtype=torch.double)
Y, MASK = torch.arange(6) % 5, torch.arange(6) != 2
P, INDEX = V.softmax(-1).topk(3, -1)
LOSSES = {
    "kd_loss": lambda z: losses.kd_loss(z, V, 2.0, MASK),
    "distillation_loss": lambda z: losses.distillation_loss(z, V, Y.where(MASK, -100), mask=MASK),
    "logit_mse_loss": lambda z: losses.logit_mse_loss(z, V, True, MASK),
    "dkd_loss": lambda z: losses.dkd_loss(z, V, Y),
    "dist_loss": lambda z: losses.dist_loss(z, V, 2.0),
    "standardized_kd_loss": lambda z: losses.standardized_kd_loss(z, V, mask=MASK),
    "wttm_loss": lambda z: losses.wttm_loss(z, V, 2.0, MASK),
    "normkd_loss": lambda z: losses.normkd_loss(z, V, mask=MASK),
    "rld_loss": lambda z: losses.rld_loss(z, V, Y),
    "forward_kl_loss": lambda z: tokens.forward_kl_loss(z, V, denominator=9),
    "reverse_kl_loss": lambda z: tokens.reverse_kl_loss(z, V, mask=MASK),
    "generalized_jsd_loss": lambda z: tokens.generalized_jsd_loss(z, V, 0.3, mask=MASK),
    "skew_kl_loss": lambda z: tokens.skew_kl_loss(z, V),
    "sparse_kd_loss": lambda z: tokens.sparse_kd_loss(z, INDEX, P, mask=MASK, tail=True),
}


def plain(loss, z):
    z = z.clone().requires_grad_()
    value = loss(z)
    value.backward()
    return value.detach(), z.grad


def compiled(loss):
    """In one graph; aot_eager traces value and gradient as the default backend does, and needs no compiler."""
    torch._dynamo.reset()
    whole = torch.compile(loss, fullgraph=True, backend="aot_eager")
    return [(plain(whole, Z), plain(loss, Z))]


def exported(loss):
    class Module(torch.nn.Module):
        def forward(self, z):
            return loss(z)

    program = torch.export.export(Module(), (Z,)).module()
    return [(program(Z - 1), loss(Z - 1))]


def vmapped(loss):
    pair = torch.stack([Z, ALONG])
    values = torch.stack([loss(z) for z in pair])
    slopes = torch.stack([plain(loss, z)[1] for z in pair])
    return [(torch.func.vmap(loss)(pair), values), (torch.func.vmap(torch.func.grad(loss))(pair), slopes)]


def pushed(loss):
    slope = plain(loss, Z)[1]
    along = (slope * ALONG).sum()
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(loss(forward_ad.make_dual(Z, ALONG))).tangent
    return [
        (torch.func.jvp(loss, (Z,), (ALONG,))[1], along), (dual, along), (torch.func.jacfwd(loss)(Z), slope),
    ]  # fmt: skip


def pulled(loss):
    slope = plain(loss, Z)[1]
    return [(torch.func.grad(loss)(Z), slope), (torch.func.jacrev(loss)(Z), slope)]


def twice(loss):
    z = Z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(z), z, create_graph=True)
    return [(torch.autograd.grad(slope.sum(), z)[0], None)]


WAYS = {
    "torch.compile, fullgraph": compiled,
    "torch.export": exported,
    "func.grad, jacrev": pulled,
    "vmap": vmapped,
    "jvp, jacfwd, forward mode": pushed,
    "double backward": twice,
    "func.hessian": lambda loss: [(torch.func.hessian(loss)(Z), None)],
    "grad of grad": lambda loss: [(torch.func.grad(lambda z: torch.func.grad(loss)(z).sum())(Z), None)],
    "grad of jvp": lambda loss: [
        (torch.func.grad(lambda z: torch.func.jvp(loss, (z,), (ALONG,))[1])(Z), None)
    ],
    "jvp of grad": lambda loss: [(torch.func.jvp(torch.func.grad(loss), (Z,), (ALONG,))[1], None)],
}
REFUSED = {"double backward", "func.hessian", "grad of grad", "grad of jvp", "jvp of grad"}


def outcome(way: str, loss: str) -> str:
    """ "✓" where it gives the plain call's numbers, "refused" where an error names the way round."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pairs = WAYS[way](LOSSES[loss])
        except RuntimeError as error:
            return (
                "refused"
                if "differentiated once" in str(error) and "F.kl_div" in str(error)
                else f"✗ {error}"
            )
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    return "✓"


def table() -> str:
    """What each loss does under each transform."""
    letters = [chr(97 + i) for i in range(len(LOSSES))]
    lines = [" " * 27 + " ".join(letters)]
    for way in WAYS:
        found = [outcome(way, loss) for loss in LOSSES]
        marks = [{"✓": "✓", "refused": "–"}.get(each, "✗") for each in found]
        lines.append(f"{way:27}" + " ".join(marks))
    return "\n".join(
        [*lines, "", *(f"{letter} {loss}" for letter, loss in zip(letters, LOSSES, strict=True))]
    )


if __name__ == "__main__":
    print(table())
