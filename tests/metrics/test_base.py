"""What a metric states of itself, and how `val:metrics` configures it."""

import numpy as np
import pytest

from basicsr.metrics.base import MetricTraits, build_metrics
from basicsr.metrics.psnr_ssim_metric import calculate_psnr
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import ValOptions, load_options
from basicsr.utils.registry import ALL_REGISTRIES, METRIC_REGISTRY
from tests import tiny

IMAGES = [np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8) for seed in range(2)]
LESS = MetricTraits("MAE", "", 2, higher_is_better=False, compares="hr")
MORE = MetricTraits("PSNR", "dB", 3, higher_is_better=True, compares="hr")


def test_every_registered_metric_declares_itself():
    for name in METRIC_REGISTRY.names():
        assert isinstance(METRIC_REGISTRY.get(name).traits, MetricTraits), name


def test_by_default_three_metrics_on_y_without_a_border_of_scale():
    metrics = build_metrics(ValOptions(), 4)
    assert list(metrics) == ["psnr", "ssim", "fidelity"]
    assert metrics["psnr"](*IMAGES) == calculate_psnr(*IMAGES, crop_border=4, test_y_channel=True)
    assert "test_y_channel" not in metrics["fidelity"].arguments


def test_options_of_a_metric_come_before_those_of_the_section():
    options = ValOptions(
        crop_border=3,
        test_y_channel=False,
        metrics={
            "section": {"type": "calculate_psnr"},
            "own": {"type": "calculate_psnr", "crop_border": 1, "test_y_channel": True},
        },
    )
    metrics = build_metrics(options, 4)
    assert metrics["section"](*IMAGES) == calculate_psnr(*IMAGES, crop_border=3, test_y_channel=False)
    assert metrics["own"](*IMAGES) == calculate_psnr(*IMAGES, crop_border=1, test_y_channel=True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("val:metrics={psnr: {type: calculate_pnsr}}", "Did you mean 'calculate_psnr'"),
        ("val:metrics={psnr: {type: calculate_psnr, crop_bordr: 1}}", "crop_bordr"),
        ("val:metrics={psnr: {crop_border: 1}}", "val:metrics:psnr:type"),
        ("val:metrics={seconds: {type: calculate_psnr}}", "cannot name a metric"),
        ("val:metrics={a b: {type: calculate_psnr}}", "cannot name a metric"),
        (
            "val:metrics={ssim: {type: calculate_ssim}}",
            "'val:best_metric' is 'psnr', which 'val:metrics' does not name",
        ),
        ("val:best_metric=psrn", "Did you mean 'psnr'"),
    ],
)
def test_what_cannot_be_used_stops_the_run_before_any_work(override, message):
    with pytest.raises(OptionsError, match=message):
        load_options(tiny.TRAIN, [override])


def test_a_metric_that_does_not_declare_itself_is_named(tmp_path, monkeypatch):
    for registry in ALL_REGISTRIES:  # what a plugin brings is remembered as long as the process lives
        monkeypatch.setattr(registry, "_folders", list(registry._folders))
        monkeypatch.setattr(registry, "_components", dict(registry._components))
    (tmp_path / "silent_metric.py").write_text(
        "from basicsr.utils.registry import METRIC_REGISTRY\n\n\n"
        "@METRIC_REGISTRY.register()\ndef silent_metric(a, b, /):\n    return 0.0\n"
    )
    options = load_options(tiny.TEST, [f"plugins=[{tmp_path}]", "val:metrics={silent: {type: silent_metric}}"])
    with pytest.raises(OptionsError, match="'silent_metric', which does not state its label"):
        build_metrics(options.val, 4)


def test_direction_and_texts():
    assert MORE.is_better(2.0, 1.0) and not MORE.is_better(1.0, 1.0) and MORE.best([1.0, 3.0, 2.0]) == 3.0
    assert LESS.is_better(1.0, 2.0) and not LESS.is_better(1.0, 1.0) and LESS.best([1.0, 3.0, 2.0]) == 1.0
    assert (MORE.heading, LESS.heading) == ("PSNR (dB)", "MAE")
    assert (MORE.text(31.7749), MORE.text(31.7749, 1), LESS.text(2.0), MORE.text(None)) == (
        "31.775 dB",
        "31.8 dB",
        "2.00",
        "-",
    )
    assert MetricTraits(**MORE.as_dict()) == MORE
