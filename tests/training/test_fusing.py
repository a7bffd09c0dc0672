import shutil

import pytest
import torch

from basicsr.quant.kernels import fused, library
from basicsr.quant.kernels.fused import rows_of
from basicsr.training.fusing import compiled_quantizers
from basicsr.utils.compiling import NotCompiledError
from basicsr.utils.errors import OptionsError

CPU = torch.device("cpu")


def in_use():
    return rows_of(torch.rand(4), torch.tensor(1.0), None) is not None


@pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="needs a C compiler")
@pytest.mark.parametrize(("wanted", "expected"), [("auto", True), (True, True), (False, False)])
def test_loops_are_in_use_within_the_block(wanted, expected):
    with compiled_quantizers(wanted, CPU):
        assert in_use() is expected
    assert not in_use()


def test_a_gpu_has_none():
    with compiled_quantizers(True, torch.device("cuda")):
        assert not in_use()


def test_an_error_within_the_block_is_passed_on():
    with pytest.raises(RuntimeError, match="of the block"), compiled_quantizers("auto", CPU):
        raise RuntimeError("of the block")


def test_without_a_compiler_operators_of_torch_do_the_work(monkeypatch, caplog):
    def refuse():
        raise NotCompiledError("There is no compiler.")

    monkeypatch.setattr(fused, "load_library", refuse)
    with caplog.at_level("INFO"), compiled_quantizers("auto", CPU):
        assert not in_use()
    assert "Quantizers run as operators of torch" in caplog.text
    with pytest.raises(OptionsError, match="'train:fused_quantizers' is true"), compiled_quantizers(True, CPU):
        pass


def test_the_sources_are_part_of_the_package():
    assert {file.name for file in library.FOLDER.glob("*.c")} == {"fake_quantize.c", "histogram.c"}
