"""From encoded photos to the tensors a model takes; training and scoring both come through here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from vlm_tune.images import decode

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["image_tensors", "prepare", "to_model", "to_tensor"]

_SMALL = 65_536
"""Bytes of a photo up to which a journey to the GPU of its own costs more than the bytes do."""

_SHAPES = {"image_grid_thw", "spatial_shapes"}
"""Read by Python code, which would make a GPU wait."""


def prepare(
    processor: ProcessorMixin,
    images: Sequence[bytes | Image | Tensor],
    texts: Sequence[str],
    *,
    padding_side: Literal["left", "right"] = "left",
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """Return the model's inputs for a batch of photos with one prompt each.

    Args:
        processor: The model's own processor.
        images: Photos, one per text: encoded, decoded, or as `to_tensor` returns them.
        texts: Rendered prompts, each with one placeholder for its photo.
        padding_side: Where shorter rows are filled up. Left keeps the ends of all prompts in one column,
            where the answers begin.
        device: Where photos are resized and cut into patches, and where their patches stay.

    Returns:
        `input_ids` and `attention_mask` of shape (len(texts), longest) on the CPU, and whatever pixel tensors the
        architecture has.

    Raises:
        ImageError: A photo cannot be decoded.
        ValueError: The processor refuses a photo, e.g. one 200 times as wide as high.
    """
    start = processor.tokenizer.bos_token
    photos = [[decode(image) if isinstance(image, bytes) else image] for image in images]
    with _refusals():
        inputs = processor(
            images=photos,
            text=list(texts),
            padding=True,
            padding_side=padding_side,
            # Some chat templates already write the first token; a second one would change the question.
            add_special_tokens=not (start and texts[0].startswith(start)),
            return_tensors="pt",
            **_where(device),
        )
    return _without_empty_patches(dict(inputs))


def to_tensor(image: Image | NDArray[np.uint8], *, pinned: bool = False) -> Tensor:
    """Return a decoded photo as bytes of shape (3, height, width), in memory still row by row and pixel by pixel.

    Args:
        image: The photo.
        pinned: Put it where a GPU can fetch it from, unless it is small.
    """
    import numpy as np
    import torch

    pixels = np.asarray(image)
    made = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=pinned and pixels.nbytes > _SMALL)
    # Straight there: copies of large photos cost more than decoding them, in many threads at once.
    made.numpy()[:] = pixels
    return made.permute(2, 0, 1)


def image_tensors(
    processor: ProcessorMixin, images: Sequence[Tensor], *, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """Return the pixel tensors of a batch of decoded photos, the same as `prepare` makes of them.

    Args:
        processor: The model's own processor.
        images: Decoded photos; see `to_tensor`.
        device: Where they are resized and cut into patches; grids and shapes stay on the CPU.

    Raises:
        ValueError: The processor refuses a photo.
    """
    there = [[image] for image in _on(device, images)]
    with _refusals():
        made = processor.image_processor(there, return_tensors="pt", **_where(device))
    tensors = {name: value for name, value in made.items() if hasattr(value, "nbytes")}
    for name in _SHAPES.intersection(tensors):
        tensors[name] = tensors[name].cpu()
    return _without_empty_patches(tensors)


@contextmanager
def _refusals() -> Iterator[None]:
    """Make an error of shapes inside the block a refusal: not every processor looks at a photo before it starts."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except RuntimeError as error:
        # On a processor torch has no class of its own for it.
        if "can't allocate memory" in str(error):
            raise
        raise ValueError(f"the processor fails ({error}); if the photo is very long and narrow, crop it") from error


def _on(device: torch.device | str, images: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return decoded photos on a device, their colours apart."""
    import torch

    if images[0].nbytes <= _SMALL and len({image.shape for image in images}) == 1:
        return torch.stack(list(images)).contiguous().to(device).unbind()
    # One by one, and without waiting for each: the processor would wait. Colours are put apart there, not in the
    # threads that read, each of which would share that work with all others.
    return [image.to(device, non_blocking=True).contiguous() for image in images]


def _where(device: torch.device | str) -> dict[str, str]:
    # Said only where it matters: not every processor knows the word.
    return {} if str(device) == "cpu" else {"device": str(device)}


def to_model(inputs: dict[str, Tensor], model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the inputs on the model's device, pixels in the model's type."""
    return {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in inputs.items()
    }


def _without_empty_patches(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    # LFM2-VL's processor fills every photo up to the largest it could ever see; the model masks that again.
    # Cutting the columns that are empty in the whole batch changes no value and saves most of the work.
    if "pixel_attention_mask" in inputs and "spatial_shapes" in inputs:
        longest, most = int(inputs["spatial_shapes"].prod(-1).max()), inputs["pixel_attention_mask"].shape[1]
        if longest > most:
            raise ValueError(f"the photo is very long and narrow: {longest} patches, and {most} is the most; crop it")
        for name in ("pixel_values", "pixel_attention_mask"):
            inputs[name] = inputs[name][:, :longest].contiguous()
    return inputs
