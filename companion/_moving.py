"""What every figure that moves is made of: rounded numbers, small images, and the output that holds both its forms."""

import io
from base64 import b64encode
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

MIME = "application/vnd.companion.figure+json"


def rounded(values, digits: int = 3):
    """Nested lists of rounded numbers."""
    values = torch.as_tensor(values, dtype=torch.double)
    if not values.isfinite().all():
        raise ValueError("A figure's numbers must be finite; these hold NaN or infinity.")
    return np.round(values.detach().cpu().numpy(), digits).tolist()


def show(kind: str, data: Mapping) -> None:
    """Show the current figure as SVG, and `data` with it."""
    from IPython.display import display

    buffer = io.StringIO()
    plt.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close()
    bundle = {"image/svg+xml": buffer.getvalue(), MIME: {"kind": kind, "data": dict(data)}}
    display({**bundle, "text/plain": f"<figure {kind}>"}, raw=True)


def png(image: Tensor, low: float, high: float) -> str:
    """A grey image (1, H, W), black at `low` and white at `high`, as the address of its own bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    pixels = ((image[0] - low) / (high - low) * 255).round().byte().cpu().numpy()
    Image.fromarray(pixels).save(buffer, "png", optimize=True)
    return "data:image/png;base64," + b64encode(buffer.getvalue()).decode()
