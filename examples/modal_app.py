"""The CIFAR-100 experiment on Modal's GPUs: every point of the learning curve is a container of its own.

    modal run examples/modal_app.py --sizes 500,1000,2500,5000,10000 --num-seeds 3 --gpu H100

This needs `pip install modal vlm-tune`, an account at modal.com (`modal setup`), and money: points run side by side, each
on a GPU that is paid by the second. Model, photos and checkpoints stay in a volume, so a container that Modal takes away
goes on where it was, and the same command again trains nothing twice.
"""

import modal

import vlm_tune as vt

MODEL = "LiquidAI/LFM2-VL-3B"
CACHE = "/cache"

app = modal.App("vlm-tune-cifar100")
volume = modal.Volume.from_name("vlm-tune", create_if_missing=True)
image = modal.Image.debian_slim(python_version="3.12").uv_pip_install("vlm-tune").env({"HF_HOME": f"{CACHE}/huggingface"})


@app.function(image=image, gpu="H100", volumes={CACHE: volume}, timeout=6 * 60 * 60, retries=3)
def train(size: int, seed: int) -> dict:
    """Train on so many images, and return the curve of this one point."""
    data = vt.Dataset.from_hf("uoft-cs/cifar100", task="What is shown in this photo?", label="fine_label")
    config = vt.TrainConfig(r=64, lora_alpha=16, learning_rate=2e-4, batch_size=64, epochs=3)
    trainer = vt.LoRATrainer(vt.VLM(MODEL), config)
    curve = vt.LearningCurve.run(trainer, data, [size], [seed], run_dir=f"{CACHE}/runs/{size}-{seed}")
    volume.commit()
    return curve.model_dump(mode="json")


@app.local_entrypoint()
def main(sizes: str = "500,1000,2500,5000,10000", num_seeds: int = 3, gpu: str = "H100") -> None:
    units = [(int(size), seed) for size in sizes.split(",") for seed in range(num_seeds)]
    curves = []
    for unit, found in zip(units, train.with_options(gpu=gpu).starmap(units, return_exceptions=True), strict=True):
        if isinstance(found, BaseException):
            print(f"{unit[0]} images, seed {unit[1]}: {found}")
        else:
            curves.append(vt.LearningCurve.model_validate(found))
    if not curves:
        raise SystemExit("No point came to anything; the reasons are above.")
    points = [point for curve in curves for point in curve.points]
    curve = vt.LearningCurve(points=points, classes=curves[0].classes, chance=curves[0].chance, name=MODEL)
    curve.show()
    print(f"All points: {curve.save('runs/cifar100/curve.json')}")
