"""The losses of TRL's own trainer, step by step, from the same adapters and the same photos."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers
from datasets import Dataset as Rows
from datasets import Image, List
from peft import LoraConfig
from transformers import AutoModelForImageTextToText
from trl import SFTConfig, SFTTrainer

from vlm_tune.data import Dataset
from vlm_tune.training import LoRATrainer, TrainConfig
from vlm_tune.vlm import VLM
from vlm_tune.vlm.prompts import prompt_text

STEPS = 6
CONFIG = TrainConfig(r=4, lora_alpha=16, learning_rate=1e-3, lr_scheduler="constant", warmup_ratio=0.0, epochs=STEPS)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL asks transformers by names that are about to go.
@pytest.mark.parametrize("fast", [True, False])
def test_every_loss_is_that_of_trl(tiny_vlm: Path, colours: Dataset, tmp_path: Path, fast: bool) -> None:
    # Every step sees all photos, so that their order cannot matter.
    few = Dataset(colours.examples[:6], task=colours.task)
    config = CONFIG.model_copy(update={"batch_size": len(few), "fast": fast})
    ours = LoRATrainer(VLM(tiny_vlm), config).fit(few, run_dir=tmp_path / "ours").training.losses
    assert ours == pytest.approx(losses_of_trl(tiny_vlm, few, tmp_path), abs=1e-5)


def losses_of_trl(folder: Path, data: Dataset, scratch: Path) -> list[float]:
    base = VLM(folder)
    resident = base.load()
    rows = [
        {
            "images": [{"bytes": one.image, "path": None}],
            "prompt": prompt_text(resident.processor, data.task),
            "completion": f"{one.label}<|im_end|>",
        }
        for one in data
    ]
    targets = resident.family.target_modules(CONFIG.regions, CONFIG.kinds)
    arguments = SFTConfig(
        output_dir=str(scratch / "trl"),
        per_device_train_batch_size=len(data),
        max_steps=STEPS,
        learning_rate=CONFIG.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=CONFIG.weight_decay,
        max_length=None,
        use_cpu=True,
        bf16=False,
        seed=CONFIG.seed,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=AutoModelForImageTextToText.from_pretrained(folder, dtype="float32"),
        args=arguments,
        train_dataset=Rows.from_list(rows).cast_column("images", List(Image())),
        processing_class=resident.processor,
        peft_config=LoraConfig(r=CONFIG.r, lora_alpha=CONFIG.lora_alpha, target_modules=targets, task_type="CAUSAL_LM"),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
