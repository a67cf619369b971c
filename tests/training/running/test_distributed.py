"""Two real processes on the CPU: the same losses and adapter as one, one voice, and an end when one of them fails."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import models
from tests.processes import Ran, launch, torchrun
from tests.training.conftest import COLOURS, photo
from vlm_tune import Dataset, LoRATrainer, MergeReport, Task, TrainConfig
from vlm_tune.recipe import Recipe
from vlm_tune.training.running.distributed import add_gradients, hand_round, require_same
from vlm_tune.training.running.photos import Photos
from vlm_tune.training.running.steps import Steps
from vlm_tune.training.running.store import Store
from vlm_tune.training.running.tape import Tape
from vlm_tune.vlm import VLM

QUICK = {"r": 8, "lora_alpha": 32.0, "learning_rate": 5e-3, "epochs": 2.0}
# 21 examples: batches of 4 end with one example, which leaves one of two processes without any; 3 never divides by 2.
CONFIGS = {
    "stock": {**QUICK, "batch_size": 4, "fast": False},
    "uneven": {**QUICK, "batch_size": 3, "fast": False, "micro_batch_size": 1},
    "fast": {**QUICK, "batch_size": 4, "fast": True},
    "vision once": {**QUICK, "batch_size": 3, "fast": True, "regions": ("language",)},
    "mixed": {**QUICK, "batch_size": 3, "augment": {"crop": (0.6, 1.0), "flip": True, "mixup": 0.4, "cutmix": 1.0}},
}
LONG = {**QUICK, "batch_size": 4, "fast": False, "save_every": 3, "seed": 1}

SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import vlm_tune as vt
from vlm_tune.errors import StoppedError
from vlm_tune.training.running import loop
from vlm_tune.training.running.fast import Fast
from vlm_tune.training.running.tape import Tape

root, configs, long = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
task = vt.Task(prompt="Which colour?", classes=("red", "green", "blue"))
data = vt.Dataset.from_folder(root / "photos", task=task)
vt.profile(data).show()
leakage = vt.LeakageChecker().check(data)
base = vt.VLM(root / "model")
before = vt.Evaluator(data.test, run_dir=root / "two").run(base)
gate = vt.LoRATrainer(base, vt.TrainConfig(**configs["stock"])).overfit(data.train, max_steps=3)
facts = [leakage.num_compared, before.accuracy.value, gate.losses]
try:
    vt.LeakageChecker().check(data.train)
except vt.errors.SplitError:
    facts[0] += 1

for name, config in configs.items():
    adapter = vt.LoRATrainer(base, vt.TrainConfig(**config)).fit(data.train, run_dir=root / "two" / name)
    facts.append(adapter.training.losses)
merged = adapter.merge(root / "two" / "merged")
after = vt.Evaluator(data.test, run_dir=root / "two").run(merged)
vt.Report([before, after], sections=[vt.Comparison(candidate=after, reference=before)]).save(root / "two" / "r.html")

spread = vt.LoRATrainer(base, vt.TrainConfig(**configs["stock"]), shard=True)
spread.overfit(data.train, max_steps=2)
adapter = spread.fit(data.train, validation=data.test, run_dir=root / "two" / "spread")
facts.append(adapter.training.losses)
adapter.merge(root / "two" / "spread" / "merged")

way, ways = loop._forward, []
loop._forward = lambda job: ways.append(way(job)) or ways[-1]
if os.environ["RANK"] == "1":
    Fast.difference = lambda *args: 0.5
vt.LoRATrainer(base, vt.TrainConfig(**configs["fast"], seed=1)).fit(data.train, run_dir=root / "two" / "apart")
facts.append(type(ways[0][0]).__name__)

patient = vt.LoRATrainer(base, vt.TrainConfig(**long))
patient.fit(data.train, run_dir=root / "one-two")

put = Tape.put
def ask_one_of_them_to_end(self, number, *args, **kwargs):
    if number == 8 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    put(self, number, *args, **kwargs)
Tape.put = ask_one_of_them_to_end
try:
    patient.fit(data.train, run_dir=root / "two-one")
except StoppedError as stopped:
    facts.append(stopped.step)
(root / ("facts-" + os.environ["RANK"])).write_text(json.dumps(facts))

broken = vt.Dataset([*data.train, vt.Example(id="torn", image=b"no photo at all", label="red")], task=task)
config = vt.TrainConfig(**{**configs["stock"], "epochs": 1})
vt.LoRATrainer(base, config).fit(broken, run_dir=root / "broken")
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and photos of two sizes in two splits."""
    folder = tmp_path_factory.mktemp("several")
    models.tiny_qwen3_vl(folder / "model")
    for split, count, start in (("train", 7, 0), ("test", 2, 100)):
        for place, label in enumerate(COLOURS):
            (folder / "photos" / split / label).mkdir(parents=True)
            for index in range(count):
                data = photo(label, start + 3 * index + place, width=64 + 16 * (index % 2))
                (folder / "photos" / split / label / f"{index}.png").write_bytes(data)
    return folder


def dataset(root: Path) -> Dataset:
    return Dataset.from_folder(root / "photos", task=Task(prompt="Which colour?", classes=COLOURS))


def fit(root: Path, name: str, config: dict[str, object]) -> tuple[float, ...]:
    trainer = LoRATrainer(VLM(root / "model"), TrainConfig.model_validate(config))
    return trainer.fit(dataset(root).train, run_dir=root / name).training.losses


@pytest.fixture(scope="module")
def script(root: Path) -> Ran:
    """A user's script in two processes; it ends with a photo that only one of them reads."""
    interrupted(root, "one-two")
    (root / "script.py").write_text(SCRIPT)
    return launch(root / "script.py", root, json.dumps(CONFIGS), json.dumps(LONG))


def interrupted(root: Path, name: str) -> None:
    """Train in this process until the eighth step, and be stopped like by Ctrl-C."""
    put = Tape.put

    def stop(self: Tape, number: int, *args: object, **kwargs: object) -> None:
        if number == 8:
            raise KeyboardInterrupt
        put(self, number, *args, **kwargs)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tape, "put", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(root, name, LONG)


def facts(root: Path, rank: int) -> list[object]:
    found: list[object] = json.loads((root / f"facts-{rank}").read_text())
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_two_processes_train_what_one_does(root: Path, script: Ran, name: str) -> None:
    alone = fit(root, f"one/{name}", CONFIGS[name])
    together = facts(root, 0)[3 + list(CONFIGS).index(name)]
    assert together == pytest.approx(list(alone), rel=1e-5)
    mine = load_file(root / "one" / name / "adapter" / "adapter_model.safetensors")
    theirs = load_file(root / "two" / name / "adapter" / "adapter_model.safetensors")
    for key, tensor in mine.items():
        torch.testing.assert_close(theirs[key], tensor, rtol=1e-3, atol=1e-4)


def test_a_model_that_is_spread_over_two_processes_trains_the_same(root: Path, script: Ran) -> None:
    alone = fit(root, "one/stock", CONFIGS["stock"])
    assert facts(root, 0)[3 + len(CONFIGS)] == pytest.approx(list(alone), rel=1e-5)
    mine = load_file(root / "one" / "stock" / "adapter" / "adapter_model.safetensors")
    theirs = load_file(root / "two" / "spread" / "adapter" / "adapter_model.safetensors")
    assert mine.keys() == theirs.keys()
    for key, tensor in mine.items():
        torch.testing.assert_close(theirs[key], tensor, rtol=1e-3, atol=1e-4)
    assert MergeReport.load(root / "two" / "spread" / "merged").tensors_changed > 0


def test_where_the_fast_way_is_wrong_in_one_process_all_take_the_stock_one(root: Path, script: Ran) -> None:
    assert [facts(root, rank)[4 + len(CONFIGS)] for rank in (0, 1)] == ["Stock", "Stock"]
    assert script.err.count("differs from the stock one by 50 %") == 1


def test_all_processes_know_what_the_first_one_found(root: Path, script: Ran) -> None:
    first, second = facts(root, 0), facts(root, 1)
    assert first == second
    assert first[0] == 21 * 6 + 1
    assert (root / "two" / "r.html").exists() and (root / "two" / "merged" / "config.json").exists()
    assert not list(root.rglob("*.part"))


def test_only_the_first_process_speaks(script: Ran) -> None:
    assert script.out.count("27 photos") == 1, script.out


def test_one_that_fails_ends_all_and_says_so_once(root: Path, script: Ran) -> None:
    assert script.status == 1
    assert script.err.count("ImageError: cannot read image") == 1, script.err
    assert "gloo" not in script.err


def test_one_that_is_asked_to_end_ends_all_and_one_process_goes_on(root: Path, script: Ran) -> None:
    stopped = facts(root, 0)[-1]
    assert stopped in (8, 9, 10)
    unbroken = fit(root, "unbroken", LONG)
    assert fit(root, "two-one", LONG) == pytest.approx(unbroken, rel=1e-5)
    card = json.loads((root / "two-one" / "adapter" / "vlm_tune.json").read_text())
    assert card["training"]["resumed_from"] == stopped


def test_two_go_on_where_one_stopped(root: Path, script: Ran) -> None:
    card = json.loads((root / "one-two" / "adapter" / "vlm_tune.json").read_text())
    assert card["training"]["resumed_from"] == 6
    assert card["training"]["losses"] == pytest.approx(list(fit(root, "unbroken", LONG)), rel=1e-5)
    mine = load_file(root / "unbroken" / "adapter" / "adapter_model.safetensors")
    theirs = load_file(root / "one-two" / "adapter" / "adapter_model.safetensors")
    for key, tensor in mine.items():
        torch.testing.assert_close(theirs[key], tensor, rtol=1e-3, atol=1e-4)


def test_the_command_line_in_two_processes(root: Path) -> None:
    recipe = f"""
task: {{prompt: "Which colour?", classes: [red, green, blue]}}
data: {{folder: {root}/photos}}
model: {root}/model
train: {json.dumps(CONFIGS["fast"])}
overfit: false
run_dir: by-two
"""
    (root / "recipe.yaml").write_text(recipe)
    ran = torchrun("-m", "vlm_tune", "fit", root / "recipe.yaml")
    assert ran.status == 0, ran.err
    assert ran.out.count("model-lora") == 1 and ran.out.splitlines()[-1].endswith("adapter"), ran.out
    assert len(re.findall(r"Fine-tune with LoRA", ran.err)) == 1, ran.err
    (root / "recipe.yaml").write_text(recipe.replace("by-two", "by-one"))
    alone = Recipe.from_file(root / "recipe.yaml").fit()
    card = json.loads((root / "by-two" / "adapter" / "vlm_tune.json").read_text())
    assert card["training"]["losses"] == pytest.approx(list(alone.training.losses), rel=1e-5)


@pytest.mark.parametrize("even", [False, True])
def test_every_process_takes_part_in_every_step(even: bool) -> None:
    shares = [
        [
            step.rows
            for (step,) in Steps(lambda _: range(9), [1.0] * 9, batch_size=4, rank=rank, world_size=3, even=even)
        ]
        for rank in range(3)
    ]
    assert [[len(rows) for rows in share] for share in shares] == (
        [[2, 2, 1]] * 3 if even else [[2, 2, 1], [1, 1, 1], [1, 1, 1]]
    )
    for number, examples in enumerate(([0, 1, 2, 3], [4, 5, 6, 7], [8])):
        rows = [row for share in shares for row in share[number]]
        assert sorted(row.index for row in rows if row.weight) == examples


def test_alone_nothing_is_exchanged() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    add_gradients(iter([weight]))
    assert weight.grad is None
    store = Store(torch.device("cpu"), ["a photo"])
    store.put(0, {"a": torch.ones(1)})
    hand_round(store, Photos([], max_pixels=1))
    require_same("anything")
    assert 0 in store
