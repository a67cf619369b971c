import pytest

from vlm_tune.errors import ModelError
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.estimate import DEVICES, Sizes, Stack, estimate, pick_device

H200 = DEVICES[0]


def qwen_8b(*, regions: tuple[str, ...]) -> Sizes:
    """Qwen3-VL-8B on photos of 1000 x 750: 2852 patches, 828 tokens."""
    q, kv, ffn, h = 4096, 1024, 12288, 4096
    text = Stack(
        weights=36 * (h * (q + 2 * kv) + q * h + 3 * h * ffn),
        outputs=36 * (q + 2 * kv + h + 2 * ffn + h),
        width=h,
        depth=36,
        mixing=36 * q,
    )
    v, f = 1152, 4304
    vision = Stack(weights=27 * (4 * v * v + 2 * v * f), outputs=27 * (4 * v + f + v), width=v, depth=27, mixing=27 * v)
    projector = Stack(weights=4 * (4608 * 4608 + 4608 * 4096), outputs=4 * 8704, width=0, depth=1, mixing=0)
    return Sizes(
        family="qwen3_vl",
        stacks={"language": text, "vision": vision, "projector": projector},
        parameters=8_767_000_000,
        trained=61_300_000 if regions == ("language",) else 77_900_000,
        regions=regions,
        tokens=828,
        patches=2852,
        examples=319,
        bytes_per_weight=2,
    )


ALL = ("vision", "projector", "language")


@pytest.mark.parametrize(
    ("regions", "batch_size", "checkpointing", "measured_gb"),
    [
        (("language",), 4, False, 42),
        (("language",), 8, False, 66),
        (("language",), 16, False, 114),
        (ALL, 8, False, 90),
        (("language",), 4, True, 20.6),
        (ALL, 4, True, 21.8),
    ],
)
def test_memory_is_near_what_was_measured_on_an_h200(
    regions: tuple[str, ...], batch_size: int, checkpointing: bool, measured_gb: float
) -> None:
    config = TrainConfig(batch_size=batch_size, gradient_checkpointing=checkpointing)
    found = estimate(qwen_8b(regions=regions), config, H200)
    assert found.memory_gb == pytest.approx(measured_gb, rel=0.08)
    assert found.fits


@pytest.mark.parametrize(("regions", "tflop"), [(("language",), 27.6), (ALL, 32.7)])
def test_work_is_the_published_arithmetic(regions: tuple[str, ...], tflop: float) -> None:
    found = estimate(qwen_8b(regions=regions), TrainConfig(), H200)
    assert found.tflop_per_example == pytest.approx(tflop, rel=0.05)


def test_time_is_near_what_was_measured_on_an_h200() -> None:
    # 957 samples: 89 s with the vision tower frozen, 117 s with it adapted.
    frozen = estimate(qwen_8b(regions=("language",)), TrainConfig(batch_size=8), H200)
    adapted = estimate(qwen_8b(regions=ALL), TrainConfig(batch_size=8), H200)
    assert frozen.seconds == pytest.approx(89, rel=0.4)
    assert adapted.seconds == pytest.approx(117, rel=0.4)
    assert frozen.seconds < adapted.seconds


def test_dollars_are_time_times_a_rent_with_its_source() -> None:
    found = estimate(qwen_8b(regions=ALL), TrainConfig(), H200)
    assert found.cost is not None
    assert found.cost.usd == pytest.approx(found.seconds / 3600 * H200.usd_per_hour)
    assert "2026" in found.cost.basis


def test_what_does_not_fit_is_said() -> None:
    assert not estimate(qwen_8b(regions=ALL), TrainConfig(batch_size=32), H200).fits


def test_pick_device() -> None:
    assert pick_device("auto", 8_000_000_000, name="h100")[0].name == "NVIDIA H100"
    assert pick_device("cpu", 8_000_000_000)[0].name.startswith("CPU")
    assert not pick_device("cpu", 1)[0].rented
    with pytest.raises(ModelError, match="NVIDIA H200"):
        pick_device("auto", 1, name="abacus")
