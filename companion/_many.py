"""What `training.fit_many` needs beside the loop: students of one kind as one stack of weights."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from ._device import ask, one_tensor
from ._refuse import check_student
from .models import MLP


def each(name: str, value, n: int) -> list:
    """A list of n: the list that was given, or one value n times."""
    if not isinstance(value, list | tuple):
        return [value] * n
    if len(value) != n:
        raise ValueError(f"{len(value)} {name} for {n} students: give one for all, or one for each.")
    return list(value)


def check_sizes(splits: list, batch_size: int) -> None:
    """Refuse batches that cannot be stacked."""
    sizes = sorted(map(len, splits))
    if min(batch_size, sizes[0]) < min(batch_size, sizes[-1]):
        raise ValueError(
            f"splits of {sizes} examples give batches of different sizes: take batch_size = {sizes[0]} or less."
        )


def check_alike(students: Sequence[nn.Module], teachers: list) -> None:
    """Refuse students that one stack cannot hold, or that could not be what `fit` makes of them."""
    if not students or len({id(student) for student in students}) < len(students):
        raise ValueError("takes a list of students, each a module of its own; got none, or one twice.")
    owner = {}
    for i, student in enumerate(students):
        check_student(student, *teachers)
        for name, x in _state(student):
            if owner.setdefault(id(x), i) != i:
                raise ValueError(
                    f"students {owner[id(x)]} and {i} share {name}: each needs weights of its own, copy.deepcopy(…)."
                )
    for i, student in enumerate(students):
        if str(student) != str(students[0]) or _shapes(student) != _shapes(students[0]):
            raise ValueError(
                f"student {i} is not built like student 0: train each kind in a call of its own.\n"
                f"0: {students[0]}\n{i}: {student}"
            )
        for (name, x), (_, first) in zip(_state(student), _state(students[0]), strict=True):
            if x.requires_grad != first.requires_grad:
                raise ValueError(
                    f"{name} is frozen in student 0 or in student {i} and not in the other: call `fit` for each."
                )
        constants = _constants(students[0])
        for name, x in _constants(student).items():
            first = constants.get(name, x)
            if not _equal(x, first):
                raise ValueError(
                    f"student {i} has {name} = {_shown(x)} and student 0 {_shown(first)}, by which all of them would "
                    "run: call `fit` for each, or make it a part of the state, register_buffer(name, torch.tensor(…))."
                )
    drawn = [m for m in students[0].modules() if getattr(m, "p", 0) and "Dropout" in type(m).__name__]
    if drawn:
        raise ValueError(
            f"{drawn[0]} draws at random, and many at once do not draw as each alone: use `fit`."
        )


@torch.no_grad()
def check_outputs(students: Sequence[nn.Module], state: dict, forward: Callable, x: Tensor) -> None:
    """Refuse a stack that does not answer to a first batch x (M, N, ...) as each student does alone.

    What a module holds beside its state (a function, a depth, a hook) is student 0's for all. Asked on a copy of
    the state, since batch norm moves its averages.
    """
    kept = {name: value.clone() for name, value in state.items()}
    together = forward(x)
    for i, student in enumerate(students):
        own = {name: value[i].clone() for name, value in kept.items()}
        alone = one_tensor(ask(student, x[i], lambda x, m=student, own=own: functional_call(m, own, (x,))))
        apart = (alone - together[i]).abs().max()
        if apart > torch.finfo(alone.dtype).eps ** 0.4 * alone.abs().max():
            raise ValueError(
                f"student {i} alone and among the others gives outputs {apart:.2g} apart: something in it beside its "
                "weights differs from student 0, or a hook or a forward of its own is passed over. Call `fit` for each."
            )
    for name, value in state.items():
        value.copy_(kept[name])


def stack(students: Sequence[nn.Module]) -> tuple[dict, Callable[[Tensor], Tensor]]:
    """Parameters and buffers by name, (M, ...) each, and a function from x (M, N, ...) to logits (M, N, C)."""
    model = students[0]
    for student in students:
        student.train()
    weights, buffers = stack_module_state(list(students))
    if type(model) is MLP and not _altered(
        model
    ):  # batched matrices: four times as fast as vmap where the layers are small
        return weights, lambda x: ask(model, x, lambda x: _mlp(weights, x.flatten(2)))

    def one(weights, buffers, x):
        return functional_call(model, (weights, buffers), (x,))

    def all_of_them(x):
        try:
            return vmap(one)(weights, buffers, x)
        except RuntimeError as error:
            if "vmap" not in str(error) and "Batching rule" not in str(error):
                raise
            first = str(error).partition("\n")[0]
            raise ValueError(
                "something in these students cannot be done for many at once (random draws, fake quantisation, batch "
                f"norm without momentum): call `fit` for each. PyTorch says: {first}"
            ) from error

    # In training mode batch norm moves the running averages in `buffers`, those of each student by its own batch.
    return {**weights, **buffers}, lambda x: one_tensor(ask(model, x, all_of_them))


@torch.no_grad()
def unstack(state: dict, students: Sequence[nn.Module]) -> None:
    """Put the stack's weights back into the students, and the students into eval mode."""
    for i, student in enumerate(students):
        for name, own in [*student.named_parameters(), *student.named_buffers()]:
            own.copy_(state[name][i])
        student.eval()


def _mlp(weights: dict, x: Tensor) -> Tensor:
    last = len(weights) // 2 - 1
    for i in range(last + 1):
        W, b = weights[f"layers.{i}.weight"], weights[f"layers.{i}.bias"]
        x = torch.baddbmm(b[:, None], x, W.mT)
        x = x if i == last else x.relu()
    return x


def _altered(model: MLP) -> bool:
    """Whether a layer is no longer a plain linear one (spectral norm, another layer in its place)."""
    return any(
        type(layer) is not nn.Linear or {name for name, _ in layer.named_parameters()} != {"weight", "bias"}
        for layer in model.layers
    )


def _state(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _shapes(model: nn.Module) -> list:
    return [(name, x.shape, x.dtype) for name, x in _state(model)]


def _constants(model: nn.Module) -> dict[str, float | Tensor]:
    """Real numbers and tensors that the modules hold beside parameters and buffers."""
    return {
        f"{path}.{name}".lstrip("."): value
        for path, part in model.named_modules()
        for name, value in sorted(vars(part).items())
        if isinstance(value, float | Tensor)
    }


def _equal(a: float | Tensor, b: float | Tensor) -> bool:
    a, b = (torch.as_tensor(x).detach() for x in (a, b))
    return a.shape == b.shape and bool((a == b.to(a.device)).all())


def _shown(x: float | Tensor) -> str:
    return f"a tensor {tuple(x.shape)}" if isinstance(x, Tensor) and x.dim() else str(x)
