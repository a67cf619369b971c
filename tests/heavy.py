"""What takes seconds to import; a process that has it already forks children for the tests (`tests.processes`).

Nothing of vlm_tune is among it: a child imports that itself, as a user's script does.
"""

import gc
import logging
from importlib import import_module

# What bitsandbytes says as it is imported belongs to no test.
logging.disable()
for name in (
    "accelerate",
    "bitsandbytes",
    "datasets",
    "torch.distributed.fsdp",
    "transformers.models.lfm2_vl.modeling_lfm2_vl",
    "transformers.models.qwen3_vl.modeling_qwen3_vl",
    "trl.trainer.sft_trainer",
):
    import_module(name)
logging.disable(logging.NOTSET)
# Children share what is here already; their garbage collector need not look at it.
gc.freeze()
