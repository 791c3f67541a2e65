"""A student outside its notebook: its size, its speed, ONNX, and eight bits by ONNX Runtime.

Times belong to the machine they were taken on. Compare them as ratios, taken in turn in one run (`latency`).
"""

import importlib
import logging
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .compress import _check_bits, _weights


def size_on_disk(model: nn.Module | str | Path, bits: int = 32) -> int:
    """Bytes: of a file as it lies there, or of a module's numbers, Σ ⌈numel · bits / 8⌉, without any container.

    Args:
        model: a path; or a module, whose parameters and buffers of real numbers are counted (as batch norm's averages).
        bits: of each weight of a `Linear` or `Conv2d`; what else there is (biases, batch norm) has 32, and a weight of
            fewer than 32 bits has a scale of 32 bits for each of its rows, as `quantized` stores it.

    Raises:
        ValueError: bits is no whole number from 2 to 32; weights that `quantized` or `pruned` is still at work on.
        FileNotFoundError: no such file.
    """
    _check_bits(bits, 32)
    if not isinstance(model, nn.Module):
        return Path(model).stat().st_size
    if any(parametrize.is_parametrized(layer) for layer in model.modules()):
        raise ValueError(
            "weights are still rounded or masked in each call: size_on_disk(settled(model), bits)."
        )
    few = {id(weight) for _, weight in _weights(model)}
    total = 0
    for x in [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]:
        rounded = id(x) in few and bits < 32
        total += -(-x.numel() * (bits if rounded else 32) // 8) + 4 * len(x) * rounded
    return total


@dataclass(frozen=True)
class Latency:
    """Milliseconds from input to output: the median, and the 10th and 90th of a hundred (`low`, `high`), of n calls."""

    median: float
    low: float
    high: float
    n: int


@torch.no_grad()
def latency(
    calls: Mapping[str, Callable],
    x: Tensor,
    *,
    rounds: int = 50,
    warm_up: int = 5,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Latency]:
    """How long each of `calls` takes for x, in ms: taken in turn, in an order drawn anew each round.

    Args:
        calls: name → what maps x to an answer: modules in eval mode, `OnnxModel`s, functions.
        x: (1, ...) for the latency of one input; (N, ...) for N at once, whose share is the median over N.
        rounds: calls that are counted. warm_up: calls before, which are not: the first ones find memory and caches cold.
        seed: of the order.
        clock: seconds. `time.thread_time` counts what this thread computes, and not the time it waits for others.

    Raises:
        ValueError: a module is in training mode; nothing to call; fewer than 10 rounds; no warm-up below 0.

    Threads are as they are set (`torch.set_num_threads`); with CUDA the device is waited for.
    """
    if not calls or rounds < 10 or warm_up < 0:
        raise ValueError(
            f"takes calls, 10 rounds at least and warm_up ≥ 0; got {len(calls)}, {rounds}, {warm_up}."
        )
    for name, call in calls.items():
        if isinstance(call, nn.Module):
            _check_eval(call, name)
    draw, times = random.Random(seed), {name: [] for name in calls}
    for i in range(warm_up + rounds):
        for name in draw.sample(list(calls), len(calls)):
            start = clock()
            calls[name](x)
            if x.is_cuda:
                torch.cuda.synchronize()
            if i >= warm_up:
                times[name].append(1e3 * (clock() - start))
    tenths = {name: quantiles(t, n=10, method="inclusive") for name, t in times.items()}
    return {name: Latency(t[4], t[0], t[8], rounds) for name, t in tenths.items()}


def export(model: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    """The operations and weights of a model as one object that needs no Python class: `torch.export`, any batch size.

    Args:
        model: in eval mode, on the CPU; returns one tensor for one tensor.
        x: an example (N, ...), float32; N is left free.

    Raises:
        TypeError: no module, no tensor, or an answer that is no tensor.
        ValueError: training mode; not on the CPU; weights, or the answer to x, with NaN or ∞; an empty x.
    """
    _check_model(model, x)
    x = (
        x if len(x) > 1 else torch.cat([x, x])
    ).contiguous()  # of one example the exporter would fix the number
    with _quiet():
        return torch.export.export(deepcopy(model), (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def export_onnx(model: nn.Module, x: Tensor, path: str | Path, *, tolerance: float = 1e-4) -> "OnnxModel":
    """Write a model as ONNX, any batch size, and compare what ONNX Runtime makes of it with the model itself.

    Args:
        model, x: as in `export`.
        path: of the .onnx file; weights are inside.
        tolerance: largest |difference| that is let pass, as a share of the largest |answer|, for x and for x[:1].

    Returns:
        The written file, ready to be asked.

    Raises:
        TypeError, ValueError: as `export`; or the answers differ by more than the tolerance.
        ImportError: onnx, onnxscript or onnxruntime is missing. The message says how to get them.
    """
    _needs("onnx", "onnxscript", "onnxruntime")
    program = export(model, x)
    with _quiet():
        torch.onnx.export(program, (), str(path), dynamo=True, external_data=False, verbose=False)
    written = OnnxModel(path)
    for part in (x, x[:1]):
        with torch.no_grad():
            right = model(part)
        off = (written(part) - right).abs().max() / right.abs().max()
        if not off <= tolerance:
            raise ValueError(
                f"ONNX Runtime's answers to {len(part)} inputs are {off:.2g} from the model's (relative to the largest), "
                f"more than {tolerance:g}: does the model branch on its input, or draw at random?"
            )
    return written


class OnnxModel:
    """An .onnx file, asked by ONNX Runtime on one thread of the CPU: model(x) gives a tensor for a tensor.

    Raises:
        FileNotFoundError: no such file. ImportError: onnxruntime is missing.
        ValueError: x is no float32 tensor on the CPU.
    """

    def __init__(self, path: str | Path):
        (runtime,) = _needs("onnxruntime")
        if not Path(path).exists():
            raise FileNotFoundError(f"{path} does not exist: write it with export_onnx(model, x, path).")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.path = Path(path)
        self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._name = self._session.get_inputs()[0].name

    def __call__(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor) or x.dtype != torch.float32 or x.device.type != "cpu":
            raise ValueError(
                f"takes a float32 tensor on the CPU; got {getattr(x, 'dtype', type(x).__name__)}."
            )
        (answer,) = self._session.run(None, {self._name: x.detach().contiguous().numpy()})
        return torch.from_numpy(answer)


def int8(model: OnnxModel, path: str | Path, calibration: Tensor | None = None) -> OnnxModel:
    """Eight bits a weight by ONNX Runtime's own quantiser, after training and without any training.

    Args:
        model: what `export_onnx` returned. path: of the new file.
        calibration: inputs (N, ...) as they will come, without labels. With them activations are 8-bit numbers as well,
            whose range is measured on these inputs (static). None measures the range anew in each call (dynamic): for
            networks of linear layers.

    Returns:
        The new file, ready to be asked. Its answers depend a little on the processor. Weights use 7 of the 8 bits:
        processors without VNNI instructions would overflow on all eight, without a word.

    Raises:
        ImportError: onnx or onnxruntime is missing. ValueError: the calibration inputs hold NaN, or there is none.
    """
    onnx, _ = _needs("onnx", "onnxruntime")
    from onnxruntime import quantization as q

    if calibration is None:
        network = onnx.load(model.path)
        # the weights' shapes stand there, too, and ONNX Runtime up to 1.23 turns the weights and then finds them wrong
        del network.graph.value_info[:]
        with _quiet():
            q.quantize_dynamic(network, path, weight_type=q.QuantType.QInt8, reduce_range=True)
        return OnnxModel(path)
    if len(calibration) == 0 or not calibration.isfinite().all():
        raise ValueError(f"calibration takes finite inputs, one or more; got {tuple(calibration.shape)}.")
    batches = iter([{model._name: part.contiguous().numpy()} for part in calibration.split(100)])

    class Reader(q.CalibrationDataReader):
        def get_next(self):
            return next(batches, None)

    with _quiet():
        q.quantize_static(
            model.path, path, Reader(), weight_type=q.QuantType.QInt8, per_channel=True, reduce_range=True
        )
    return OnnxModel(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice of exporter and quantiser on what is not asked here; errors still come through."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _check_eval(model: nn.Module, name: str = "the model") -> None:
    if any(part.training for part in model.modules()):
        raise ValueError(
            f"{name} is in training mode, where dropout and batch norm do other things: call .eval()."
        )


def _check_model(model: nn.Module, x: Tensor) -> None:
    if not isinstance(model, nn.Module) or not isinstance(x, Tensor):
        raise TypeError(
            f"takes an nn.Module and a tensor; got {type(model).__name__} and {type(x).__name__}."
        )
    _check_eval(model)
    kept = [*model.parameters(), *model.buffers(), x]
    if any(t.device.type != "cpu" for t in kept):
        raise ValueError("exports from the CPU: pass model.cpu() and x.cpu().")
    if not all(t.isfinite().all() for t in kept) or len(x) == 0:
        raise ValueError(
            "weights, buffers or x hold NaN or ∞, or x is empty: there is nothing to compare with."
        )
    with torch.no_grad():
        answer = model(x)
    if not isinstance(answer, Tensor):
        raise TypeError(
            f"the model returns a {type(answer).__name__}: wrap it so that it returns its logits alone."
        )
    if not answer.isfinite().all():
        raise ValueError("the model's answer to x holds NaN or ∞.")


def _needs(*packages: str) -> list:
    """The packages, imported; or an error that says how to get them."""
    try:
        return [importlib.import_module(name) for name in packages]
    except ImportError as error:
        raise ImportError(
            f"this needs {', '.join(packages)}, and {error.name} is not installed: pip install "
            '"companion[deploy]", or in a clone pip install ".[deploy]".'
        ) from error
