"""TRL's `SFTTrainer` with this library's batches: one optimizer step at a time, quiet, without waiting for the GPU."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vlm_tune import _console, _processes
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.running.distributed import add_gradients
from vlm_tune.training.running.failures import explained, out_of_memory
from vlm_tune.training.running.objective import Answers, answer_loss
from vlm_tune.training.running.steps import Row, Step, Steps, chunks

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch.utils.data import DataLoader
    from transformers import ProcessorMixin, TrainerCallback
    from trl import SFTConfig, SFTTrainer

__all__ = ["Forward", "Loss", "make_trainer"]


class Forward(Protocol):
    """A way to put examples through the model: `stock.Stock` or `fast.Fast`."""

    def coming(self, rows: Sequence[Row]) -> None:
        """Begin with the photos of examples that will be asked for."""

    def answers(self, model: Any, rows: Sequence[Row]) -> Answers:
        """Return what the model says at the answers of some examples."""

    def close(self) -> None:
        """End what was begun."""


class Loss:
    """The loss of one optimizer step and its gradients, in as many passes as memory takes.

    Args:
        forward: How examples go through the model.
        config: The training configuration.
        num_tokens: Returns the trained tokens of an example; see `Batches.num_tokens`.
        micro_batch_size: Most examples of one pass; halved, once told, when memory runs out.
        in_step: Whether all processes must make the same passes, so that none may try again alone.
    """

    def __init__(
        self,
        forward: Forward,
        config: TrainConfig,
        *,
        num_tokens: Callable[[Row], float],
        micro_batch_size: int,
        in_step: bool = False,
    ) -> None:
        self._forward, self._config, self._num_tokens = forward, config, num_tokens
        self.micro_batch_size = micro_batch_size
        self._in_step = in_step
        self.last: tuple[Step, torch.Tensor] | None = None

    def backward(self, step: Step, model: Any, accelerator: Any) -> torch.Tensor:
        """Add the step's gradients, of all processes, to the parameters', and return this one's share of its loss.

        Raises:
            TrainingError: One example alone needs too much memory; the message proposes settings.
        """
        import torch

        while True:
            try:
                loss = self._backward(step, model, accelerator)
                break
            except RuntimeError as error:
                if not out_of_memory(error) or self.micro_batch_size == 1 or self._in_step:
                    now = self._config.model_copy(update={"micro_batch_size": self.micro_batch_size})
                    with explained(now, str(accelerator.device)):
                        raise
            # Out of the handler, whose traceback would keep the tensors alive. Nothing of the pass is kept.
            self.micro_batch_size = -(-min(self.micro_batch_size, len(step.rows)) // 2)
            model.zero_grad()
            gc.collect()
            torch.cuda.empty_cache()
            _console.notice(
                f"Not enough memory: going on with {self.micro_batch_size} examples at a time, "
                f"still {self._config.batch_size} a step."
            )
        # Once a step, and only when it has come off: memory may run out in one process alone.
        add_gradients(model.parameters())
        self.last = step, loss
        return loss

    def _backward(self, step: Step, model: Any, accelerator: Any) -> torch.Tensor:
        num_tokens = sum(map(self._num_tokens, step.everyone))
        total: Any = 0.0
        for part in chunks(step.rows, self.micro_batch_size):
            with accelerator.autocast():
                answers = self._forward.answers(model, part)
            loss = answer_loss(answers, num_tokens=num_tokens, label_smoothing=self._config.label_smoothing)
            accelerator.backward(loss)
            total = total + loss.detach()
        result: torch.Tensor = total
        return result


class _Anything:
    """A data set whose items are what it is asked for: the sampler knows everything about a step."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, item: Step) -> Step:
        return item


def make_trainer(
    model: PeftModel,
    args: SFTConfig,
    *,
    processor: ProcessorMixin,
    steps: Steps,
    loss: Loss,
    groups: Callable[[], list[dict[str, Any]]],
    callback: TrainerCallback,
    saving: Callable[[Path, bool], AbstractContextManager[None]],
) -> SFTTrainer:
    """Return a trainer that is ready to train.

    Args:
        model: The model wrapped by PEFT.
        args: TRL's settings.
        processor: The model's processor; checkpoints do not need it, TRL does.
        steps: What each optimizer step takes.
        loss: What it minimises.
        groups: Returns the optimizer's parameter groups.
        callback: Is told of everything.
        saving: Returns what goes around the writing of a checkpoint, and raises if there is nothing worth keeping;
            called with its folder, and whether this is the first process.
    """
    import torch
    from datasets import Dataset
    from torch.utils.data import DataLoader
    from transformers import PrinterCallback
    from trl import SFTTrainer

    bare = model.get_base_model()

    class QuietTrainer(SFTTrainer):  # type: ignore[misc]
        """SFTTrainer without side effects: no ping to a server, no model card, no counting of parameters."""

        optimizer: Any

        def _send_telemetry(self) -> None:
            pass

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            pass

        def floating_point_ops(self, inputs: Any) -> int:
            return 0

        def get_train_dataloader(self) -> DataLoader[dict[str, Step]]:
            return DataLoader(
                _Anything(len(steps) * args.per_device_train_batch_size),  # type: ignore[arg-type]
                batch_sampler=steps,
                collate_fn=lambda batch: {"step": batch[0]},
            )

        def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
            fused = args.device.type == "cuda"
            optimizer = torch.optim.AdamW(groups(), lr=args.learning_rate, fused=fused)
            self.optimizer = optimizer
            return optimizer

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            folder = Path(args.output_dir) / f"checkpoint-{self.state.global_step}"
            with saving(folder, self.is_world_process_zero()):
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()

        def _clip_grad_norm(self, model: Any) -> torch.Tensor:
            self.accelerator.unscale_gradients()
            trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            return torch.nn.utils.clip_grad_norm_(trained, args.max_grad_norm)

        def training_step(self, model: Any, inputs: dict[str, Step], num_items_in_batch: Any = None) -> torch.Tensor:
            # The wrapper says it is training from the start; what is inside comes from answering.
            if not bare.training:
                model.train()
            share = loss.backward(inputs["step"], model, self.accelerator)
            # What trackers are told is the mean over the processes, and the loss is their sum.
            return (share * _processes.world_size()).to(args.device)

    trainer = QuietTrainer(
        model=model,
        args=args,
        # TRL asks for some; what is trained on comes from `steps`.
        train_dataset=Dataset.from_dict({"index": [0]}),
        data_collator=lambda batch: batch,
        processing_class=processor,
        callbacks=[callback],
    )
    # Going through thousands of frozen modules at every step would keep a GPU waiting; the optimizer knows the others.
    model.zero_grad = lambda set_to_none=True: trainer.optimizer.zero_grad(set_to_none)
    # It prints to stdout, and comes in whenever tqdm is off.
    trainer.remove_callback(PrinterCallback)
    return trainer
