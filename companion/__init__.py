"""The small package under the book: losses, models, training, metrics and checks for distillation."""

import importlib
import os

import torch

__version__ = "0.1.0"
_MODULES = (
    "adaptive",
    "audit",
    "checks",
    "compress",
    "costs",
    "data",
    "deploy",
    "features",
    "frames",
    "fused",
    "generation",
    "interactive",
    "losses",
    "metrics",
    "models",
    "plotting",
    "remote",
    "scaling",
    "speculative",
    "stored",
    "teachers",
    "tokens",
    "training",
    "variants",
    "vocabulary",
)


def __getattr__(name: str):
    """`companion.losses` and the other modules, imported when they are first asked for."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(
        f"module 'companion' has no attribute {name!r}. Its modules are {', '.join(_MODULES)}; a loss is imported "
        "from its module: from companion.losses import distillation_loss."
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


def book_seed() -> int:
    """The environment variable BOOK_SEED (default 0), which shifts every seed in the book.

    Raises:
        ValueError: it is not a whole number of 0 or more.
    """
    text = os.environ.get("BOOK_SEED", "0")
    if not text.isdecimal():
        raise ValueError(f"BOOK_SEED is a whole number of 0 or more; got {text!r}.")
    return int(text)


def seeds(n: int) -> list[int]:
    """n seeds, one for each repetition: 0 … n−1, shifted by 1000 · BOOK_SEED.

    Raises:
        ValueError: n is no whole number, 1 or more.
    """
    importlib.import_module("companion._input").whole(
        "number of seeds", n
    )  # here, as all modules: when asked for
    return [1000 * book_seed() + i for i in range(n)]


def device() -> torch.device:
    """Where models are trained and asked: a GPU (CUDA or ROCm) where there is one, else the CPU.

    The environment variable BOOK_DEVICE, if it is set, names the device instead: BOOK_DEVICE=cpu. Apple's GPU is
    taken only so (mps): it has no double precision.

    Raises:
        ValueError: BOOK_DEVICE names no device, or one that this machine does not have.
    """
    name = os.environ.get("BOOK_DEVICE")
    if not name:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].removesuffix(".")
        raise ValueError(
            f"BOOK_DEVICE={name!r} cannot be used here: {reason}. Leave it unset, or name a device that this "
            "machine has, such as cpu, cuda, cuda:1 or mps."
        ) from error
    return torch.device(name)


def setup() -> None:
    """Make a chapter repeatable: the book's figure style, the global seed, one thread, a GPU as exact as the CPU."""
    from .plotting import use_style

    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # convolutions in single precision; PyTorch's default has 10 bits
    torch.backends.cudnn.deterministic = True
    torch.manual_seed(book_seed())
    use_style()
