"""How often the host waits for the device in a calibration: for each calibrator a bound, which one more read goes beyond."""

from dataclasses import dataclass

import pytest
import torch

from basicsr.archs import build_network
from basicsr.quant.calibrators.base import StreamingCalibrator
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.training.calibration.network_calibration import calibrate_network
from basicsr.training.host_waits import HostWaits
from basicsr.utils.options import CalibrationOptions
from basicsr.utils.registry import CALIBRATOR_REGISTRY
from tests import tiny
from tests.devices.lane_of_steps import calibrated
from tests.devices.second import SecondDevice, skipped

pytestmark = skipped


@dataclass(frozen=True)
class Most:
    """How often the host waits at most for one quantizer: once, for each batch, and for each channel of a batch beyond the first."""

    once: int
    batch: int
    channel: int = 0

    def of(self, batches, channels=1):
        return self.once + batches * (self.batch + (channels - 1) * self.channel)


MOST = {
    "DBDC": Most(5, 3),
    "DDTB": Most(13, 12, 48),
    "DFSQ": Most(10, 4),
    "DOBI": Most(11, 3, 6),
    "EMAMax": Most(4, 1),
    "LogScale": Most(5, 8),
    "MeanMagnitude": Most(4, 1),
    "MeanMax": Most(4, 1),
    "MinMax": Most(4, 1),
    "OptimalPoints": Most(2, 3),
    "Outlier": Most(12, 12, 48),
    "Percentile": Most(12, 12, 48),
}
"""By calibrator; docs/design/host-waits.md tells the same."""
OF_A_NETWORK = {"MinMax": 1, "DOBI": 1, "Percentile": 2}
"""Calibrators with the number of their passes."""
CHANNELS = 3
SPECS = (QuantSpec(4), QuantSpec(3, symmetric=True), QuantSpec(2, granularity="per_channel", channel_axis=1))


def waits_of(name, spec, batches):
    """Return how often the host waits while a calibrator looks at batches on the device."""
    with HostWaits() as looked_at:
        calibrated(name, spec, batches)
    return len(looked_at.waits)


def cases(name):
    """Yield waits of a calibrator and how many may be, on signed data and on softmax maps where it can use them."""
    second = SecondDevice()
    for spec in SPECS:
        channels = CHANNELS if spec.channel_axis is not None else 1
        torch.manual_seed(0)
        signed = [torch.randn(2, CHANNELS, 8, 9) for _ in range(3)]
        for batches in (signed, [batch.softmax(-1) for batch in signed]):
            for number in (1, 2, 3):
                with second:
                    on_device = [batch.to(second.device) for batch in batches[:number]]
                    try:
                        waits = waits_of(name, spec, on_device)
                    except QuantizationError:  # such as bounds -u and u, or data below 0
                        continue
                yield waits, MOST[name].of(number, channels)


@pytest.mark.parametrize("name", CALIBRATOR_REGISTRY.names())
def test_no_calibrator_waits_more_often_than_its_bound_says(name):
    counted = list(cases(name))
    assert counted and all(waits <= most for waits, most in counted), counted


def reading(look):
    def look_and_read(self, tensor):
        assert tensor.max() < 1e9  # as one writes it to look at something
        look(self, tensor)

    return look_and_read


@pytest.mark.parametrize("name", CALIBRATOR_REGISTRY.names())
def test_one_more_read_in_a_batch_goes_beyond_the_bound(name, monkeypatch):
    monkeypatch.setattr(StreamingCalibrator, "update", reading(StreamingCalibrator.update))
    assert any(waits > most for waits, most in cases(name))


@pytest.mark.parametrize("name", OF_A_NETWORK)
def test_a_network_adds_a_read_for_each_quantizer_and_a_copy_for_each_batch(name):
    second, batches, passes = SecondDevice(), 2, OF_A_NETWORK[name]
    network = build_network({"type": "EDSR", **tiny.NETWORKS["EDSR"]})
    insert_quantizers(network, "body", 4, 4)
    weights, activations = (len(dict(named_quantizers(network, role))) for role in ("weight", "activation"))
    chosen = {"type": name}
    options = CalibrationOptions(weights=chosen, activations=chosen, batch_size=1)
    with second:
        network = network.to(second.device)
        with HostWaits() as looked_at:
            calibrate_network(network, torch.rand(batches, 3, 16, 16), options)
    most = weights * (MOST[name].of(1) + 1) + activations * (MOST[name].of(batches) + 1) + passes * batches
    assert weights and activations and len(looked_at.waits) <= most, looked_at.by_place
