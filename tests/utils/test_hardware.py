"""What is said of the processor, from what its kernel tells of it."""

import pytest

from basicsr.utils import hardware
from basicsr.utils.hardware import gains_from_bfloat16, processor, processor_flags, processor_name
from basicsr.utils.provenance import provenance

CORE = "processor\t: {}\nmodel name\t: {}\nflags\t\t: fpu {}\nbugs\t\t: spectre_v1\n\n"


@pytest.mark.parametrize(
    ("name", "flags", "line"),
    [
        ("AMD EPYC 9R14", "avx2 avx512f avx512_vnni avx512_bf16", "AMD EPYC 9R14, AVX2, AVX-512, VNNI, bfloat16"),
        ("Old CPU: one", "sse2", "Old CPU: one"),
        ("Xeon", "avx2 avx512f avx512_vnni avx512_bf16 amx_int8 amx_bf16", "Xeon, AVX2, AVX-512, VNNI, bfloat16, AMX"),
    ],
)
def test_a_line_has_the_name_and_the_instructions_that_count(name, flags, line, tmp_path):
    information = tmp_path / "cpuinfo"
    information.write_text(CORE.format(0, name, flags) + CORE.format(1, "another", "amx_int8"))
    assert processor(information) == line
    assert processor_flags(information) == {"fpu", *flags.split()}


def test_a_kernel_that_tells_nothing_leaves_what_python_knows(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware.platform, "processor", lambda: "")
    monkeypatch.setattr(hardware.platform, "machine", lambda: "aarch64")
    information = tmp_path / "cpuinfo"
    assert (processor(information), processor_flags(information)) == ("aarch64", set())
    information.write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    assert (processor_name(information), processor(information)) == ("aarch64", "aarch64")


def test_results_say_what_computed_them():
    said = provenance()
    assert said["processor"] == processor() and int(said["threads"]) >= 1


@pytest.mark.parametrize(
    ("vendor", "flags", "gains"),
    [
        ("GenuineIntel", "avx512f avx512_bf16 amx_bf16 amx_int8", True),
        ("GenuineIntel", "avx512f avx512_bf16", False),  # AMX hidden by a virtual machine
        ("AuthenticAMD", "avx512f avx512_bf16", True),
        ("AuthenticAMD", "avx2", False),
        ("GenuineIntel", "avx512f", False),
    ],
)
def test_bfloat16_is_for_processors_whose_products_are_faster_in_it(vendor, flags, gains, tmp_path):
    information = tmp_path / "cpuinfo"
    information.write_text(f"vendor_id\t: {vendor}\n{CORE.format(0, 'any', flags)}")
    assert gains_from_bfloat16(information) is gains


def test_a_processor_that_tells_nothing_gains_nothing_from_bfloat16(tmp_path):
    assert not gains_from_bfloat16(tmp_path / "none")
